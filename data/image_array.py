"""An image of any band count and dtype as an array, with what writing it back needs."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

# Pillow refuses to decode larger images; the same limit holds for every other format and for enlarged images.
MAX_PIXELS = 178_956_970
# A decoded image has at most this many bytes per pixel of the limit: 4 float32 bands at the full size, 80 at 5% of it.
MAX_BYTES_PER_PIXEL = 16
# No format stores typical data this densely. Deflate cannot exceed 1032:1.
MAX_COMPRESSION_RATIO = 2000
SMALL_IMAGE_BYTES = 1 << 26  # small enough to decode, whatever the ratio

GDAL_NODATA = 42113  # TIFF tag: the value of samples without data, as text

# ITU-R 601-2 luma, in the fixed-point form of Pillow's convert("L").
LUMA = np.array([19595, 38470, 7471])


class ImageError(Exception):
    """An image that cannot be used, while others can. The message is the reason, without the path."""


class BandCountError(ImageError):
    """An image with another number of bands than the network has channels."""

    def __init__(self, bands: int, expected: int, pages: int = 1) -> None:
        plural, where = "s" if bands > 1 else "", f" in each of {pages} pages" if pages > 1 else ""
        #: The option that stacks the pages, if that gives the expected number.
        self.remedy = "Use --tiff_pages bands" if pages > 1 and bands * pages == expected else None
        super().__init__(f"has {bands} band{plural}{where}, expected {expected}{f'. {self.remedy}' if self.remedy else ''}")
        self.bands, self.expected = bands, expected


class UndefinedRangeError(ImageError):
    """An image of signed or floating-point samples, while no value range is set."""

    def __init__(self, dtype: np.dtype) -> None:
        super().__init__(f"has {dtype} samples, whose black and white are not defined")


@dataclass(frozen=True)
class TiffTag:
    """A tag as tifffile takes it in `extratags`: TIFF type code, count and value."""

    code: int
    type: int
    count: int
    value: object


@dataclass(frozen=True)
class FileInfo:
    """Properties of an image file that are needed to write its format again, beside the samples."""

    format: str = "PNG"  # a key of WRITERS, or DICOM, which is only read
    icc_profile: bytes | None = None
    geo_tags: tuple[TiffTag, ...] = ()  # georeferencing of a TIFF
    has_band_axis: bool = True  # .npy and .npz: shape (H, W, C) instead of (H, W)
    array_name: str = "arr_0"  # .npz: name of the array
    pages: int = 1  # full-resolution pages of a TIFF, of which one was read


@dataclass(frozen=True)
class ImageArray:
    """An image: `pixels` (H, W, C) in native byte order, and `alpha` (H, W) of the same dtype or None.

    There is alpha for uint8 and uint16 only. Alpha of other dtypes is a band.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    info: FileInfo = field(default_factory=FileInfo)

    @property
    def bands(self) -> int:
        """Number of bands, without alpha."""
        return self.pixels.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as a PIL image has them."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def valid_samples(self) -> np.ndarray:
        """Samples without GDAL's nodata value, for statistics; all samples if nothing would be left."""
        texts = [str(tag.value) for tag in self.info.geo_tags if tag.code == GDAL_NODATA]
        try:
            valid = self.pixels[self.pixels != float(texts[0])]
        except (IndexError, ValueError):  # no such tag, or no number in it
            return self.pixels
        return valid if valid.size else self.pixels

    def crop(self, box: tuple[int, int, int, int]) -> "ImageArray":
        """Return the part from (left, top) to (right, bottom), as a PIL image does."""
        left, top, right, bottom = box
        alpha = None if self.alpha is None else self.alpha[top:bottom, left:right]
        return ImageArray(self.pixels[top:bottom, left:right], alpha, self.info)

    def flattened(self) -> np.ndarray:
        """Return the (H, W, C) pixels composited over white; unchanged if there is no alpha or if it is 0 everywhere.

        Game engines write images with alpha 0 everywhere: the colors are the image.
        """
        if self.alpha is None or not self.alpha.any():
            return self.pixels
        if self.pixels.dtype == np.uint8:
            rgb = np.broadcast_to(self.pixels, (*self.pixels.shape[:2], 3))
            rgba = Image.fromarray(np.dstack([rgb, self.alpha]))
            return np.asarray(composite_over_white(rgba))[:, :, : self.bands]
        white = int(np.iinfo(self.pixels.dtype).max)
        alpha = self.alpha[:, :, None].astype(np.uint64)
        blended = (self.pixels * alpha + white * (white - alpha) + white // 2) // white
        return blended.astype(self.pixels.dtype)

    def fits(self, channels: int) -> bool:
        """Return True if `with_channels` accepts this number of channels."""
        return self.bands == channels or self.has_alpha_band(channels) or {self.bands, channels} == {1, 3}

    def has_alpha_band(self, channels: int) -> bool:
        """Return True if alpha is one of this number of channels."""
        return self.alpha is not None and self.bands + 1 == channels and channels != 3

    def with_channels(self, channels: int) -> np.ndarray:
        """Return (H, W, `channels`) pixels, as a network with so many input channels takes them.

        Gray becomes RGB and RGB becomes gray. Alpha becomes a band if that makes the count match: GDAL marks the fourth
        band of satellite images as alpha. Otherwise it is composited over white.

        Raises:
            BandCountError: another number of bands.
        """
        if self.bands == channels:
            return self.flattened()
        if self.has_alpha_band(channels):
            assert self.alpha is not None
            return np.dstack([self.pixels, self.alpha])
        if self.bands == 1 and channels == 3:
            return np.repeat(self.flattened(), 3, axis=2)
        if self.bands == 3 and channels == 1:
            return _luma(self.flattened())
        raise BandCountError(self.bands, channels, self.info.pages)


def composite_over_white(rgba: Image.Image) -> Image.Image:
    """Return an RGB `Image` of an RGBA one. Colors are used as they are if alpha is 0 everywhere."""
    if rgba.getchannel("A").getextrema() == (0, 0):
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB")


def check_size(
    height: int, width: int, bytes_per_pixel: int, max_pixels: int = MAX_PIXELS, file_bytes: int | None = None
) -> None:
    """Raise ImageError if an image is empty, larger than the limit, or impossible for a file of `file_bytes` bytes.

    Call it with the declared size before any memory is allocated.
    """
    if height < 1 or width < 1 or bytes_per_pixel < 1:
        raise ImageError(f"{width}x{height} pixels, which is no image")
    pixels, size = height * width, height * width * bytes_per_pixel
    if file_bytes is not None and size > max(SMALL_IMAGE_BYTES, file_bytes * MAX_COMPRESSION_RATIO):
        raise ImageError(f"damaged: a file of {file_bytes} bytes declares {width}x{height} pixels of {size} bytes")
    if pixels > max_pixels:
        raise too_large(pixels, max_pixels)
    if size > max_pixels * MAX_BYTES_PER_PIXEL:
        needed = -(-size // MAX_BYTES_PER_PIXEL)
        raise ImageError(
            f"{width}x{height} pixels of {bytes_per_pixel} bytes exceed limit of "
            f"{max_pixels * MAX_BYTES_PER_PIXEL / 2**30:.1f} GiB. Use --max_megapixels {-(-needed // 10**6)} if you trust it"
        )


def too_large(pixels: int, max_pixels: int) -> ImageError:
    """Return the error for an image of `pixels` pixels."""
    return ImageError(
        f"{pixels / 10**6:.0f} megapixels exceeds limit of {max_pixels / 10**6:.0f}. "
        f"Use --max_megapixels {-(-pixels // 10**6)} if you trust the file"
    )


def check_dtype(dtype: np.dtype) -> None:
    """Raise ImageError unless samples are real numbers of at most 64 bits."""
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        kind = "Python objects" if dtype.hasobject else f"of type {dtype}"
        raise ImageError(f"samples are {kind}, expected real numbers of 8 to 64 bits"[:200])


def clean_samples(pixels: np.ndarray) -> np.ndarray:
    """Return `pixels` contiguous and in native byte order; booleans become 0 and 255 (uint8).

    Raises:
        ImageError: another kind of samples, or some are NaN or infinite.
    """
    check_dtype(pixels.dtype)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    if pixels.dtype.kind == "f":
        invalid = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
        if invalid:
            raise ImageError(f"{invalid} of {pixels.size} samples are NaN or infinite. Replace them by numbers")
    return pixels


def transpose_by_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W, ...) `pixels` upright, from their EXIF or TIFF orientation 1 to 8; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Return the (H, W, 1) luma of (H, W, 3) `rgb`; for uint8 that of Pillow."""
    if rgb.dtype.kind == "f":
        return (rgb @ (LUMA / 65536)).astype(rgb.dtype)[:, :, None]
    if rgb.dtype.itemsize > 2:
        return np.rint(rgb @ (LUMA / 65536)).astype(rgb.dtype)[:, :, None]
    return ((rgb.astype(np.int64) @ LUMA + 2**15) >> 16).astype(rgb.dtype)[:, :, None]
