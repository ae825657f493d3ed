"""Two folders of unpaired images, in training and in testing."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from image_factory import options, pixels, ramp, two_domains
from PIL import Image, ImageOps

from data import create_dataset
from util.errors import UserError


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def epoch_names(root: Path, domain: str, epoch: int = 1, **changes: object) -> list[str]:
    loader = create_dataset(options(root, **changes))
    loader.set_epoch(epoch)
    return [name for batch in loader for name in names(batch[f"{domain}_paths"])]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return two_domains(tmp_path)


def test_batches(root: Path) -> None:
    loader = create_dataset(options(root, batch_size=2))
    assert len(loader) == 5
    batches = list(loader)
    assert len(batches) == 2  # the last, incomplete batch is dropped
    for batch in batches:
        assert set(batch) == {"A", "B", "A_paths", "B_paths"}
        for domain in "AB":
            assert batch[domain].shape == (2, 3, 16, 16)
            assert batch[domain].dtype.is_floating_point
            assert batch[domain].min() >= -1
            assert batch[domain].max() <= 1
            assert all(f"/train{domain}/" in path for path in batch[f"{domain}_paths"])


def test_an_epoch_contains_each_image_of_the_larger_domain_once(tmp_path: Path) -> None:
    assert Counter(epoch_names(two_domains(tmp_path / "1", n_A=7, n_B=3), "A")) == Counter(f"{n:02}.png" for n in range(7))
    of_A = Counter(epoch_names(two_domains(tmp_path / "2", n_A=3, n_B=7), "A"))
    assert of_A == Counter({"00.png": 3, "01.png": 2, "02.png": 2})


def test_order_and_partners_change_with_epoch_and_seed(tmp_path: Path) -> None:
    root = two_domains(tmp_path, n_A=20, n_B=20)
    for domain in "AB":
        runs = [epoch_names(root, domain, epoch, seed=seed) for epoch in (1, 2) for seed in (0, 1)]
        assert len({tuple(run) for run in runs}) == 4
        assert epoch_names(root, domain, 2, seed=1) == runs[3]
    pairs = zip(epoch_names(root, "A"), epoch_names(root, "B"), strict=True)
    assert sum(a == b for a, b in pairs) < 10


def test_serial_batches(root: Path) -> None:
    assert epoch_names(root, "A", serial_batches=True) == [f"{n:02}.png" for n in range(5)]
    assert epoch_names(root, "B", serial_batches=True) == [f"{n % 3:02}.png" for n in range(5)]


def test_same_batches_for_any_number_of_workers(tmp_path: Path) -> None:
    root = two_domains(tmp_path, n_A=9, n_B=6)
    loaders = [create_dataset(options(root, batch_size=2, num_threads=threads)) for threads in (0, 1, 2)]
    for epoch in (1, 2, 5):
        for loader in loaders:
            loader.set_epoch(epoch)
        for alone, *others in zip(*loaders, strict=True):
            for other in others:
                assert other["A_paths"] == alone["A_paths"]
                assert other["B_paths"] == alone["B_paths"]
                assert other["A"].equal(alone["A"])
                assert other["B"].equal(alone["B"])


@pytest.mark.parametrize("num_threads", [0, 2])
def test_no_enlargement_while_the_learning_rate_decays(num_threads: int, tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        for number in range(4):
            ramp(16, 16).save(tmp_path / f"train{domain}" / f"{number}.png")
    opt = options(tmp_path, load_size=32, crop_size=16, n_epochs=2, no_flip=True, num_threads=num_threads)
    loader = create_dataset(opt)
    whole = np.asarray(ramp(16, 16)).transpose(2, 0, 1)
    for epoch in (1, 2, 3, 4, 2):
        loader.set_epoch(epoch)
        is_whole = [np.array_equal(pixels(batch, domain)[0], whole) for batch in loader for domain in "AB"]
        assert all(is_whole) if epoch > 2 else not any(is_whole)


def test_crops_and_flips_of_the_domains_are_independent(tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        ramp(24, 24).save(tmp_path / f"train{domain}" / "ramp.png")
    loader = create_dataset(options(tmp_path, preprocess="crop"))
    corners = []
    for epoch in range(1, 101):
        loader.set_epoch(epoch)
        batch = next(iter(loader))
        corners.append([(pixels(batch, d)[0, :2, 0, 0], pixels(batch, d)[0, :2, 0, -1]) for d in "AB"])
    left_edge, right_edge = np.moveaxis(np.array(corners, dtype=float), 2, 0)  # each (100, domain, axis)
    flips = left_edge[..., 0] > right_edge[..., 0]
    assert 30 < flips[:, 0].sum() < 70
    assert 30 < (flips[:, 0] ^ flips[:, 1]).sum() < 70
    places = np.minimum(left_edge, right_edge)
    for axis in (0, 1):
        assert abs(np.corrcoef(places[:, 0, axis], places[:, 1, axis])[0, 1]) < 0.4


@pytest.mark.parametrize(("direction", "gray"), [("AtoB", "A"), ("BtoA", "B")])
def test_channels_follow_the_direction(direction: str, gray: str, root: Path) -> None:
    batch = next(iter(create_dataset(options(root, direction=direction, input_nc=1, output_nc=3))))
    assert {domain: batch[domain].shape[1] for domain in "AB"} == {"A": 3, "B": 3} | {gray: 1}
    assert "/trainA/" in batch["A_paths"][0]


def test_images_are_converted_to_gray_before_resizing(root: Path) -> None:
    opt = options(root, input_nc=1, preprocess="resize", serial_batches=True, no_flip=True)
    image = Image.open(root / "trainA" / "00.png").convert("L").resize((20, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels(next(iter(create_dataset(opt))))[0, 0], np.asarray(image))


def test_a_test_has_one_result_for_each_image_of_the_source(tmp_path: Path) -> None:
    root = two_domains(tmp_path, "test", n_A=5, n_B=3)
    for batch_size in (1, 2):
        shared = {"is_train": False, "batch_size": batch_size, "load_size": 16}
        assert epoch_names(root, "A", **shared) == [f"{n:02}.png" for n in range(5)]
        assert epoch_names(root, "B", **shared) == ["00.png", "01.png", "02.png", "00.png", "01.png"]
        assert epoch_names(root, "B", direction="BtoA", **shared) == ["00.png", "01.png", "02.png"]


def test_val_is_used_if_there_is_no_test(tmp_path: Path) -> None:
    root = two_domains(tmp_path, "val")
    assert len(epoch_names(root, "A", is_train=False)) == 5
    (root / "testA").mkdir()
    with pytest.raises(UserError, match="testA: no images"):
        epoch_names(root, "A", is_train=False)


def test_max_dataset_size(root: Path) -> None:
    assert sorted(epoch_names(root, "A", max_dataset_size=2)) == ["00.png", "01.png"]
    assert set(epoch_names(root, "B", max_dataset_size=2)) <= {"00.png", "01.png"}
    assert len(create_dataset(options(root, max_dataset_size=4))) == 4


@pytest.mark.parametrize("num_threads", [0, 2])
def test_unreadable_images_are_replaced_in_training(num_threads: int, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("trainA/01.png", "trainA/02.png", "trainB/02.png"):
        (root / name).write_bytes(b"damaged")
    loader = create_dataset(options(root, num_threads=num_threads, serial_batches=True))
    for epoch in (1, 2):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [names(batch["A_paths"]) for batch in batches] == [
            ["00.png"],
            ["03.png"],
            ["03.png"],
            ["03.png"],
            ["04.png"],
        ]
        assert [names(batch["B_paths"])[0] for batch in batches] == ["00.png", "01.png", "00.png", "00.png", "01.png"]
    assert len(loader.skipped) == 3
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 3  # once per image
    assert any("trainA/01.png': not an image of a known format" in line for line in said)
    assert said[-1].endswith("(3 skipped so far)")


def test_many_unreadable_images_with_one_reason_take_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = two_domains(tmp_path, n_A=13, n_B=1)
    for number in range(1, 13):
        (root / "trainA" / f"{number:02}.png").write_bytes(b"" if number == 12 else b"damaged")
    list(create_dataset(options(root, serial_batches=True)))
    said = capsys.readouterr().err.splitlines()
    damaged = "not an image of a known format, or damaged at its start"
    assert [line.rpartition("/")[2] for line in said] == [
        *(f"{number:02}.png': {damaged} ({number} skipped so far)" for number in range(1, 9)),
        f"skipped 10 images: {damaged} (10 skipped so far)",
        "12.png': an empty file (12 skipped so far)",
    ]


def test_unreadable_images_are_skipped_in_a_test(tmp_path: Path) -> None:
    root = two_domains(tmp_path, "test")
    (root / "testA" / "01.png").write_bytes(b"damaged")
    (root / "testB" / "00.png").write_bytes(b"damaged")
    shared = {"is_train": False, "load_size": 16}
    assert epoch_names(root, "A", **shared) == ["00.png", "02.png", "03.png", "04.png"]
    assert epoch_names(root, "B", **shared) == ["01.png", "02.png", "01.png", "01.png"]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_image_smaller_than_the_crop_is_named(num_threads: int, root: Path) -> None:
    """The size of a TIFF is known when its page is read."""
    Image.new("RGB", (12, 40)).save(root / "trainA" / "03.tif")
    loader = create_dataset(options(root, preprocess="crop", num_threads=num_threads))
    with pytest.raises(UserError) as caught:
        list(loader)
    said = str(caught.value)
    assert said.startswith(f"'{root}/trainA/03.tif': 12x40 pixels before the crop, smaller than --crop_size 16. Lower")
    assert "resize_and_crop" in said


def test_images_smaller_than_the_crop_are_found_before_the_training(root: Path) -> None:
    for name in ("trainA/03.png", "trainB/01.png"):
        Image.new("RGB", (12, 40)).save(root / name)
    named = r"trainA/03.png' \(and 1 more\): 12x40 pixels before the crop, smaller than --crop_size 16. Lower"
    with pytest.raises(UserError, match=named):
        create_dataset(options(root, preprocess="crop"))
    create_dataset(options(root, preprocess="scale_shortside_and_crop"))
    create_dataset(options(root, preprocess="trim"))


def test_halves_of_pairs_smaller_than_the_crop_are_found_before_the_training(root: Path) -> None:
    (root / "train").mkdir()
    Image.new("RGB", (24, 40)).save(root / "train" / "1.png")
    with pytest.raises(UserError, match=r"1.png': 12x40 pixels before the crop, smaller than --crop_size 16"):
        create_dataset(options(root, dataset_mode="aligned", preprocess="crop"))


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_folder_whose_images_are_removed(num_threads: int, root: Path) -> None:
    loader = create_dataset(options(root, num_threads=num_threads))
    for image in (root / "trainB").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="None of the 3 images of this folder can be read"):
        list(loader)


def test_batches_need_one_size(root: Path) -> None:
    ImageOps.pad(Image.open(root / "trainA" / "02.png"), (40, 40)).save(root / "trainA" / "02.png")
    loader = create_dataset(options(root, preprocess="none", batch_size=3, serial_batches=True))
    with pytest.raises(UserError, match=r"trainA/00.png' has 20x16 and .*/02.png' has 40x40 pixels.*--batch_size 1"):
        list(loader)
