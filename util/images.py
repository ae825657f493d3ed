"""Conversion of tensors in [-1, 1] to 8-bit images, and image files."""

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
    """Convert a tensor to an 8-bit image, as published.

    Values are truncated, not rounded (127.9 becomes 127): the published FIDs were computed on such images.

    Args:
        image: (C, H, W), or (N, C, H, W), of which the first image is used; values in [-1, 1], of any floating-point type,
            on any device. Values outside the range are clipped.
    Returns:
        uint8 array (H, W, C), or (H, W) when C is 1.
    """
    first = image[0] if image.ndim == 4 else image
    scaled = (first.float() + 1) / 2 * 255
    pixels = scaled.clamp(0, 255).to(torch.uint8).cpu().permute(1, 2, 0).numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return the uint8 image (H, W[, 3]) with three channels: (H, W, 3).

    Of a float32 image (H, W, C) in [0, 255] these are the first three channels, or the first one three times, rounded.
    """
    if image.dtype != np.uint8:
        shown = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]
        return np.repeat(shown.round().astype(np.uint8), 3 // shown.shape[2], axis=2)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def tensor2float(image: torch.Tensor) -> np.ndarray:
    """Return the float32 image (H, W, C) in [0, 255] of a tensor (1, C, H, W) in [-1, 1], without loss of bits."""
    return ((image[0].float() + 1) * 127.5).clamp(0, 255).cpu().permute(1, 2, 0).numpy()


def save_image(image: torch.Tensor | np.ndarray, path: Path) -> None:
    """Save a tensor in [-1, 1] (see `tensor2im`) or a uint8 array (H, W[, 3]) to `path`. Create the folder if needed."""
    pixels = tensor2im(image) if isinstance(image, torch.Tensor) else image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)  # for photographs: the same file size in a third of the time


def describe_skipped(skipped: Mapping[str, str]) -> str:
    """Return a line such as "skipped 2 unreadable images, the first is 'testB/x.png': an empty file"."""
    path, reason = next(iter(skipped.items()))
    count = "1 unreadable image," if len(skipped) == 1 else f"{len(skipped)} unreadable images, the first is"
    return f"skipped {count} {path!r}: {reason}"


def image_grid(images: Mapping[str, np.ndarray], columns: int) -> np.ndarray:
    """Arrange images in rows on a white background.

    Args:
        images: uint8 arrays (H, W) or (H, W, 3), of any size.
        columns: images per row.
    Returns:
        uint8 array (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3); height and width of the largest images.
    """
    cell_height = max(image.shape[0] for image in images.values()) + GAP
    cell_width = max(image.shape[1] for image in images.values()) + GAP
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    grid = np.full((rows * cell_height - GAP, columns * cell_width - GAP, 3), WHITE, dtype=np.uint8)
    for index, image in enumerate(images.values()):
        top, left = index // columns * cell_height, index % columns * cell_width
        height, width = image.shape[:2]
        grid[top : top + height, left : left + width] = image if image.ndim == 3 else image[:, :, None]
    return grid


class AsyncImageWriter:
    """Saves images in background threads. Use it in a `with` statement.

    At the end of the statement all pending images are saved; if the body raised, they are dropped. An error while saving
    is raised by one of the next calls, or at the end of the statement.

    Args:
        threads: number of threads; 0: save in the caller's thread.
    """

    def __init__(self, threads: int) -> None:
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
        """Save an image as `save_image` does. Wait if too many images are pending. Do not modify `image` afterwards."""
        if self.threads == 0:
            save_image(image, path)
            return
        while len(self._pending) >= 4 * self.threads:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(save_image, image, path))
