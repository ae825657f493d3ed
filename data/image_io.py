"""Image files of all common formats, decoded to 8-bit RGB. An unusable file raises ImageError."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

EXTENSIONS = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Without this list Pillow chooses a decoder by content, and some decoders start other programs.
_DECODERS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

WHITE_IS_ZERO = 0  # photometric interpretation of a TIFF

# Pillow refuses to decode larger images. Enlarged images have the same limit.
MAX_PIXELS = 178_956_970


class ImageError(Exception):
    """This image is unusable, others may be usable. The message is the reason, without the path."""


def read_image(path: str) -> Image.Image:
    """Read the first frame of `path` as 8-bit RGB, rotated by its EXIF orientation.

    Transparent images are composited on white. 16-bit samples are scaled from 0...65535 to 0...255, 12-bit samples likewise.

    Raises:
        ImageError: the file is missing, empty, damaged or too large, or its samples have no defined range.
    """
    with open_exif_transposed(path) as image:
        return _to_8_bit(image).convert("RGB")


@contextmanager
def open_exif_transposed(path: str) -> Iterator[Image.Image]:
    """Open the first frame of `path`, rotated by its EXIF orientation, without conversion of its samples.

    Raises:
        ImageError: the file is missing, empty, damaged or too large, or the body fails.
    """
    try:
        file = Path(path)
        status = file.stat()
        if not S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size == 0:
            raise ImageError("an empty file")
        # Pillow can read the images that it warns about (large images, odd metadata).
        # If it is given a path, Pillow 13 maps uncompressed TIFFs into memory and corrupts those that are rotated.
        with (
            warnings.catch_warnings(action="ignore"),
            open(file, "rb", opener=_open_at_once) as data,
            Image.open(data, formats=_DECODERS) as image,
        ):
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image of a known format, or damaged at its start") from error
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    except Exception as error:  # for damaged files Pillow's decoders raise almost any exception
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def _open_at_once(path: str, flags: int) -> int:
    """Open without blocking, because a file that was replaced by a pipe would block until another process writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_16_bit(image: Image.Image) -> bool:
    """Return True if the samples are 16-bit gray, 0...65535.

    A 16-bit PGM has mode "I", and so has a 16-bit PNG before Pillow 11.
    """
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def to_gray16(image: Image.Image) -> np.ndarray:
    """Return the samples (H, W) of an image with `is_16_bit`, from 0 (black) to 65535 (white)."""
    samples = np.asarray(image).astype(np.uint32)
    if isinstance(image, TiffImageFile):  # Pillow does not report 12-bit scans and negatives
        max_value = (1 << image.tag_v2[BITSPERSAMPLE][0]) - 1
        samples = (samples * 65535 + max_value // 2) // max_value
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            samples = 65535 - samples
    return samples


def check_bit_depth(image: Image.Image) -> None:
    """Raise ImageError for samples without a defined range."""
    if image.mode in ("I", "F"):
        raise ImageError("32-bit or signed samples, whose white is not defined; save the image with 8 or 16 unsigned bits")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Return `image` with 8-bit samples and without transparency."""
    if is_16_bit(image):
        return Image.fromarray(((to_gray16(image) + 128) // 257).astype(np.uint8))
    check_bit_depth(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white
    return image
