"""The operations of --preprocess, the flip and the scaling of values."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_factory import noise, options, ramp
from PIL import Image, ImageOps
from PIL.Image import Resampling

from data.image_io import ImageError
from data.transforms import ImageTooSmallError, Transform, create_transform, parse_preprocess
from util.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "transforms" / "deterministic.json"


def transform(*ops: str, load_size: int = 64, crop_size: int = 32, flip: bool = False) -> Transform:
    return Transform(ops, load_size, crop_size, flip)


def apply(image: Image.Image, *ops: str, seed: int = 0, **settings: int) -> np.ndarray:
    """Return the (H, W, C) uint8 pixels of the transformed `image`."""
    tensor = transform(*ops, **settings)(image, np.random.default_rng(seed))
    return np.round((tensor.numpy().transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def test_golden_images(tmp_path: Path) -> None:
    cases = json.loads(GOLDEN.read_text())["cases"]
    with np.load(GOLDEN.with_suffix(".npz")) as arrays:
        for index, case in enumerate(cases):
            flags = dict(zip(case["options"][1::2], case["options"][2::2], strict=True))  # after --no_flip
            opt = options(
                tmp_path,
                no_flip=True,
                preprocess=flags["--preprocess"],
                load_size=int(flags.get("--load_size", 286)),
                crop_size=int(flags.get("--crop_size", 256)),
            )
            apply_case = create_transform(opt, Resampling[case["resample"]], channels=1 if case["grayscale"] else 3)
            tensor = apply_case(Image.fromarray(arrays[f"image/{index}"]), np.random.default_rng(0))
            result = np.round((tensor.double().numpy() + 1) * 127.5)
            np.testing.assert_array_equal(result, arrays[f"output/{index}"], err_msg=f"case {index}: {case}")


@pytest.mark.parametrize(
    ("value", "ops"),
    [
        ("resize_and_crop", ("resize", "crop")),
        ("crop_and_resize", ("resize", "crop")),
        ("none", ()),
        ("scale_shortside_and_zoom_and_crop", ("scale_shortside", "zoom", "crop")),
        ("scale_width", ("scale_width",)),
        ("zoom_and_patch", ("zoom", "patch")),
        ("fixsize,trim", ("fixsize", "trim")),
        ("scale_width_and_resize", ("resize",)),
    ],
)
def test_preprocess_is_parsed(value: str, ops: tuple[str, ...]) -> None:
    assert parse_preprocess(value) == ops


@pytest.mark.parametrize("value", ["resize_and_krop", "scale_height", "resizes", "bogus"])
def test_unknown_operations_are_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"unknown operation .*Use none.*scale_shortside.*trim"):
        parse_preprocess(value)


@pytest.mark.parametrize(
    ("op", "size", "result"),
    [
        ("fixsize", (200, 100), (128, 64)),
        ("fixsize", (20, 40), (64, 128)),
        ("scale_shortside", (20, 40), (64, 128)),
        ("scale_shortside", (200, 100), (200, 100)),
        ("scale_width", (128, 80), (64, 40)),
        ("scale_width", (128, 20), (64, 32)),  # not lower than the crop
        ("scale_width", (64, 44), (64, 44)),
        ("resize", (10, 90), (64, 64)),
        ("trim", (100, 20), (32, 20)),
    ],
)
def test_size_after_operation(op: str, size: tuple[int, int], result: tuple[int, int]) -> None:
    assert apply(noise(*size), op).shape[1::-1] == result


def test_sides_are_rounded_to_multiples_of_four() -> None:
    # Python rounds halves to the even number: 66 = 16.5 * 4 becomes 64, 70 = 17.5 * 4 becomes 72.
    assert apply(noise(66, 70)).shape == (72, 64, 3)
    assert apply(noise(1, 5)).shape == (4, 4, 3)


def test_resize_is_pillows() -> None:
    expected = np.asarray(noise(50, 70).resize((64, 64), Resampling.BICUBIC))
    np.testing.assert_array_equal(apply(noise(50, 70), "resize"), expected)


def test_crop_reaches_every_place_and_no_other() -> None:
    image = ramp(36, 34)
    found = {tuple(apply(image, "crop", seed=seed)[0, 0, :2]) for seed in range(300)}
    pixels = np.asarray(image)
    assert found == {tuple(pixels[top, left, :2]) for left in range(5) for top in range(3)}


@pytest.mark.parametrize("op", ["crop", "patch"])
def test_too_small_for_a_central_crop(op: str) -> None:
    with pytest.raises(ImageTooSmallError, match="40x30"):
        replace(transform(op), is_train=False)(noise(40, 30), np.random.default_rng(0))


@pytest.mark.parametrize("step", ["crop", "patch"])
def test_too_small_for_a_crop(step: str) -> None:
    with pytest.raises(ImageTooSmallError, match="40x30"):
        apply(noise(40, 30), step)


def test_zoom_stays_within_its_range() -> None:
    sizes = np.array([apply(noise(150, 60), "zoom", seed=seed, crop_size=24).shape for seed in range(60)])
    assert 48 <= sizes[:, 1].min() < 65
    assert 135 < sizes[:, 1].max() <= 152
    assert sizes[:, 0].min() == 24  # 60 / 3 would be below the crop
    assert np.corrcoef(sizes[:, 0], sizes[:, 1])[0, 1] < 0.5  # a factor for each axis


def test_patch_is_a_cell_of_a_shifted_grid() -> None:
    image = ramp(100, 70)  # room for 3x2 cells, shifted by up to 4 and 6
    patches = [apply(image, "patch", seed=seed) for seed in range(200)]
    columns = {round(patch[0, 0, 0] / 255 * 99) for patch in patches}
    rows = {round(patch[0, 0, 1] / 255 * 69) for patch in patches}
    assert columns == {cell * 32 + offset for cell in range(3) for offset in range(5)}
    assert rows == {cell * 32 + offset for cell in range(2) for offset in range(7)}


TESTED = ("crop", "patch", "trim", "zoom", "zoom_and_patch", "scale_width_and_crop", "resize_and_crop", "fixsize_and_trim")


@pytest.mark.parametrize("preprocess", TESTED)
def test_nothing_is_random_at_test_time(tmp_path: Path, preprocess: str) -> None:
    opt = options(tmp_path, is_train=False, no_flip=False, preprocess=preprocess, load_size=48, crop_size=32)
    tested = create_transform(opt, Resampling.BICUBIC, channels=3)
    first = tested(noise(60, 50), np.random.default_rng(0))
    for seed in range(1, 6):
        assert tested(noise(60, 50), np.random.default_rng(seed)).equal(first)


@pytest.mark.parametrize(
    ("op", "size", "box"),
    [
        ("crop", (60, 48), (14, 8, 46, 40)),
        ("patch", (60, 48), (14, 8, 46, 40)),
        ("trim", (60, 20), (14, 0, 46, 20)),
        ("zoom", (60, 48), (0, 0, 60, 48)),
    ],
)
def test_a_test_cuts_the_center(op: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    tested = replace(transform(op), is_train=False)
    result = tested(noise(*size), np.random.default_rng(0))
    expected = np.asarray(noise(*size).crop(box)).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.round((result.numpy() + 1) * 127.5), expected)


@pytest.mark.parametrize("size", [64, 30])
def test_resize_and_crop_is_tested_as_published(size: int) -> None:
    tested = replace(transform("resize", "crop", load_size=size, crop_size=size), is_train=False)
    published = transform("resize", load_size=size)
    rng = np.random.default_rng(0)
    assert tested(noise(70, 50), rng).equal(published(noise(70, 50), rng))


def test_flip_mirrors_about_half() -> None:
    image = noise(64, 64)
    mirrored = np.asarray(ImageOps.mirror(image))
    flips = [np.array_equal(apply(image, seed=seed, flip=True), mirrored) for seed in range(200)]
    assert 70 < sum(flips) < 130


def test_values_span_minus_one_to_one() -> None:
    image = Image.fromarray(np.array([[0, 255, 51, 128]] * 4, dtype=np.uint8)).convert("RGB")
    row = transform()(image, np.random.default_rng(0))[0, 0]
    assert row.tolist() == pytest.approx([-1, 1, -0.6, 128 / 127.5 - 1], abs=1e-6)


def test_a_line_is_not_enlarged_beyond_memory() -> None:
    with pytest.raises(ImageError, match="1x100000 pixels would be enlarged to 64x6400000"):
        apply(Image.new("RGB", (1, 100_000)), "scale_shortside")
