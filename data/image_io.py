"""Image files of every common kind to 8-bit RGB; what cannot be read is a `ImageError`."""

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

# Pillow would choose a decoder by content, whatever the name says, and some of its decoders start other programs.
_DECODERS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

WHITE_IS_ZERO = 0  # a TIFF's photometric interpretation

# Pillow refuses to decode larger images; the same bound holds for what an image is enlarged to.
MAX_PIXELS = 178_956_970


class ImageError(Exception):
    """This image cannot be used, others can. The message is the reason, without the path."""


def read_image(path: str) -> Image.Image:
    """Reads the first frame of `path`, upright by its EXIF orientation, as 8-bit RGB.

    Transparent images are laid on white. 16-bit samples are scaled, 0…65535 to 0…255, and so are 12-bit ones.

    Raises:
        ImageError: the file is gone, empty, damaged, too large, or its samples have no defined range.
    """
    with open_exif_transposed(path) as image:
        return _to_8_bit(image).convert("RGB")


@contextmanager
def open_exif_transposed(path: str) -> Iterator[Image.Image]:
    """The first frame of `path`, upright by its EXIF orientation, with whatever samples it has; open within the body.

    Raises:
        ImageError: the file is gone, empty, damaged or too large; also for what fails in the body.
    """
    try:
        file = Path(path)
        status = file.stat()
        if not S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size == 0:
            raise ImageError("an empty file")
        # What Pillow warns of (large images, odd metadata) it can still read.
        # Given a path, Pillow 13 maps uncompressed TIFFs into memory and garbles those that are to be turned.
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
    except Exception as error:  # on damaged files Pillow's decoders raise nearly every kind of exception
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def _open_at_once(path: str, flags: int) -> int:
    """Opens a pipe as well, which a file may have become meanwhile, instead of waiting for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_16_bit(image: Image.Image) -> bool:
    """Whether the samples are 16-bit gray, 0…65535. Before Pillow 11 a 16-bit PNG, and still a 16-bit PGM, comes as mode
    "I"."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def to_gray16(image: Image.Image) -> np.ndarray:
    """The (H, W) samples of an image that `is_16_bit`: 0 for black to 65535 for white."""
    samples = np.asarray(image).astype(np.uint32)
    if isinstance(image, TiffImageFile):  # of which Pillow tells neither the scanners' 12 bits nor negatives
        brightest = (1 << image.tag_v2[BITSPERSAMPLE][0]) - 1
        samples = (samples * 65535 + brightest // 2) // brightest
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            samples = 65535 - samples
    return samples


def check_bit_depth(image: Image.Image) -> None:
    """Raises ImageError for samples without a defined range."""
    if image.mode in ("I", "F"):
        raise ImageError("32-bit or signed samples, whose white is not defined; save it with 8 or 16 bits, unsigned")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """`image` with 8-bit samples and nothing transparent; what is so already is returned as it is."""
    if is_16_bit(image):
        return Image.fromarray(((to_gray16(image) + 128) // 257).astype(np.uint8))
    check_bit_depth(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white
    return image
