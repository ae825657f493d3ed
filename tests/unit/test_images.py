"""Conversion of tensors to 8-bit images."""

import numpy as np
import pytest
import torch
from PIL import Image

from util.images import image_grid, save_image, tensor2im


def tensor_of(pixel_value: float) -> torch.Tensor:
    return torch.full((3, 2, 2), pixel_value / 255 * 2 - 1, dtype=torch.float64)


@pytest.mark.parametrize(("pixel_value", "written"), [(127.9, 127), (0.99, 0), (254.9, 254), (-30.0, 0), (300.0, 255)])
def test_pixels_are_truncated_and_clipped(pixel_value: float, written: int) -> None:
    assert np.unique(tensor2im(tensor_of(pixel_value))).tolist() == [written]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_point_type_matches_the_published_arithmetic(dtype: torch.dtype) -> None:
    image = torch.empty(3, 40, 50).uniform_(-1, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    published = (np.transpose(image.float().numpy(), (1, 2, 0)) + 1) / 2 * 255
    np.testing.assert_array_equal(tensor2im(image), published.astype(np.uint8))


def test_the_first_image_of_a_batch_is_converted_with_or_without_gradient() -> None:
    batch = torch.stack([tensor_of(10.5), tensor_of(200.5)]).requires_grad_()
    assert np.unique(tensor2im(batch)).tolist() == [10]


def test_one_channel_becomes_two_dimensions() -> None:
    image = torch.full((1, 2, 3), -1.0)
    image[0, 1, 0] = 1
    assert tensor2im(image).tolist() == [[0, 0, 0], [255, 0, 0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_image_is_lossless(tmp_path, channels: int) -> None:
    image = torch.empty(channels, 5, 7).uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    save_image(image, tmp_path / "new" / "folder" / "cat.png")
    with Image.open(tmp_path / "new" / "folder" / "cat.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), tensor2im(image))


def test_a_grid_contains_color_and_gray_images_of_any_size_on_white() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    gray = np.full((2, 3), 7, np.uint8)
    grid = image_grid({"a": red, "b": gray, "c": gray}, columns=2)
    assert grid.shape == (10, 10, 3)
    assert (grid[:4, :4] == [200, 0, 0]).all()
    assert (grid[:2, 6:9] == 7).all() and (grid[6:8, :3] == 7).all()
    assert (grid[4:6] == 255).all() and (grid[6:, 6:] == 255).all()
