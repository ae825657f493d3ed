"""Transforms from image to network input: the operations of --preprocess, flip, scaling to [-1, 1].

Testing and evaluation use no random numbers: zoom and flip are left out, and crop, patch and trim cut the center. Before the
first random operation an image is a PIL image, or a `PlaneStack` for other than 8-bit RGB images. Afterwards it is an array
(C, H, W) of the file's dtype, which --cache can store.
"""

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from data.image_array import MAX_PIXELS, ImageArray, ImageError, UndefinedRangeError
from data.plane_resize import PlaneStack, resize_plane_stack
from data.value_range import ValueRange
from util.errors import UserError

SIZE_MULTIPLE = 4  # the generators downsample twice by a factor of 2

Resizable = Image.Image | PlaneStack


class ImageTooSmallError(Exception):
    """An image is smaller than the crop. The message gives both sizes."""


@dataclass(frozen=True)
class Transform:
    """Turn an image into a tensor: `ops`, sides rounded to a multiple of 4, random flip, values in [-1, 1].

    `apply_deterministic` performs the deterministic operations, `apply_random` the others.
    """

    ops: tuple[str, ...]  # names in OPS, as returned by parse_preprocess
    load_size: int  # pixels; target size of the resize operations
    crop_size: int  # pixels; side of a crop, and minimum size after a zoom
    flip: bool  # flip horizontally with probability 1/2
    channels: int = 3  # of the tensor
    random_scale_max: float = 3.0  # zoom factors are uniform in [1/random_scale_max, 1]
    resample: Resampling = Resampling.BICUBIC
    is_train: bool = True  # False: nothing is random. There is no zoom and no flip, and the center is cropped
    value_range: ValueRange | None = None  # maps to [-1, 1]; None: the full range of uint8 or uint16

    def __call__(self, image: Image.Image | ImageArray, rng: np.random.Generator) -> torch.Tensor:
        """Return the (C, H, W) float32 tensor of an image. Raise the errors of both stages."""
        return self.apply_random(self.apply_deterministic(image), rng)

    def apply_deterministic(self, image: Image.Image | ImageArray) -> np.ndarray:
        """Return the pixels (C, H, W) of an 8-bit RGB image or of an array after the deterministic operations.

        Raises:
            ImageError: the resized image would have more than MAX_PIXELS, or the image has another number of bands.
            ImageTooSmallError: the image is smaller than the central crop of a test.
        """
        resizable = to_channels(image, self.channels)
        for op in self.ops:
            if op in RESIZE_OPS:
                resizable = RESIZE_OPS[op](resizable, self)
            elif op in CENTER_OPS and not self.is_train:
                resizable = CENTER_OPS[op](resizable, self.crop_size)
        if not self.is_train or not set(self.ops) & set(RANDOM_OPS):
            resizable = round_to_multiple(resizable, self.resample)
        if isinstance(resizable, PlaneStack):
            return resizable.pixels
        return np.asarray(resizable).reshape(resizable.height, resizable.width, -1).transpose(2, 0, 1)

    def apply_random(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Return the (C, H, W) float32 tensor of the pixels returned by `apply_deterministic`. See `augment`."""
        return to_tensor(self.augment(pixels, rng), self.value_range)

    def augment(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the pixels (C, H, W) after the random operations.

        All random numbers come from `rng`. At test time none is used.

        Raises:
            ImageTooSmallError: the image is smaller than `crop_size`, and crop or patch is one of the operations.
            ImageError: see `apply_deterministic`.
        """
        if not self.is_train:
            return pixels
        for op in self.ops:
            if op in RANDOM_OPS:
                pixels = RANDOM_OPS[op](pixels, self, rng)
        pixels = round_array(pixels, self.resample)
        if self.flip and rng.random() < 0.5:
            pixels = pixels[:, :, ::-1]
        return pixels


# The operations by their names in --preprocess, in the order of application: first those that resize whole images ...
RESIZE_OPS: dict[str, Callable[[Resizable, Transform], Resizable]] = {
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
CENTER_OPS: dict[str, Callable[[Resizable, int], Resizable]] = {
    "crop": lambda image, size: center_crop(image, size),
    "patch": lambda image, size: center_crop(image, size),
    "trim": lambda image, size: center_trim(image, size),
}
OPS = (*RESIZE_OPS, *RANDOM_OPS)
_ALTERNATIVES = ("resize", "scale_width", "scale_shortside")


def create_transform(
    opt: Namespace, resample: Resampling, channels: int, value_range: ValueRange | None = None
) -> Transform:
    """Create the transform of --preprocess, --load_size, --crop_size, --no_flip and --random_scale_max."""
    return Transform(
        ops=parse_preprocess(opt.preprocess),
        load_size=opt.load_size,
        crop_size=opt.crop_size,
        flip=not opt.no_flip,
        channels=channels,
        random_scale_max=opt.random_scale_max,
        resample=resample,
        is_train=opt.isTrain,
        value_range=value_range,
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


def to_channels(image: Image.Image | ImageArray, channels: int) -> Resizable:
    """Return an image with this number of channels. Raise BandCountError if that has no meaning."""
    if isinstance(image, ImageArray):
        return PlaneStack(image.with_channels(channels).transpose(2, 0, 1))
    return image.convert("L") if channels == 1 else image


def resize(image: Resizable, width: int, height: int, resample: Resampling) -> Resizable:
    """Resize `image` to exactly `width` x `height` pixels.

    Raises:
        ImageError: the result would have more than MAX_PIXELS (for example an enlarged image of 1 x 100000 pixels).
    """
    _check_enlarged(image.width, image.height, width, height)
    return image.resize((width, height), resample)


def resize_short_side(image: Resizable, length: int, resample: Resampling) -> Resizable:
    """Resize the shorter side to `length` and keep the aspect ratio."""
    scale = length / min(image.size)
    return resize(image, round(image.width * scale), round(image.height * scale), resample)


def upscale_short_side(image: Resizable, length: int, resample: Resampling) -> Resizable:
    """Resize the shorter side to `length` if it is smaller, and keep the aspect ratio."""
    return image if min(image.size) >= length else resize_short_side(image, length, resample)


def scale_width(image: Resizable, width: int, min_height: int, resample: Resampling) -> Resizable:
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


def center_crop(image: Resizable, size: int) -> Resizable:
    """Crop the central square of `size` pixels. Raise ImageTooSmallError if it does not fit."""
    if min(image.size) < size:
        raise _too_small(image.width, image.height, size)
    return center_trim(image, size)


def center_trim(image: Resizable, size: int) -> Resizable:
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
    _check_enlarged(pixels.shape[2], pixels.shape[1], width, height)
    return resize_plane_stack(pixels, width, height, resample)


def round_to_multiple(image: Resizable, resample: Resampling) -> Resizable:
    """Resize each side to the nearest multiple of SIZE_MULTIPLE (ties to even), at least SIZE_MULTIPLE."""
    size = _rounded(image.width), _rounded(image.height)
    return image if image.size == size else resize(image, *size, resample)


def round_array(pixels: np.ndarray, resample: Resampling) -> np.ndarray:
    """Do the same as `round_to_multiple` for an array (C, H, W)."""
    _, height, width = pixels.shape
    size = _rounded(width), _rounded(height)
    return pixels if (width, height) == size else resize_array(pixels, *size, resample)


def to_tensor(pixels: np.ndarray, value_range: ValueRange | None = None) -> torch.Tensor:
    """Return the (C, H, W) float32 tensor of `pixels` in any memory order, with `value_range` mapped to [-1, 1].

    Without a range, the full range of uint8 or uint16 is used. Raise UndefinedRangeError for other types.
    """
    value_range = value_range or ValueRange.of_dtype(pixels.dtype)
    if value_range is None:
        raise UndefinedRangeError(pixels.dtype)
    # NumPy is used because torch would start threads for so small an array and wait for them on busy cores.
    return torch.from_numpy(value_range.normalize(pixels))


def _check_enlarged(old_width: int, old_height: int, width: int, height: int) -> None:
    if width * height > max(MAX_PIXELS, (old_width + SIZE_MULTIPLE) * (old_height + SIZE_MULTIPLE)):
        raise ImageError(f"{old_width}x{old_height} pixels would be enlarged to {width}x{height}")


def _rounded(side: int) -> int:
    return max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE


def _random_crop(pixels: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    left = int(rng.integers(pixels.shape[2] - width + 1))
    top = int(rng.integers(pixels.shape[1] - height + 1))
    return crop_box(pixels, left, top, width, height)


def _too_small(width: int, height: int, size: int) -> ImageTooSmallError:
    return ImageTooSmallError(f"{width}x{height} pixels before the crop, smaller than --crop_size {size}")
