"""What happens to an image between file and network: the steps of --preprocess, flip, scaling to [-1, 1].

Up to the first random draw an image is a PIL image; from there on it is a uint8 array (C, H, W), which --cache can hold.
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

SIZE_MULTIPLE = 4  # the generators halve an image twice, and get whole numbers


class ImageTooSmallError(Exception):
    """An image is smaller than the crop to be taken from it. The message says how large both are."""


@dataclass(frozen=True)
class Transform:
    """Turns a PIL image into a tensor: `steps`, sides rounded to a multiple of 4, a random flip, values in [-1, 1].

    `prepare` does what comes out alike every time, `finish` the rest.
    """

    steps: tuple[str, ...]  # of STEPS, as parse_preprocess returns them
    load_size: int  # pixels; what the scaling steps aim at
    crop_size: int  # pixels; side of a crop, and lower bound of zooms
    flip: bool  # mirror left and right with probability 1/2
    grayscale: bool = False  # one channel instead of three
    random_scale_max: float = 3.0  # zoom factors are uniform in [1/random_scale_max, 1]
    resample: Resampling = Resampling.BICUBIC

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
        """The (C, H, W) float32 tensor of an 8-bit RGB `image`; raises as `prepare` and `finish` do."""
        return self.finish(self.prepare(image), rng)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The uint8 pixels (C, H, W) of an 8-bit RGB `image` after the steps that draw nothing.

        Raises:
            ImageError: a step would make the image larger than memory should hold.
        """
        if self.grayscale:
            image = image.convert("L")
        for step in self.steps:
            if step in RESIZE_OPS:
                image = RESIZE_OPS[step](image, self)
        if not set(self.steps) & set(RANDOM_OPS):
            image = round_to_multiple(image, self.resample)
        return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)

    def finish(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The (C, H, W) float32 tensor of what `prepare` returned; all random draws come from `rng`.

        Raises:
            ImageTooSmallError: the step crop or patch meets an image smaller than `crop_size`.
            ImageError: as `prepare`.
        """
        for step in self.steps:
            if step in RANDOM_OPS:
                pixels = RANDOM_OPS[step](pixels, self, rng)
        pixels = round_array(pixels, self.resample)
        if self.flip and rng.random() < 0.5:
            pixels = pixels[:, :, ::-1]
        return to_tensor(pixels)


# The steps by their tokens in --preprocess, in the order in which they are applied: first what scales whole images ...
RESIZE_OPS: dict[str, Callable[[Image.Image, Transform], Image.Image]] = {
    "fixsize": lambda image, t: resize_short_side(image, t.load_size, t.resample),
    "resize": lambda image, t: resize(image, t.load_size, t.load_size, t.resample),
    "scale_width": lambda image, t: scale_width(image, t.load_size, t.crop_size, t.resample),
    "scale_shortside": lambda image, t: upscale_short_side(image, t.load_size, t.resample),
}
# ... then what draws at random.
RANDOM_OPS: dict[str, Callable[[np.ndarray, Transform, np.random.Generator], np.ndarray]] = {
    "zoom": lambda pixels, t, rng: zoom(pixels, t.random_scale_max, t.crop_size, t.resample, rng),
    "crop": lambda pixels, t, rng: crop(pixels, t.crop_size, rng),
    "patch": lambda pixels, t, rng: patch(pixels, t.crop_size, rng),
    "trim": lambda pixels, t, rng: trim(pixels, t.crop_size, rng),
}
STEPS = (*RESIZE_OPS, *RANDOM_OPS)
_ALTERNATIVES = ("resize", "scale_width", "scale_shortside")


def create_transform(opt: Namespace, resample: Resampling, grayscale: bool) -> Transform:
    """The transform that --preprocess, --load_size, --crop_size, --no_flip and --random_scale_max ask for."""
    return Transform(
        steps=parse_preprocess(opt.preprocess),
        load_size=opt.load_size,
        crop_size=opt.crop_size,
        flip=not opt.no_flip,
        grayscale=grayscale,
        random_scale_max=opt.random_scale_max,
        resample=resample,
    )


def parse_preprocess(value: str) -> tuple[str, ...]:
    """The steps that a --preprocess value names, in the order of their application: "resize_and_crop", "none" …

    Of resize, scale_width and scale_shortside the first one named in this order is taken, as published.

    Raises:
        UserError: a part of `value` is no known step.
    """
    any_step = "|".join(STEPS)
    words = re.split(r"[\W_]+", re.sub(any_step, " ", value))
    unknown = [word for word in words if word not in ("", "and", "none")]
    if unknown:
        raise UserError(
            f"--preprocess {value!r}: {', '.join(map(repr, unknown))} not understood; "
            f"give none, or join some of {', '.join(STEPS)} by _and_"
        )
    named = set(re.findall(any_step, value))
    superseded = [step for step in _ALTERNATIVES if step in named][1:]
    return tuple(step for step in STEPS if step in named and step not in superseded)


def resize(image: Image.Image, width: int, height: int, resample: Resampling) -> Image.Image:
    """`image` at exactly `width` x `height` pixels.

    Raises:
        ImageError: that would be more than MAX_PIXELS (an image of one pixel by thousands, enlarged).
    """
    if width * height > MAX_PIXELS:
        raise ImageError(f"{image.width}x{image.height} pixels would be enlarged to {width}x{height}")
    return image.resize((width, height), resample)


def resize_short_side(image: Image.Image, length: int, resample: Resampling) -> Image.Image:
    """The shorter side becomes `length`, larger or smaller than it was; the aspect stays."""
    scale = length / min(image.size)
    return resize(image, round(image.width * scale), round(image.height * scale), resample)


def upscale_short_side(image: Image.Image, length: int, resample: Resampling) -> Image.Image:
    """As `resize_short_side`, but never makes an image smaller."""
    return image if min(image.size) >= length else resize_short_side(image, length, resample)


def scale_width(image: Image.Image, width: int, min_height: int, resample: Resampling) -> Image.Image:
    """The width becomes `width`, the height follows the aspect but is at least `min_height`."""
    return resize(image, width, max(int(width * image.height / image.width), min_height), resample)


def zoom(
    pixels: np.ndarray, random_scale_max: float, min_side: int, resample: Resampling, rng: np.random.Generator
) -> np.ndarray:
    """`pixels` scaled by a random factor per axis, see `zoomed_size`."""
    return resize_array(pixels, *zoomed_size(pixels, random_scale_max, min_side, rng), resample)


def zoomed_size(pixels: np.ndarray, random_scale_max: float, min_side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of `pixels` times a factor per axis, uniform in [1/random_scale_max, 1]; at least `min_side`."""
    sides = pixels.shape[2], pixels.shape[1]
    factors = rng.uniform(1 / random_scale_max, 1, size=2)
    width, height = (max(min_side, round(side * factor)) for side, factor in zip(sides, factors, strict=True))
    return width, height


def crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of `size` pixels a side. Raises ImageTooSmallError."""
    _, height, width = pixels.shape
    if min(width, height) < size:
        raise ImageTooSmallError(f"{width}x{height} pixels, less than --crop_size {size}")
    return _random_box(pixels, size, size, rng)


def patch(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random cell of a grid of `size` pixels at a random offset. Raises ImageTooSmallError."""
    _, height, width = pixels.shape
    left, top = grid_cells(width, height, size, rng)[0]
    return box(pixels, left, top, size, size)


def trim(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Sides longer than `size` are cut to it at a random place; shorter ones stay."""
    _, height, width = pixels.shape
    return _random_box(pixels, min(width, size), min(height, size), rng)


def grid_cells(width: int, height: int, size: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(left, top) of all whole cells of a grid of `size` pixels at a random offset, in random order.

    Raises:
        ImageTooSmallError: not one cell fits into `width` x `height`.
    """
    columns, rows = width // size, height // size
    if not columns or not rows:
        raise ImageTooSmallError(f"{width}x{height} pixels, less than --crop_size {size}")
    left = int(rng.integers(width - columns * size + 1))
    top = int(rng.integers(height - rows * size + 1))
    cells = rng.permutation(columns * rows).tolist()
    return [(left + cell % columns * size, top + cell // columns * size) for cell in cells]


def box(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """The part of `pixels` (C, H, W) whose upper left pixel is (left, top); a view."""
    return pixels[:, top : top + height, left : left + width]


def resize_array(pixels: np.ndarray, width: int, height: int, resample: Resampling) -> np.ndarray:
    """`resize` for an array (C, H, W): channel by channel, to which Pillow's scaling of colors is equal."""
    return np.stack([np.asarray(resize(Image.fromarray(plane), width, height, resample)) for plane in pixels])


def round_to_multiple(image: Image.Image, resample: Resampling) -> Image.Image:
    """Resizes each side to the nearest multiple of SIZE_MULTIPLE (halves to the even one), and at least that."""
    size = _rounded(image.width), _rounded(image.height)
    return image if image.size == size else resize(image, *size, resample)


def round_array(pixels: np.ndarray, resample: Resampling) -> np.ndarray:
    """`round_to_multiple` for an array (C, H, W)."""
    _, height, width = pixels.shape
    size = _rounded(width), _rounded(height)
    return pixels if (width, height) == size else resize_array(pixels, *size, resample)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """The (C, H, W) float32 tensor of uint8 `pixels` in any memory order, 0…255 mapped to [-1, 1]."""
    # Divided and shifted in the published order, which settles the last bit. In NumPy, because torch would start
    # threads for so little, and wait for them where the cores are busy. Put in order before they grow to four bytes.
    values = np.ascontiguousarray(pixels).astype(np.float32)
    values /= 255
    values -= 0.5
    values *= 2
    return torch.from_numpy(values)


def _rounded(side: int) -> int:
    return max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE


def _random_box(pixels: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    left = int(rng.integers(pixels.shape[2] - width + 1))
    top = int(rng.integers(pixels.shape[1] - height + 1))
    return box(pixels, left, top, width, height)
