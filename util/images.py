"""Tensors in [-1, 1] as 8-bit images, for pages, live views and results."""

import math
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from PIL import Image

WHITE = 255
GAP = 2  # pixels between the images of a grid


def tensor2im(image: torch.Tensor) -> np.ndarray:
    """The 8-bit image of a tensor, as published.

    Values are truncated, not rounded (127.9 becomes 127): every published FID was taken on such images.

    Args:
        image: (C, H, W), or (N, C, H, W) of which the first image is taken; values in [-1, 1], of any floating type
            and on any device. What lies outside is clipped to the range.
    Returns:
        uint8 array (H, W, C), or (H, W) when C is 1.
    """
    first = image[0] if image.ndim == 4 else image
    scaled = (first.float() + 1) / 2 * 255
    pixels = scaled.clamp(0, 255).to(torch.uint8).cpu().permute(1, 2, 0).numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def to_rgb(image: np.ndarray) -> np.ndarray:
    """The image (H, W[, 3]) with three channels: (H, W, 3)."""
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def save_image(image: torch.Tensor | np.ndarray, path: Path) -> None:
    """Writes a tensor in [-1, 1] (see `tensor2im`) or a uint8 array (H, W[, 3]) to `path`, making its folder."""
    pixels = tensor2im(image) if isinstance(image, torch.Tensor) else image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)  # of photographs files get no larger, in a third of the time


def image_grid(images: Mapping[str, np.ndarray], columns: int) -> np.ndarray:
    """Images side by side on white, in reading order.

    Args:
        images: uint8 arrays (H, W) or (H, W, 3), of any sizes.
        columns: images in a row.
    Returns:
        uint8 array (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), from the greatest height and width.
    """
    cell_height = max(image.shape[0] for image in images.values()) + GAP
    cell_width = max(image.shape[1] for image in images.values()) + GAP
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    grid = np.full((rows * cell_height - GAP, columns * cell_width - GAP, 3), WHITE, dtype=np.uint8)
    for place, image in enumerate(images.values()):
        top, left = place // columns * cell_height, place % columns * cell_width
        height, width = image.shape[:2]
        grid[top : top + height, left : left + width] = image if image.ndim == 3 else image[:, :, None]
    return grid


class AsyncImageWriter:
    """To be entered. What was handed over is written when the body ends well, and dropped when it does not.

    An error of writing is raised by one of the next calls, or by the end of the body.
    """

    def __init__(self, threads: int) -> None:
        """Args: threads is how many write, 0 to write in the caller's."""
        self.threads = threads
        self._pool = ThreadPoolExecutor(max(threads, 1))
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            while kind is None and self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def save(self, image: torch.Tensor, path: Path) -> None:
        """As `save_image`, soon. Waits where too many images would pile up. `image` must stay as it is."""
        if self.threads == 0:
            save_image(image, path)
            return
        while len(self._pending) >= 4 * self.threads:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(save_image, image, path))
