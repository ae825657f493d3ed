"""Tensors in [-1, 1] as 8-bit pictures, for pages, live views and results."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

WHITE = 255
GAP = 2  # pixels between the pictures of a grid


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """The 8-bit picture of a tensor, as published.

    Values are truncated, not rounded (127.9 becomes 127): every published FID was taken on such pictures.

    Args:
        image: (C, H, W), or (N, C, H, W) of which the first picture is taken; values in [-1, 1], of any floating type
            and on any device. What lies outside is clipped to the range.
    Returns:
        uint8 array (H, W, C), or (H, W) when C is 1.
    """
    first = image[0] if image.ndim == 4 else image
    scaled = (first.float() + 1) / 2 * 255
    pixels = scaled.clamp(0, 255).to(torch.uint8).cpu().permute(1, 2, 0).numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def in_colour(picture: np.ndarray) -> np.ndarray:
    """The picture (H, W[, 3]) with three channels: (H, W, 3)."""
    return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)


def save_picture(picture: torch.Tensor | np.ndarray, path: Path) -> None:
    """Writes a tensor in [-1, 1] (see `to_uint8`) or a uint8 array (H, W[, 3]) to `path`, making its folder."""
    pixels = to_uint8(picture) if isinstance(picture, torch.Tensor) else picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)  # of photographs files get no larger, in a third of the time


def picture_grid(pictures: Mapping[str, np.ndarray], columns: int) -> np.ndarray:
    """Pictures side by side on white, in reading order.

    Args:
        pictures: uint8 arrays (H, W) or (H, W, 3), of any sizes.
        columns: pictures in a row.
    Returns:
        uint8 array (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), from the greatest height and width.
    """
    cell_height = max(picture.shape[0] for picture in pictures.values()) + GAP
    cell_width = max(picture.shape[1] for picture in pictures.values()) + GAP
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    grid = np.full((rows * cell_height - GAP, columns * cell_width - GAP, 3), WHITE, dtype=np.uint8)
    for place, picture in enumerate(pictures.values()):
        top, left = place // columns * cell_height, place % columns * cell_width
        height, width = picture.shape[:2]
        grid[top : top + height, left : left + width] = picture if picture.ndim == 3 else picture[:, :, None]
    return grid
