"""Datasets of a single domain, and of paired images side by side."""

from pathlib import Path

import numpy as np
import pytest
from image_factory import fill, noise, options, pixels, ramp, two_domains
from PIL import Image

from data import create_dataset
from util.errors import UserError


def paths(dataroot: Path, **changes: object) -> list[str]:
    opt = options(dataroot, is_train=False, dataset_mode="single", **{"preprocess": "none", **changes})
    return [path for batch in create_dataset(opt) for name in batch if name.endswith("_paths") for path in batch[name]]


def test_a_folder_of_images(tmp_path: Path) -> None:
    images = [str(path) for path in fill(tmp_path, 3)]
    assert paths(tmp_path) == images
    assert paths(tmp_path, batch_size=2) == images
    assert paths(tmp_path, max_dataset_size=2) == images[:2]


def test_one_image(tmp_path: Path) -> None:
    images = fill(tmp_path, 3)
    assert paths(images[1]) == [str(images[1])]


def test_the_source_domain_of_a_dataset_is_read(tmp_path: Path) -> None:
    two_domains(tmp_path, "test")
    assert all("/testA/" in path for path in paths(tmp_path))
    assert all("/testB/" in path for path in paths(tmp_path, direction="BtoA"))
    with pytest.raises(UserError, match=r"trainA: not a folder; .* has the folders testA, testB"):
        paths(tmp_path, phase="train")


def test_single_has_the_source_domain_only_with_the_input_channels(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    for direction, source in (("AtoB", "A"), ("BtoA", "B")):
        opt = options(tmp_path, is_train=False, dataset_mode="single", input_nc=1, direction=direction)
        batch = next(iter(create_dataset(opt)))
        assert set(batch) == {source, f"{source}_paths"}
        assert batch[source].shape[1] == 1


def test_unreadable_images_are_skipped(tmp_path: Path) -> None:
    images = fill(tmp_path, 3)
    images[1].write_bytes(b"damaged")
    assert paths(tmp_path) == [str(images[0]), str(images[2])]


def test_training_on_a_single_domain_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with pytest.raises(UserError, match="for testing"):
        create_dataset(options(tmp_path, dataset_mode="single"))


def aligned(root: Path, left: Image.Image, right: Image.Image) -> Path:
    pair = Image.new("RGB", (left.width + right.width, left.height))
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width, 0))
    (root / "train").mkdir(exist_ok=True)
    pair.save(root / "train" / f"{len(list((root / 'train').iterdir()))}.png")
    return root


def test_halves_of_a_pair(tmp_path: Path) -> None:
    aligned(tmp_path, noise(24, 24, 1), noise(24, 24, 2))
    opt = options(tmp_path, dataset_mode="aligned", preprocess="none", no_flip=True, output_nc=1)
    batch = next(iter(create_dataset(opt)))
    np.testing.assert_array_equal(pixels(batch, "A")[0], np.asarray(noise(24, 24, 1)).transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels(batch, "B")[0, 0], np.asarray(noise(24, 24, 2).convert("L")))
    assert batch["A_paths"] == batch["B_paths"]


def test_halves_share_crop_and_flip(tmp_path: Path) -> None:
    aligned(tmp_path, ramp(40, 40), ramp(40, 40))
    loader = create_dataset(options(tmp_path, dataset_mode="aligned", preprocess="zoom_and_crop", random_scale_max=1.5))
    crops = set()
    for epoch in range(1, 30):
        loader.set_epoch(epoch)
        batch = next(iter(loader))
        assert batch["A"].equal(batch["B"])
        crops.add(batch["A"].numpy().tobytes())
    assert len(crops) > 20


def test_an_image_one_pixel_wide_is_skipped(tmp_path: Path) -> None:
    aligned(tmp_path, noise(24, 24), noise(24, 24))
    Image.new("RGB", (1, 24)).save(tmp_path / "train" / "line.png")
    loader = create_dataset(options(tmp_path, dataset_mode="aligned"))
    list(loader)
    assert list(loader.skipped.values()) == ["one pixel wide, cannot be split into a pair"]
