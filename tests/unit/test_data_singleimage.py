"""Crops of one image per domain: zooms and offsets, as described in the paper and as in the published code."""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
from image_factory import fill, noise, options, pixels, ramp
from PIL import Image

from data import DATASETS, create_dataset
from data.loader import Batch
from util.errors import UserError

CROP, BATCH = 16, 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        ramp(256, 256).save(tmp_path / f"train{domain}" / "only.png")
    return tmp_path


def loader(root: Path, **changes: object):
    settings = {"batch_size": BATCH, "crop_size": CROP, "preprocess": "zoom_and_patch", "no_flip": True, **changes}
    return create_dataset(options(root, dataset_mode="singleimage", **settings))


def zooms_and_offsets(batch: Batch, domain: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the zoom of each crop of the ramp, and its upper left pixel in the zoomed image; both (N, 2), x before y."""
    crops = pixels(batch, domain)[:, :2].astype(float)
    first = np.stack([crops[:, 0, 8, 1], crops[:, 1, 1, 8]], 1)
    last = np.stack([crops[:, 0, 8, -2], crops[:, 1, -2, 8]], 1)
    zooms = (CROP - 3) / (last - first)  # the ramp rises by 1 per pixel of the image
    return zooms, first * zooms


def test_each_minibatch_has_its_own_zoom(root: Path) -> None:
    batches = list(loader(root, max_dataset_size=10 * BATCH))
    assert len(batches) == 10
    zooms = np.array([[zooms_and_offsets(batch, d)[0] for d in "AB"] for batch in batches])  # batch, domain, crop, axis
    assert zooms.min() > 0.3
    assert zooms.max() < 1.1
    assert (np.ptp(zooms, axis=2) / zooms.mean(2)).max() < 0.2  # within a batch: rounding to 8 bits only
    means = zooms.mean(2)
    assert (means.std(0) > 0.1).all()
    assert (abs(means[:, 0] - means[:, 1]) > 0.05).any()  # each domain has its own zoom


def test_crops_of_a_minibatch_do_not_overlap(root: Path) -> None:
    for batch in loader(root, max_dataset_size=10 * BATCH):
        for domain in "AB":
            zooms, offsets = zooms_and_offsets(batch, domain)
            offsets = offsets / zooms * zooms.mean(0)
            distance = abs(offsets[:, None] - offsets[None]).max(2)
            assert distance[~np.eye(BATCH, dtype=bool)].min() > CROP - 3


def test_each_epoch_has_its_own_zooms(root: Path) -> None:
    batches = loader(root, max_dataset_size=BATCH)
    zooms = []
    for epoch in (1, 2, 3):
        batches.set_epoch(epoch)
        zooms.append(zooms_and_offsets(next(iter(batches)), "A")[0].mean(0))
    assert np.std(zooms, axis=0).min() > 0.02


def test_published_sampling(root: Path) -> None:
    batches = list(loader(root, max_dataset_size=10 * BATCH, singleimage_published_sampling=True))
    zooms = np.array([zooms_and_offsets(batch, "A")[0] for batch in batches])
    assert (np.ptp(zooms, axis=1) / zooms.mean(1)).min() > 0.4


def test_another_grid_is_sampled_if_the_first_has_too_few_cells(tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        ramp(CROP + 9, CROP + 9).save(tmp_path / f"train{domain}" / "only.png")
    batch = next(iter(loader(tmp_path, random_scale_max=1.0)))
    assert batch["A"].shape == (BATCH, 3, CROP, CROP)
    assert len({crop.tobytes() for crop in pixels(batch)}) > BATCH // 2


def test_an_image_smaller_than_the_crop_is_enlarged(tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        ramp(CROP - 4, 30).save(tmp_path / f"train{domain}" / "only.png")
    assert next(iter(loader(tmp_path)))["A"].shape == (BATCH, 3, CROP, CROP)


def test_an_epoch_has_100_000_crops(root: Path) -> None:
    assert len(loader(root)) == 100_000
    assert len(loader(root, max_dataset_size=64)) == 64
    with pytest.raises(UserError, match=r"--batch_size 16: larger .* has 10 samples"):
        loader(root, max_dataset_size=10)


def test_same_crops_for_any_number_of_workers(root: Path) -> None:
    loaders = [loader(root, max_dataset_size=5 * BATCH, num_threads=threads, no_flip=False) for threads in (0, 2)]
    for epoch in (1, 2):
        for each in loaders:
            each.set_epoch(epoch)
        batches = [list(each) for each in loaders]
        for alone, by_worker in zip(*batches, strict=True):
            assert alone["A"].equal(by_worker["A"])
            assert alone["B"].equal(by_worker["B"])
        assert len({batch["A"].numpy().tobytes() for batch in batches[0]}) == 5


def test_flips_of_the_crops_are_independent(root: Path) -> None:
    batch = next(iter(loader(root, batch_size=100, max_dataset_size=100, no_flip=False)))
    flips = {d: pixels(batch, d)[:, 0, 8, 0] > pixels(batch, d)[:, 0, 8, -1] for d in "AB"}
    assert 30 < flips["A"].sum() < 70
    assert 30 < (flips["A"] ^ flips["B"]).sum() < 70


def test_a_test_reads_both_images_uncropped(root: Path) -> None:
    ramp(254, 70).save(root / "trainA" / "only.png")
    opt = options(root, is_train=False, dataset_mode="singleimage", preprocess="none", input_nc=1)
    batches = list(create_dataset(opt))
    assert len(batches) == 1
    assert batches[0]["B"].shape == (1, 3, 256, 256)
    rounded = ramp(254, 70).convert("L").resize((256, 72), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels(batches[0])[0, 0], np.asarray(rounded))


def test_a_test_with_a_crop_larger_than_the_image_is_an_error(root: Path) -> None:
    opt = options(root, is_train=False, dataset_mode="singleimage", preprocess="crop", crop_size=999)
    with pytest.raises(
        UserError, match=r"trainA/\S+: 256x256 pixels .* smaller than --crop_size 999\. Use --preprocess none"
    ):
        list(create_dataset(opt))


def test_gray_crops(root: Path) -> None:
    noise(90, 90).save(root / "trainB" / "only.png")
    batch = next(iter(loader(root, output_nc=1)))
    assert batch["A"].shape[1] == 3
    assert batch["B"].shape[1] == 1
    noise(90, 90).convert("L").save(root / "trainB" / "only.png")
    assert next(iter(loader(root, output_nc=1)))["B"].equal(batch["B"])  # gray before zooming


def test_wrong_options_and_folders_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="Use --preprocess zoom_and_patch"):
        loader(root, preprocess="resize_and_crop")
    fill(root / "trainB", 2)
    with pytest.raises(UserError, match=r"trainB: 3 images, but .* needs exactly one"):
        loader(root)
    for image in (root / "trainB").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="trainB: no images"):
        loader(root)
    (root / "trainB" / "only.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"only\.png': not an image"):
        loader(root)


@pytest.mark.parametrize(("is_train", "preprocess"), [(True, "zoom_and_patch"), (False, "none")])
def test_defaults_of_the_dataset(is_train: bool, preprocess: str) -> None:
    parser = ArgumentParser()
    parser.add_argument("--preprocess", default="resize_and_crop")
    parser = DATASETS["singleimage"].modify_commandline_options(parser, is_train)
    assert parser.parse_args([]).preprocess == preprocess
