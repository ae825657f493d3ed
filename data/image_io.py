"""Image files of any kind: decoders by content, as an 8-bit RGB image or as an array of any band count and dtype."""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from data.image_array import MAX_PIXELS, ImageArray, ImageError, UndefinedRangeError, too_large
from data.image_formats import is_jpeg2000, read_dicom, read_jpeg2000, read_npy, read_npz
from data.pillow_reader import (
    HEAD_BYTES,
    gray_to_8_bit,
    is_avif,
    is_color_png16,
    is_color_ppm16,
    is_gray16,
    is_heif,
    open_with_pillow,
    page_areas,
    read_any_tiff,
    read_pillow,
    to_8_bit,
    to_srgb,
)
from data.tiff_reader import MAX_LISTED_PAGES, Page, list_pages


@dataclass(frozen=True)
class Reader:
    """A kind of file: its usual endings, how its first bytes look, and how it is decoded."""

    extensions: tuple[str, ...]
    matches: Callable[[bytes], bool]
    read: Callable[[BinaryIO, Page, int, bool], ImageArray]  # file, page, max_pixels, as_srgb


def read_image(path: str, page: Page = None, max_pixels: int = MAX_PIXELS, as_srgb: bool = False) -> Image.Image:
    """Read an image as 8-bit RGB: the first frame, upright by its EXIF orientation.

    Transparent images are composited over white. 16-bit samples are scaled, 0…65535 to 0…255, and so are 12-bit ones.

    Args:
        path: an image of any kind in READERS.
        page: index of a TIFF's page; None for the largest; "bands" to stack all pages as the bands of one image.
        max_pixels: limit of width times height.
        as_srgb: convert 8-bit images from their color profile to sRGB.

    Raises:
        ImageError: the file is gone, empty, damaged or too large, its samples have no defined range, or it has neither
            1 nor 3 bands.
    """
    with _open(path) as (file, head):
        name = _find_reader(head)
        if name not in _ARRAY_FORMATS:
            try:
                with open_with_pillow(file, head, page, max_pixels) as image:
                    return _pillow_to_rgb(image, as_srgb)
            except UnidentifiedImageError:
                if name != "TIFF":
                    raise
            file.seek(0)
        return _array_to_rgb(READERS[name].read(file, page, max_pixels, as_srgb))


def read_rgb_or_array(
    path: str, page: Page = None, max_pixels: int = MAX_PIXELS, as_srgb: bool = False
) -> Image.Image | ImageArray:
    """Read an image without loss of bands or bits: as 8-bit RGB if it has 8-bit samples of 1 or 3 bands, else as an array.

    Args and errors are those of `read_array`. Transparent 8-bit images are composited over white.
    """
    with _open(path) as (file, head):
        name = _find_reader(head)
        if name in _PILLOW_FORMATS and not is_color_png16(head):
            with open_with_pillow(file, head, page, max_pixels) as image:
                if not (is_gray16(image) or is_color_ppm16(image)):
                    return _pillow_to_rgb(image, as_srgb)
            file.seek(0)
        array = READERS[name].read(file, page, max_pixels, as_srgb)
        return _array_to_rgb(array) if array.pixels.dtype == np.uint8 and array.bands in (1, 3) else array


def read_array(path: str, page: Page = None, max_pixels: int = MAX_PIXELS, as_srgb: bool = False) -> ImageArray:
    """Read an image with the bands and the dtype that its file has: the first frame, upright by its EXIF orientation.

    Args and errors are those of `read_image`, but any band count and any range of finite samples is read.
    """
    with _open(path) as (file, head):
        return READERS[_find_reader(head)].read(file, page, max_pixels, as_srgb)


def is_8_bit(path: str, max_pixels: int = MAX_PIXELS) -> bool:
    """Return True if the header of a file shows that Pillow reads it as 8-bit, without loss.

    Raises:
        ImageError: the file cannot be opened.
    """
    with _open(path) as (file, head):
        if _find_reader(head) not in _PILLOW_FORMATS or is_color_png16(head):
            return False
        with open_with_pillow(file, head, None, max_pixels) as image:
            return not (is_gray16(image) or is_color_ppm16(image)) and image.mode not in ("I", "F")


def size_in_header(path: str) -> tuple[int, int] | None:
    """Return the stored width and height, before a turn by the EXIF orientation; None if only decoding tells them."""
    with suppress(ImageError, UnidentifiedImageError, OSError), _open(path) as (file, head):
        if _find_reader(head) in _PILLOW_FORMATS:
            with open_with_pillow(file, head, None, MAX_PIXELS) as image:
                return image.size
    return None


