"""Writers of images: 8-bit files through Pillow, and lossless ones of any band count and dtype."""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from data.image_array import FileInfo, ImageArray, ImageError

PNG_HEADER_BYTES = 33  # signature and IHDR
_ALPHA = "unassalpha"


@dataclass(frozen=True)
class Writer:
    """A kind of file: its endings, the first of which is the usual one, whether it holds an image, and how it is written."""

    extensions: tuple[str, ...]
    holds: Callable[[np.dtype, int, bool], bool]  # dtype, bands, if there is alpha
    write: Callable[[ImageArray, Path], None]
    content: str = "8-bit images of 1 or 3 bands"  # for messages


def write_array(image: ImageArray, path: Path, format: str | None = None) -> None:
    """Write `image` losslessly if its format is lossless, with its color profile and georeferencing.

    Wrap it in an atomic write: this one writes to `path` itself.

    Args:
        format: a key of WRITERS; by default what the ending of `path` says, or the format that `image` was read from.

    Raises:
        ImageError: the format is unknown, cannot hold the image, or a library is missing.
        OSError: the disk refuses.
    """
    format = format or output_format(path, image.info)
    check_writable(format, image.pixels.dtype, image.bands, image.alpha is not None)
    WRITERS[format].write(image, path)


def output_format(path: Path, info: FileInfo) -> str:
    """Return the key of WRITERS for a file named `path`; without an ending, the format of `info`.

    Raises:
        ImageError: the ending is not that of an image.
    """
    ending = path.suffix.lower()
    for name, writer in WRITERS.items():
        if ending in writer.extensions or (not ending and name == info.format):
            return name
    known = " ".join(extension for writer in WRITERS.values() for extension in writer.extensions)
    raise ImageError(f"cannot write {ending or info.format}. Use one of {known}")


def check_writable(format: str, dtype: np.dtype, bands: int, has_alpha: bool = False) -> None:
    """Raise ImageError if a file of `format` cannot hold such an image without loss of bands or precision."""
    if format not in WRITERS:
        raise ImageError(f"cannot write {format}. Use .tif or .npy")
    if not WRITERS[format].holds(np.dtype(dtype), bands, has_alpha):
        alpha = " and alpha" if has_alpha else ""
        raise ImageError(
            f"{format} holds {WRITERS[format].content}, not {dtype} of {bands} band{'s' if bands > 1 else ''}{alpha}. "
            "Use .tif or .npy"
        )


def derive(source: ImageArray, pixels: np.ndarray, alpha: np.ndarray | None = None) -> ImageArray:
    """Return an image of `pixels` (H, W, C) that is written as `source` was.

    The color profile is kept if the band count is, georeferencing if the size is.
    """
    info = source.info
    if pixels.shape[2] != source.bands:
        info = replace(info, icc_profile=None, has_band_axis=True)
    if pixels.shape[:2] != source.pixels.shape[:2]:
        info = replace(info, geo_tags=())
    return ImageArray(pixels, alpha, info)


def to_pil(image: ImageArray) -> Image.Image:
    """Return a PIL image: RGB, RGBA, L, LA, or I;16 for 16-bit gray."""
    pixels = image.pixels[:, :, 0] if image.bands == 1 else image.pixels
    result = Image.fromarray(np.ascontiguousarray(pixels))
    if image.alpha is not None:
        result.putalpha(Image.fromarray(np.ascontiguousarray(image.alpha)))
    if image.info.icc_profile is not None:
        result.info["icc_profile"] = image.info.icc_profile
    return result


def _holds_8_bit(dtype: np.dtype, bands: int, has_alpha: bool) -> bool:
    return dtype == np.uint8 and bands in (1, 3)


def _holds_8_bit_opaque(dtype: np.dtype, bands: int, has_alpha: bool) -> bool:
    return _holds_8_bit(dtype, bands, has_alpha) and not has_alpha


def _holds_netpbm(dtype: np.dtype, bands: int, has_alpha: bool) -> bool:
    return not has_alpha and dtype in (np.uint8, np.uint16) and bands in (1, 3)


def _holds_png(dtype: np.dtype, bands: int, has_alpha: bool) -> bool:
    return dtype in (np.uint8, np.uint16) and bands in (1, 3)


def _holds_any(dtype: np.dtype, bands: int, has_alpha: bool) -> bool:
    return True


def _pillow(format: str, **settings: object) -> Callable[[ImageArray, Path], None]:
    """Return the writer of a format through Pillow; the lossy ones at a quality whose loss does not show."""

    def write(image: ImageArray, path: Path) -> None:
        to_pil(image).save(path, format, icc_profile=image.info.icc_profile, **settings)

    return write


