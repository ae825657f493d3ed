"""Reading of a domain's files as its networks take them: any band count and dtype, 8-bit RGB as a PIL image."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from PIL import Image

from data.image_array import MAX_PIXELS, BandCountError, ImageArray, ImageError, UndefinedRangeError
from data.image_io import image_pages, is_8_bit, read_array, read_image, read_rgb_or_array
from data.tiff_reader import Page
from data.value_range import ValueRange

MEGAPIXEL = 1_000_000
PAGE_PREFIX = "page_"  # stack.tif/page_0003 is a path for page 3 of stack.tif

ReadImage = Image.Image | ImageArray


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading files: --tiff_pages, --max_megapixels and --to_srgb.

    The methods read a path, which may name a page of a TIFF (`with_pages`), by the functions of their names in
    `data.image_io`.

    Attributes:
        tiff_pages: "largest" page; "all": each page is an image; or "bands": the pages are the bands of one image.
        max_pixels: limit of width times height.
        to_srgb: convert 8-bit images with a color profile; deeper ones keep their samples.
    """

    tiff_pages: str = "largest"
    max_pixels: int = MAX_PIXELS
    to_srgb: bool = False

    @classmethod
    def of(cls, opt: Namespace, saved: Mapping[str, Any] = MappingProxyType({})) -> Self:
        """Return what the options of a program say. Those that are not set are taken from `saved`, if it has them."""
        names = ("tiff_pages", "max_megapixels", "to_srgb")
        pages, limit, to_srgb = (saved.get(name) if (value := getattr(opt, name, None)) is None else value for name in names)
        max_pixels = round(limit * MEGAPIXEL) if isinstance(limit, int | float) else MAX_PIXELS
        return cls(str(pages or "largest"), max_pixels, bool(to_srgb))

    def with_pages(self, files: Sequence[str]) -> list[str]:
        """Return the paths of the images in these files: a path per page if each page is an image."""
        return with_pages(files) if self.tiff_pages == "all" else list(files)

    def read_image(self, path: str) -> Image.Image:
        """Return an 8-bit RGB image."""
        return read_image(*self._located(path), self.max_pixels, self.to_srgb)

    def read_rgb_or_array(self, path: str) -> ReadImage:
        """Return an 8-bit RGB image for 8-bit samples of 1 or 3 bands, else an array."""
        return read_rgb_or_array(*self._located(path), self.max_pixels, self.to_srgb)

    def read_array(self, path: str) -> ImageArray:
        """Return an image with the bands and the dtype that its file has."""
        return read_array(*self._located(path), self.max_pixels, self.to_srgb)

    def is_8_bit(self, path: str) -> bool:
        """Return True if the header of a file shows that Pillow reads it as 8-bit, without loss."""
        return is_8_bit(split_page(path)[0], self.max_pixels)

    def _located(self, path: str) -> tuple[str, Page]:
        file, page = split_page(path)
        return file, "bands" if self.tiff_pages == "bands" else page


DEFAULT_READING = ReadOptions()


@dataclass(frozen=True)
class ImageReader:
    """Read files for networks with these numbers of input channels, and refuse those that do not fit.

    Attributes:
        channels: numbers of channels that an image must be convertible to; two for the halves of a pair.
        has_range: a value range is set, so that samples of any dtype are defined.
        flag: the option that sets the number of channels, for messages.
        options: how files are read.
    """

    channels: tuple[int, ...] = (3,)
    has_range: bool = False
    flag: str = "--input_nc"
    options: ReadOptions = DEFAULT_READING

    def __call__(self, path: str) -> ReadImage:
        """Return an 8-bit RGB image for files of 8-bit samples and networks of 1 or 3 channels, else an array.

        Raises:
            ImageError: the file cannot be read.
            BandCountError: it has another number of bands.
            UndefinedRangeError: it has signed or floating-point samples, and no range is set.
        """
        is_published = set(self.channels) <= {1, 3}
        image = self.options.read_rgb_or_array(path) if is_published else self.options.read_array(path)
        if isinstance(image, ImageArray):
            self._check(image)
        return image

    def _check(self, array: ImageArray) -> None:
        for channels in self.channels:
            if not array.fits(channels):
                raise BandCountError(array.bands, channels, array.info.pages)
        if not self.has_range and ValueRange.of_dtype(array.pixels.dtype) is None:
            raise UndefinedRangeError(array.pixels.dtype)


def split_page(path: str) -> tuple[str, int | None]:
    """Return the file of a path, and its page if the path names one: "a.tif/page_0003" is page 3 of a.tif."""
    parent, name = Path(path).parent, Path(path).name
    if name.startswith(PAGE_PREFIX) and name.removeprefix(PAGE_PREFIX).isdecimal() and parent.is_file():
        return str(parent), int(name.removeprefix(PAGE_PREFIX))
    return path, None


def with_pages(paths: Sequence[str]) -> list[str]:
    """Return the paths, with a path per page for every TIFF of several pages. Files that cannot be opened stay."""
    return [found for path in paths for found in _page_paths(path)]


def _page_paths(path: str) -> list[str]:
    try:
        pages = image_pages(path) if path.lower().endswith((".tif", ".tiff")) else [0]
    except ImageError:  # reported when its turn comes
        return [path]
    return [path] if len(pages) == 1 else [f"{path}/{PAGE_PREFIX}{page:04}" for page in pages]


def pixels_of(image: ReadImage) -> np.ndarray:
    """Return the (H, W, C) samples of an image, for statistics."""
    return image.pixels if isinstance(image, ImageArray) else np.asarray(image).reshape(image.height, image.width, -1)