def writable_name(path: Path) -> Path:
    """Return the path, with the ending .tif in place of one of a format that is only read."""
    is_read_only = any(path.suffix.lower() in READERS[name].extensions for name in READ_ONLY)
    return path.with_suffix(".tif") if is_read_only else path


def image_pages(path: str) -> list[int]:
    """Return the indices of a TIFF's full-resolution pages, without overviews and masks; [0] for other files.

    Pages after the first MAX_LISTED_PAGES are not looked at.

    Raises:
        ImageError: the file cannot be opened.
    """
    with _open(path) as (file, head):
        if not _is_tiff(head):
            return [0]
        try:
            with Image.open(file, formats=("TIFF",)) as image:
                assert isinstance(image, TiffImageFile)
                return list(page_areas(image, MAX_LISTED_PAGES))
        except UnidentifiedImageError:
            file.seek(0)
            return list_pages(file)


@contextmanager
def open_exif_transposed(path: str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image that Pillow decodes, upright by its EXIF orientation, with whatever samples it has.

    Raises:
        ImageError: the file is gone, empty, damaged or too large; also for what fails in the body.
    """
    with _open(path) as (file, head), open_with_pillow(file, head, None, max_pixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        yield image


@contextmanager
def _open(path: str) -> Iterator[tuple[BinaryIO, bytes]]:
    """Open a regular file and yield it with its first bytes. Whatever fails in the body is an ImageError."""
    try:
        status = Path(path).stat()
        if not S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size == 0:
            raise ImageError("an empty file")
        # Decoders warn of large images and unusual metadata, which they can still read.
        with warnings.catch_warnings(action="ignore"), open(path, "rb", opener=_open_nonblocking) as file:
            head = file.read(HEAD_BYTES)
            if not file.seekable():
                raise UnidentifiedImageError
            file.seek(0)
            yield file, head
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image of a known format, or damaged at its start") from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise too_large(int(found[1]), MAX_PIXELS) if found else ImageError(str(error)) from error
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    except Exception as error:  # on damaged files decoders raise nearly every kind of exception
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        is_decoder_bug = isinstance(error, TypeError | LookupError | ArithmeticError | AttributeError | RecursionError)
        raise ImageError(f"damaged: {reason}" if is_decoder_bug else reason) from error


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a pipe as well, which a file may have become meanwhile, instead of waiting for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _pillow_to_rgb(image: Image.Image, as_srgb: bool) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    return to_8_bit(to_srgb(image) if as_srgb else image).convert("RGB")


def _array_to_rgb(array: ImageArray) -> Image.Image:
    pixels = array.with_channels(3)
    if pixels.dtype == np.uint16:
        pixels = gray_to_8_bit(pixels)
    if pixels.dtype != np.uint8:
        raise UndefinedRangeError(pixels.dtype)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _is_tiff(head: bytes) -> bool:
    return head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))  # classic and BigTIFF


def _is_npy(head: bytes) -> bool:
    return head.startswith(b"\x93NUMPY")


def _is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\3\4", b"PK\5\6"))


def _is_dicom(head: bytes) -> bool:
    return head[128:132] == b"DICM"


def _single_image(read: Callable[[BinaryIO, int], ImageArray]) -> Callable[[BinaryIO, Page, int, bool], ImageArray]:
    """Return the reader of a format without pages and color profiles."""
    return lambda file, page, max_pixels, as_srgb: read(file, max_pixels)


# The first reader that matches decodes the file; the last one takes every other format that Pillow knows, or refuses it.
READERS: dict[str, Reader] = {
    "TIFF": Reader((".tif", ".tiff"), _is_tiff, read_any_tiff),
    "NPY": Reader((".npy",), _is_npy, _single_image(read_npy)),
    "NPZ": Reader((".npz",), _is_zip, _single_image(read_npz)),
    "DICOM": Reader((".dcm", ".dicom"), _is_dicom, _single_image(read_dicom)),
    "JPEG2000": Reader((".j2k", ".jp2"), is_jpeg2000, _single_image(read_jpeg2000)),
    "AVIF": Reader((".avif",), is_avif, read_pillow),
    "HEIF": Reader((".heic", ".heif", ".hif"), is_heif, read_pillow),
    "Pillow": Reader(
        (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"), lambda head: True, read_pillow
    ),
}
EXTENSIONS = tuple(sorted(extension for reader in READERS.values() for extension in reader.extensions))
READ_ONLY = ("DICOM", "JPEG2000")  # results of such files are TIFFs
_ARRAY_FORMATS = ("NPY", "NPZ", *READ_ONLY)
_PILLOW_FORMATS = ("AVIF", "HEIF", "Pillow")


def _find_reader(head: bytes) -> str:
    """Return the name of the reader of a file that starts with `head`."""
    return next(name for name, reader in READERS.items() if reader.matches(head))
