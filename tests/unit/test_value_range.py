"""Sample values map to [-1, 1] and back: exactly for integers, within an ulp for floats; planes are resized as images."""

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from data.plane_resize import resize_plane_stack
from data.transforms import to_tensor
from data.value_range import Percentiles, ValueRange, found_range, parse_value_range


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_come_back_exactly(dtype: type) -> None:
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    full = ValueRange.of_dtype(dtype)
    normalized = full.normalize(values)
    assert (normalized.dtype, normalized.min(), normalized.max()) == (np.float32, -1, 1)
    np.testing.assert_array_equal(full.denormalize(normalized, dtype), values)


def test_the_default_is_the_published_order_of_operations() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(ValueRange(0, 255).normalize(pixels), to_tensor(pixels).numpy())


@pytest.mark.parametrize(("lo", "hi", "dtype"), [(0, 4095, np.uint16), (-1024, 3071, np.int16), (-32768, 32767, np.int16)])
def test_integers_of_other_ranges_come_back_exactly(lo: int, hi: int, dtype: type) -> None:
    values = np.arange(lo, hi + 1).astype(dtype)
    chosen = ValueRange(lo, hi)
    np.testing.assert_array_equal(chosen.denormalize(chosen.normalize(values), dtype), values)


@pytest.mark.parametrize(("lo", "hi"), [(-1024, 3071), (0, 1), (-1e-6, 3e-6), (1e6, 1e6 + 1), (-3.4e38, 0.0), (0.1, 0.3)])
def test_floats_come_back_within_an_ulp_of_the_range(lo: float, hi: float) -> None:
    values = np.random.default_rng(0).uniform(lo, hi, 100_000).astype(np.float32)
    values = values[(values >= lo) & (values <= hi)]
    chosen = ValueRange(lo, hi)
    back = chosen.denormalize(chosen.normalize(values), np.float32)
    assert abs(back.astype(np.float64) - values).max() <= np.spacing(np.float32(hi - lo))


def test_values_outside_are_clipped_and_counted() -> None:
    values, chosen = np.array([-2000, -1024, 0, 3071, 5000], np.int16), ValueRange(-1024, 3071)
    assert chosen.clipped_share(values) == 2 / 5
    back = chosen.denormalize(chosen.normalize(values), np.int16)
    assert back.tolist() == [-1024, -1024, 0, 3071, 3071]
    assert chosen.denormalize(np.array([-3, 3], np.float32), np.int16).tolist() == [-1024, 3071]
    assert ValueRange(-10, 300).denormalize(np.array([-1, 1], np.float32), np.uint8).tolist() == [0, 255]


@pytest.mark.parametrize(
    "text", ["0,4095", "-1024,3071", "0.1,0.3", "-1e-06,1e+20", "percentile:1,99", "percentile:0.5,99.9"]
)
def test_text_and_range_are_equal(text: str) -> None:
    assert str(parse_value_range(text)) == text
    assert parse_value_range(str(parse_value_range(text))) == parse_value_range(text)


@pytest.mark.parametrize(
    "text", ["", "1", "1,2,3", "a,b", "2,1", "1,1", "nan,1", "0,inf", "-1e308,1e308,", "percentile:99,1", "percentile:0,101"]
)
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_value_range(text)


def test_proposed_and_percentile_ranges() -> None:
    images = [np.linspace(start, start + 100, 10_000).reshape(100, 50, 2) for start in (0, 100, 200)]
    assert found_range(images) == ValueRange(0, 300)
    assert found_range([np.zeros((2, 2, 1))]) == ValueRange(0, 1)
    chosen = Percentiles(1, 99)
    assert chosen.compute(iter(images), 3) == chosen.compute(iter(images), 3)
    assert chosen.compute(images, 3).lo == pytest.approx(3, abs=0.1)
    assert chosen.compute(images, 1000).hi == pytest.approx(297, abs=1)  # few samples of each
    with pytest.raises(ValueError, match="both are 0"):
        chosen.compute([np.zeros((4, 4, 1))], 1)
    with pytest.raises(ValueError, match="no images"):
        chosen.compute([], 0)


SIZES = [(48, 40), (23, 90), (64, 50), (7, 5)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resample", [Resampling.BICUBIC, Resampling.BILINEAR, Resampling.LANCZOS])
def test_planes_are_resized_as_8_bit_images(size: tuple[int, int], resample: Resampling) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 64), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).resize(size, resample)).transpose(2, 0, 1)
    np.testing.assert_array_equal(resize_plane_stack(pixels, *size, resample), expected)
    levels = resize_plane_stack(pixels.astype(np.uint16) * 257, *size, resample) / 257
    assert abs(levels - expected).mean() < 0.5
    assert abs(levels - expected).max() < 1.5  # both roundings of the 8-bit filter


@pytest.mark.parametrize("size", SIZES)
def test_planes_differ_from_8_bit_images_by_their_rounding_alone(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).integers(0, 256, (50, 64), dtype=np.uint8)
    columns = Image.fromarray(plane).resize((size[0], 50), Resampling.BICUBIC)  # rounded once, as the 8-bit filter does
    expected = np.asarray(columns.resize(size, Resampling.BICUBIC)).astype(float)
    deep = resize_plane_stack(np.asarray(columns).astype(np.uint16)[None] * 257, *size, Resampling.BICUBIC)[0] / 257
    assert abs(deep - expected).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int32, np.int64, np.float16, np.float32, np.float64])
def test_dtype_is_kept_and_extremes_do_not_wrap(dtype: type) -> None:
    plane = np.zeros((1, 8, 8), dtype)
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    high = limits.max if np.dtype(dtype).kind != "f" else 1000
    plane[0, :, 4:] = high
    resized = resize_plane_stack(plane, 16, 16, Resampling.BICUBIC)
    assert resized.dtype == dtype
    assert (resized[0, :, :5].astype(float) <= high / 2).all()
    assert (resized[0, :, 11:].astype(float) >= high / 2).all()


def test_an_equal_size_changes_nothing() -> None:
    plane = np.random.default_rng(0).normal(size=(2, 8, 9)).astype(np.float32)
    np.testing.assert_array_equal(resize_plane_stack(plane, 9, 8, Resampling.BICUBIC), plane)
