"""Metrics of images of any band count and dtype: all channels in the data's range, or the three that are shown."""

from pathlib import Path

import numpy as np
import pytest
import torch
from array_files import noise
from image_factory import options, two_domains

from data.eval_data import EvalDataset, describe_channels
from data.image_files import ExactFormat, ImageFiles
from data.value_range import ValueRange
from util.channel_view import ChannelView, parse_channels
from util.images import to_rgb
from util.metrics.paired import psnr, ssim


def test_psnr_and_ssim_use_all_bands_and_the_range_of_the_data(tmp_path: Path) -> None:
    first, second = (noise(24, 20, 5, np.uint16, seed=seed) // 16 for seed in (1, 2))
    for name, pixels in {"a": first, "b": second}.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", pixels)
    exact = ExactFormat(5, (2, 1, 0, 3, 4), ValueRange(0, 4095))
    one, other = (next(iter(ImageFiles.from_dir(tmp_path / name).with_format(None, False, exact=exact))) for name in "ab")
    error = np.mean((first.astype(np.float64) - second) ** 2)
    assert psnr(one, other) == pytest.approx(10 * np.log10(4095**2 / error), abs=1e-3)
    assert ssim(one, one) == pytest.approx(1)
    np.testing.assert_array_equal(to_rgb(one), (first[:, :, 2::-1] * (255 / 4095)).round().astype(np.uint8))
    assert describe_channels(exact) == {"all": "all 5", "shown": "3,2,1 of 5", "value_range": "0,4095"}


def test_metrics_of_8_bit_images_read_8_bit_pixels(tmp_path: Path) -> None:
    two_domains(tmp_path, phase="test", n_A=2, n_B=2)
    dataset = EvalDataset(options(tmp_path, evaluation_phase="test", evaluation_pictures=2))
    assert dataset.exact is None and dataset.channels == {}
    assert all(image.dtype == np.uint8 for image in dataset.real_images(None))


def test_evaluation_in_training_reads_all_bands(tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"test{domain}").mkdir()
        np.save(tmp_path / f"test{domain}" / "x.npy", noise(16, 16, 5, np.uint16, seed=ord(domain)))
    opt = options(
        tmp_path,
        input_nc=5,
        output_nc=5,
        show_channels="4",
        preprocess="none",
        evaluation_phase="test",
        evaluation_pictures=9,
    )
    dataset = EvalDataset(opt)
    ((image, name),) = dataset.inputs()
    (target,) = dataset.targets([name], None)
    assert target.shape == (16, 16, 5) and dataset.channels["value_range"] == "full range of the dtype"
    expected = noise(16, 16, 5, np.uint16, seed=ord("A"))[:, :, [3, 0, 1, 2, 4]] / 257
    np.testing.assert_allclose(dataset.to_pixels(image), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "count", "shown"), [(None, 5, [0, 1, 2]), (None, 2, [0]), ("3,2,1", 5, [2, 1, 0]), ("6", 5, [0, 1, 2])]
)
def test_shown_channels(text: str | None, count: int, shown: list[int]) -> None:
    images = torch.rand(2, count, 4, 4) * 2 - 1
    view = ChannelView(parse_channels(text))
    assert torch.equal(view.tensor(images), images[:, shown])
    stretched = ChannelView(parse_channels(text), stretch=True).tensor(images / 1000)
    assert stretched.shape == (2, len(shown), 4, 4) and stretched.min() == -1 and stretched.max() == 1
