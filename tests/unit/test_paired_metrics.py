"""PSNR and SSIM, compared with direct implementations."""

import numpy as np
import pytest

from util.errors import UserError
from util.metrics.base import EvalImages
from util.metrics.paired import PairedMetrics, psnr, ssim


def noise(seed: int, shape: tuple[int, ...] = (32, 40, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def near(image: np.ndarray, seed: int, most: int) -> np.ndarray:
    """Return the image with every value changed by at most `most`."""
    step = np.random.default_rng(seed).integers(-most, most + 1, image.shape)
    return np.clip(image.astype(int) + step, 0, 255).astype(np.uint8)


def direct_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


def direct_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Compute equation 13 of Wang et al. 2004 at every position where an 11x11 window fits."""
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(a.shape[2]):
        x = np.lib.stride_tricks.sliding_window_view(a[:, :, channel].astype(np.float64), (11, 11))
        y = np.lib.stride_tricks.sliding_window_view(b[:, :, channel].astype(np.float64), (11, 11))
        mean_x, mean_y = (x * weights).sum((2, 3)), (y * weights).sum((2, 3))
        from_mean_x, from_mean_y = x - mean_x[:, :, None, None], y - mean_y[:, :, None, None]
        var_x, var_y = (weights * from_mean_x**2).sum((2, 3)), (weights * from_mean_y**2).sum((2, 3))
        covariance = (weights * from_mean_x * from_mean_y).sum((2, 3))
        numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        values.append(numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("most", [1, 20, 255])
def test_psnr_matches_its_formula(most: int) -> None:
    target = noise(0)
    assert psnr(near(target, 1, most), target) == pytest.approx(direct_psnr(near(target, 1, most), target), rel=1e-6)


@pytest.mark.parametrize("most", [1, 20, 255])
def test_ssim_matches_the_paper(most: int) -> None:
    target = noise(0)
    assert ssim(near(target, 1, most), target) == pytest.approx(direct_ssim(near(target, 1, most), target), abs=1e-9)


def test_flat_images_leave_only_the_luminance_term() -> None:
    dark, light = np.full((16, 16, 3), 50, np.uint8), np.full((16, 16, 3), 200, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(dark, light) == pytest.approx((2 * 50 * 200 + c1) / (50**2 + 200**2 + c1))
    assert psnr(dark, light) == pytest.approx(20 * np.log10(255 / 150))


def test_equal_images_score_highest() -> None:
    assert psnr(noise(0), noise(0)) == np.inf
    assert ssim(noise(0), noise(0)) == pytest.approx(1)


def test_a_gray_image_counts_as_one_channel() -> None:
    a, b = noise(0, (20, 20)), noise(1, (20, 20))
    assert ssim(a, b) == pytest.approx(direct_ssim(a[:, :, None], b[:, :, None]), abs=1e-9)
    assert psnr(a, b) == pytest.approx(direct_psnr(a, b), rel=1e-6)


def test_the_metric_is_the_mean_over_images() -> None:
    target = [noise(0), noise(1, (24, 24, 3))]
    results = [near(target[0], 2, 5), near(target[1], 3, 50)]
    psnr_result, ssim_result = PairedMetrics().measure(EvalImages(results, target=target))
    pairs = list(zip(results, target, strict=True))
    assert (psnr_result.metric, ssim_result.metric) == ("PSNR", "SSIM")
    assert psnr_result.value == pytest.approx(np.mean([direct_psnr(*pair) for pair in pairs]))
    assert ssim_result.value == pytest.approx(np.mean([direct_ssim(*pair) for pair in pairs]))


@pytest.mark.parametrize(
    ("result", "target"),
    [(noise(0), noise(0, (32, 32, 3))), (noise(0), noise(0).astype(np.float32)), (noise(0, (8, 8, 3)),) * 2],
)
def test_images_of_different_shape_or_type_are_an_error(result: np.ndarray, target: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shape"):
        ssim(result, target)


def test_no_pairs_are_an_error() -> None:
    with pytest.raises(UserError, match="no image pairs"):
        list(PairedMetrics().measure(EvalImages([], target=[])))