def _write_heif(image: ImageArray, path: Path) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ImageError("a HEIC image: pip install pillow-heif") from None
    register_heif_opener()
    _pillow("HEIF", quality=95)(image, path)


def _write_png(image: ImageArray, path: Path) -> None:
    if image.pixels.dtype == np.uint8 or (image.bands == 1 and image.alpha is None):
        _pillow("PNG")(image, path)
        return
    try:
        from imagecodecs import png_encode
    except ImportError:
        raise ImageError("a PNG with 16-bit colors: pip install imagecodecs") from None
    encoded = png_encode(_with_alpha_band(image))
    profile = b"" if image.info.icc_profile is None else _iccp_chunk(image.info.icc_profile)
    path.write_bytes(encoded[:PNG_HEADER_BYTES] + profile + encoded[PNG_HEADER_BYTES:])


def _write_netpbm(image: ImageArray, path: Path) -> None:
    if image.pixels.dtype == np.uint8 or image.bands == 1:
        _pillow("PPM")(image, path)
        return
    width, height = image.size
    path.write_bytes(f"P6\n{width} {height}\n65535\n".encode() + image.pixels.astype(">u2").tobytes())


def _iccp_chunk(profile: bytes) -> bytes:
    """Return the PNG chunk of a color profile (PNG specification, 11.3.2.3), which imagecodecs does not write."""
    body = b"iCCP" + b"ICC Profile\0\0" + zlib.compress(profile)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _write_tiff(image: ImageArray, path: Path) -> None:
    if _holds_8_bit(image.pixels.dtype, image.bands, False) and not image.info.geo_tags:
        _pillow("TIFF", compression="tiff_adobe_deflate")(image, path)
        return
    try:
        import tifffile
    except ImportError:
        raise ImageError("a TIFF of this kind: pip install tifffile") from None
    pixels = _with_alpha_band(image)
    is_rgb = image.bands == 3 and image.pixels.dtype in (np.uint8, np.uint16)
    unspecified = ["unspecified"] * (image.bands - (3 if is_rgb else 1))
    try:
        tifffile.imwrite(
            path,
            pixels[:, :, 0] if pixels.shape[2] == 1 else pixels,
            photometric="rgb" if is_rgb else "minisblack",
            planarconfig=None if pixels.shape[2] == 1 else "contig",
            extrasamples=unspecified + ([_ALPHA] if image.alpha is not None else []),
            compression="zlib",
            iccprofile=image.info.icc_profile,
            metadata=None,
            software=False,
            extratags=[(tag.code, tag.type, tag.count, tag.value, True) for tag in image.info.geo_tags],
        )
    except (TypeError, ValueError, struct.error) as error:
        raise ImageError(f"cannot write its TIFF tags: {error}") from error


def _write_npy(image: ImageArray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, _npy_array(image), allow_pickle=False)


def _write_npz(image: ImageArray, path: Path) -> None:
    name = image.info.array_name
    if not re.fullmatch(r"\w{1,64}", name) or name in ("file", "allow_pickle"):  # np.savez has arguments of these names
        name = "arr_0"
    with path.open("wb") as file:
        np.savez_compressed(file, **{name: _npy_array(image)})  # type: ignore[arg-type]


def _npy_array(image: ImageArray) -> np.ndarray:
    pixels = _with_alpha_band(image)
    return pixels if image.info.has_band_axis or pixels.shape[2] > 1 else pixels[:, :, 0]


def _with_alpha_band(image: ImageArray) -> np.ndarray:
    return np.ascontiguousarray(image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha]))


WRITERS: dict[str, Writer] = {
    "PNG": Writer((".png",), _holds_png, _write_png, "8- and 16-bit images of 1 or 3 bands"),
    "TIFF": Writer((".tif", ".tiff"), _holds_any, _write_tiff),
    "NPY": Writer((".npy",), _holds_any, _write_npy),
    "NPZ": Writer((".npz",), _holds_any, _write_npz),
    "JPEG": Writer((".jpg", ".jpeg", ".jfif", ".jpe"), _holds_8_bit_opaque, _pillow("JPEG", quality=95, subsampling=0)),
    "WEBP": Writer((".webp",), _holds_8_bit, _pillow("WEBP", quality=95)),
    "AVIF": Writer((".avif",), _holds_8_bit, _pillow("AVIF", quality=95)),
    "HEIF": Writer((".heic", ".heif", ".hif"), _holds_8_bit, _write_heif),
    "BMP": Writer((".bmp",), _holds_8_bit_opaque, _pillow("BMP")),
    "GIF": Writer((".gif",), _holds_8_bit, _pillow("GIF")),
    "PPM": Writer((".ppm", ".pgm"), _holds_netpbm, _write_netpbm, "8- and 16-bit images of 1 or 3 bands"),
}
