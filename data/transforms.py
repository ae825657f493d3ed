"""Transforms from image to network input: the operations of --preprocess, flip, scaling to [-1, 1].

Testing and evaluation use no random numbers: zoom and flip are left out, and crop, patch and trim cut the center. Before the
first random operation an image is a PIL image, afterwards a uint8 array (C, H, W), which --cache can store.
"""

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from data.image_io import MAX_PIXELS, ImageError
from util.errors import UserError

SIZE_MULTIPLE = 4  # the generators downsample twice by a factor of 2


class ImageTooSmallError(Exception):
    """An image is smaller than the crop. The message gives both sizes."""


@dataclass(frozen=True)
class Transform:
    """Turn a PIL image into a tensor: `ops`, sides rounded to a multiple of 4, random flip, values in [-1, 1].

    `apply_deterministic` performs the deterministic operations, `apply_random` the others.
    """

    ops: tuple[str, ...]  # names in OPS, as returned by parse_preprocess
    load_size: int  # pixels; target size of the resize operations
    crop_size: int  # pixels; side of a crop, and minimum size after a zoom
    flip: bool  # flip horizontally with probability 1/2
    grayscale: bool = False  # one channel instead of three
    random_scale_max: float = 3.0  # zoom factors are uniform in [1/random_scale_max, 1]
    resample: Resampling = Resampling.BICUBIC
    is_train: bool = True  # False: nothing is random. There is no zoom and no flip, and the center is cropped

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
        """Return the (C, H, W) float32 tensor of an 8-bit RGB `image`. Raise the errors of both stages."""
        return self.apply_random(self.apply_deterministic(image), rng)

    def apply_deterministic(self, image: Image.Image) -> np.ndarray:
        """Return the uint8 pixels (C, H, W) of an 8-bit RGB `image` after the deterministic operations.

        Raises:
            ImageError: the resized image would have more than MAX_PIXELS.
            ImageTooSmallError: the image is smaller than the central crop of a test.
        """
        if self.grayscale:
            image = image.convert("L")
        for op in self.ops:
            if op in RESIZE_OPS:
                image = RESIZE_OPS[op](image, self)
            elif op in CENTER_OPS and not self.is_train:
                image = CENTER_OPS[op](image, self.crop_size)
        if not self.is_train or not set(self.ops) & set(RANDOM_OPS):
            image = round_to_multiple(image, self.resample)
        return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)

    def apply_random(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Return the (C, H, W) float32 tensor of the pixels returned by `apply_deterministic`.

        All random numbers come from `rng`. At test time none is used.

        Raises:
            ImageTooSmallError: the image is smaller than `crop_size`, and crop or patch is one of the operations.
            ImageError: see `apply_deterministic`.
        """
        if not self.is_train:
            return to_tensor(pixels)
        for op in self.ops:
            if op in RANDOM_OPS:
                pixels = RANDOM_OPS[op](pixels, self, rng)
        pixels = round_array(pixels, self.resample)
        if self.flip and rng.random() < 0.5:
            pixels = pixels[:, :, ::-1]
        return to_tensor(pixels)


# The operations by their names in --preprocess, in the order of application: first those that resize whole images ...
RESIZE_OPS: dict[str, Callable[[Image.Image, Transform], Image.Image]] = {
    "fixsize": lambda image, t: resize_short_side(image, t.load_size, t.resample),
    "resize": lambda image, t: resize(image, t.load_size, t.load_size, t.resample),
    "scale_width": lambda image, t: scale_width(image, t.load_size, t.crop_size, t.resample),
    "scale_shortside": lambda image, t: upscale_short_side(image, t.load_size, t.resample),
}
# ... then those that use random numbers.
RANDOM_OPS: dict[str, Callable[[np.ndarray, Transform, np.random.Generator], np.ndarray]] = {
    "zoom": lambda pixels, t, rng: zoom(pixels, t.random_scale_max, t.crop_size, t.resample, rng),
    "crop": lambda pixels, t, rng: crop(pixels, t.crop_size, rng),
    "patch": lambda pixels, t, rng: patch(pixels, t.crop_size, rng),
    "trim": lambda pixels, t, rng: trim(pixels, t.crop_size, rng),
}
# At test time these replace the random operations. A zoom is left out.
CENTER_OPS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "crop": lambda image, size: center_crop(image, size),
    "patch": lambda image, size: center_crop(image, size),
    "trim": lambda image, size: center_trim(image, size),
}
OPS = (*RESIZE_OPS, *RANDOM_OPS)
_ALTERNATIVES = ("resize", "scale_width", "scale_shortside")


def create_transform(opt: Namespace, resample: Resampling, grayscale: bool) -> Transform:
    """Create the transform of --preprocess, --load_size, --crop_size, --no_flip and --random_scale_max."""
    return Transform(
        ops=parse_preprocess(opt.preprocess),
        load_size=opt.load_size,
        crop_size=opt.crop_size,
        flip=not opt.no_flip,
        grayscale=grayscale,
        random_scale_max=opt.random_scale_max,
        resample=resample,
        is_train=opt.isTrain,
    )


def parse_preprocess(value: str) -> tuple[str, ...]:
    """Return the operations that a --preprocess value names, in the order of their application.

    Examples of values are "resize_and_crop" and "none". If several of resize, scale_width and scale_shortside are named,
    only the first one in this order is used, as published.

    Raises:
        UserError: a part of `value` is not an operation.
    """
    any_op = "|".join(OPS)
    words = re.split(r"[\W_]+", re.sub(any_op, " ", value))
    unknown = [word for word in words if word not in ("", "and", "none")]
    if unknown:
        raise UserError(
            f"--preprocess {value!r}: unknown operation {', '.join(map(repr, unknown))}. "
            f"Use none, or join some of {', '.join(OPS)} by _and_."
        )
    named = set(re.findall(any_op, value))
    superseded = [op for op in _ALTERNATIVES if op in named][1:]
    return tuple(op for op in OPS if op in named and op not in superseded)


def resize(image: Image.Image, width: int, height: int, resample: Resampling) -> Image.Image:
    """Resize `image` to exactly `width` x `height` pixels.

    Raises:
        ImageError: the result would have more than MAX_PIXELS (for example an enlarged image of 1 x 100000 pixels).
    """
    if width * height > MAX_PIXELS:
        raise ImageError(f"{image.width}x{image.height} pixels would be enlarged to {width}x{height}")
    return image.resize((width, height), resample)


def resize_short_side(image: Image.Image, length: int, resample: Resampling) -> Image.Image:
    """Resize the shorter side to `length` and keep the aspect ratio."""
    scale = length / min(image.size)
    return resize(image, round(image.width * scale), round(image.height * scale), resample)


def upscale_short_side(image: Image.Image, length: int, resample: Resampling) -> Image.Image:
    """Resize the shorter side to `length` if it is smaller, and keep the aspect ratio."""
    return image if min(image.size) >= length else resize_short_side(image, length, resample)


def scale_width(image: Image.Image, width: int, min_height: int, resample: Resampling) -> Image.Image:
    """Resize the width to `width` and keep the aspect ratio, but make the height at least `min_height`."""
    return resize(image, width, max(int(width * image.height / image.width), min_height), resample)


def zoom(
    pixels: np.ndarray, random_scale_max: float, min_side: int, resample: Resampling, rng: np.random.Generator
) -> np.ndarray:
    """Resize `pixels` by a random factor per axis, see `zoomed_size`."""
    return resize_array(pixels, *zoomed_size(pixels, random_scale_max, min_side, rng), resample)


def zoomed_size(pixels: np.ndarray, random_scale_max: float, min_side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return width and height of `pixels` times a factor per axis, uniform in [1/random_scale_max, 1].

    Both are at least `min_side`.
    """
    sides = pixels.shape[2], pixels.shape[1]
    factors = rng.uniform(1 / random_scale_max, 1, size=2)
    width, height = (max(min_side, round(side * factor)) for side, factor in zip(sides, factors, strict=True))
    return width, height


def crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Crop a random square of `size` pixels. Raise ImageTooSmallError if it does not fit."""
    _, height, width = pixels.shape
    if min(width, height) < size:
        raise _too_small(width, height, size)
    return _random_crop(pixels, size, size, rng)


def patch(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Crop a random cell of a grid of `size` pixels at a random offset. Raise ImageTooSmallError if it does not fit."""
    _, height, width = pixels.shape
    left, top = grid_cells(width, height, size, rng)[0]
    return crop_box(pixels, left, top, size, size)


def trim(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Crop sides longer than `size` to it at a random offset, and keep shorter ones."""
    _, height, width = pixels.shape
    return _random_crop(pixels, min(width, size), min(height, size), rng)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the central square of `size` pixels. Raise ImageTooSmallError if it does not fit."""
    if min(image.size) < size:
        raise _too_small(image.width, image.height, size)
    return center_trim(image, size)


def center_trim(image: Image.Image, size: int) -> Image.Image:
    """Crop the middle of sides longer than `size`, and keep shorter ones."""
    width, height = (min(side, size) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def grid_cells(width: int, height: int, size: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return (left, top) of all whole cells of a grid of `size` pixels at a random offset, in random order.

    Raises:
        ImageTooSmallError: no cell fits into `width` x `height`.
    """
    columns, rows = width // size, height // size
    if not columns or not rows:
        raise _too_small(width, height, size)
    left = int(rng.integers(width - columns * size + 1))
    top = int(rng.integers(height - rows * size + 1))
    cells = rng.permutation(columns * rows).tolist()
    return [(left + cell % columns * size, top + cell // columns * size) for cell in cells]


def crop_box(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Return a view of the box of `pixels` (C, H, W) whose upper left pixel is (left, top)."""
    return pixels[:, top : top + height, left : left + width]


def resize_array(pixels: np.ndarray, width: int, height: int, resample: Resampling) -> np.ndarray:
    """Resize an array (C, H, W) channel by channel, which equals Pillow's resizing of an RGB image."""
    return np.stack([np.asarray(resize(Image.fromarray(plane), width, height, resample)) for plane in pixels])


def round_to_multiple(image: Image.Image, resample: Resampling) -> Image.Image:
    """Resize each side to the nearest multiple of SIZE_MULTIPLE (ties to even), at least SIZE_MULTIPLE."""
    size = _rounded(image.width), _rounded(image.height)
    return image if image.size == size else resize(image, *size, resample)


def round_array(pixels: np.ndarray, resample: Resampling) -> np.ndarray:
    """Do the same as `round_to_multiple` for an array (C, H, W)."""
    _, height, width = pixels.shape
    size = _rounded(width), _rounded(height)
    return pixels if (width, height) == size else resize_array(pixels, *size, resample)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Return the (C, H, W) float32 tensor of uint8 `pixels` in any memory order, with 0...255 mapped to [-1, 1]."""
    # Division and shift are in the published order, which determines the last bit. NumPy is used because torch would
    # start threads for so small an array and wait for them on busy cores. The copy is made while a value is one byte.
    values = np.ascontiguousarray(pixels).astype(np.float32)
    values /= 255
    values -= 0.5
    values *= 2
    return torch.from_numpy(values)


def _rounded(side: int) -> int:
    return max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE


def _random_crop(pixels: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    left = int(rng.integers(pixels.shape[2] - width + 1))
    top = int(rng.integers(pixels.shape[1] - height + 1))
    return crop_box(pixels, left, top, width, height)


def _too_small(width: int, height: int, size: int) -> ImageTooSmallError:
    return ImageTooSmallError(f"{width}x{height} pixels before the crop, smaller than --crop_size {size}")
