"""--dataroot_A and --dataroot_B: folders of the domains with other names than trainA and trainB."""

from pathlib import Path

import numpy as np
import pytest
from image_factory import fill, noise, options, pixels, two_domains

from data import create_dataset
from data.eval_data import EvalDataset
from data.image_folder import DATAROOT_UNSET
from options import TrainOptions
from util.errors import UserError


def own(folder: Path) -> dict[str, object]:
    """Return the options that read the folders "photos" and "art" in `folder`."""
    return {"dataroot": DATAROOT_UNSET, "dataroot_A": str(folder / "photos"), "dataroot_B": str(folder / "art")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the same images under both kinds of names."""
    for split in ("train", "test"):
        two_domains(tmp_path, split)
    fill(tmp_path / "photos", 5, seed=1)
    fill(tmp_path / "art", 3, seed=2)
    return tmp_path


@pytest.mark.parametrize(("mode", "is_train"), [("unaligned", True), ("unaligned", False), ("single", False)])
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_own_folders_are_read_as_those_of_a_dataset(folder: Path, mode: str, direction: str, is_train: bool) -> None:
    shared = {"is_train": is_train, "dataset_mode": mode, "direction": direction}
    expected = list(create_dataset(options(folder, **shared)))
    found = list(create_dataset(options(**shared, **own(folder))))
    source = direction[0]
    assert [Path(path).name for batch in found for path in batch[f"{source}_paths"]] == [
        Path(path).name for batch in expected for path in batch[f"{source}_paths"]
    ]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(pixels(one, source), pixels(other, source))
    assert {Path(path).parent.name for batch in found for path in batch[f"{source}_paths"]} == {
        "photos" if source == "A" else "art"
    }


def test_a_resumed_run_keeps_the_images_of_its_own_folders(folder: Path) -> None:
    saved = create_dataset(options(**own(folder))).state_dict()
    assert saved["pictures"][1] == ["00.png", "01.png", "02.png"]
    noise(20, 16).save(folder / "photos" / "0 added.png")
    resumed = create_dataset(options(**own(folder)))
    resumed.load_state_dict(saved)
    assert resumed.state_dict() == saved
    assert len(resumed) == 5


def test_an_evaluation_reads_the_own_folders(folder: Path) -> None:
    opt = TrainOptions().parse(["--dataroot_A", str(folder / "photos"), "--dataroot_B", str(folder / "art")])
    evaluated = EvalDataset(opt)
    assert evaluated.split == "photos to art"
    assert len(list(evaluated.inputs())) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataroot_B": None}, "--dataroot_B: missing. Give the folder of the images of domain B."),
        ({"dataroot_A": None, "dataset_mode": "single", "is_train": False}, "--dataroot_A: missing."),
        ({"dataroot_A": "nowhere"}, "--dataroot_A nowhere: no such folder. Check the path."),
        ({"dataroot": "data"}, "--dataroot: incompatible with --dataroot_A and --dataroot_B."),
        ({"dataset_mode": "aligned"}, "--dataroot_A, --dataroot_B: incompatible with --dataset_mode aligned."),
    ],
    ids=str,
)
def test_folders_that_do_not_go_together_are_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        create_dataset(options(**{"dataroot": folder} | own(folder) | changes))
    assert str(refused.value).startswith(message)


def test_the_target_folder_is_not_needed_to_translate_one_domain(folder: Path) -> None:
    opt = options(is_train=False, dataset_mode="single", **own(folder) | {"dataroot_B": None})
    assert len(create_dataset(opt)) == 5


def test_a_folder_of_images_is_told_from_a_dataset(folder: Path) -> None:
    with pytest.raises(UserError, match=r"Use --dataroot_A DIR --dataroot_B DIR .* test.py --model test --dataroot DIR"):
        create_dataset(options(folder / "photos"))
