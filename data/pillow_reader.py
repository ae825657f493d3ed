"""Images that Pillow decodes: as PIL images, and as arrays without loss of bands or bits."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    IMAGEDESCRIPTION,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    TiffImageFile,
)

from data.image_array import (
    FileInfo,
    ImageArray,
    ImageError,
    TiffTag,
    composite_over_white,
    too_large,
    transpose_by_orientation,
)
from data.tiff_reader import GEO_TAGS, MAX_PAGES, Page, full_pages, largest_page, read_tiff, spans_pages

# Pillow would choose a decoder by content, whatever the name says, and some of its decoders start other programs.
_DECODERS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

HEAD_BYTES = 132  # first bytes of a file, from which readers recognize its format
_WEBP = 50001  # TIFF compression
_BYTE_COUNTS = (279, 325)  # TIFF: of strips, of tiles
_NEW_SUBFILE_TYPE, _WHITE_IS_ZERO, _UNSIGNED = 254, 0, 1  # TIFF
_COLOR_PNG_16 = ((16, 2), (16, 4), (16, 6))  # bit depth and color type: RGB, gray with alpha, RGBA
_ORIENTATION = ExifTags.Base.Orientation


@contextmanager
def open_with_pillow(file: BinaryIO, head: bytes, page: Page, max_pixels: int) -> Iterator[Image.Image]:
    """Open the page of a file that starts with `head`, not yet turned by its EXIF orientation.

    Raises:
        ImageError: the image is too large, or Pillow lacks a plug-in.
        UnidentifiedImageError: the format, or its kind of samples, is unknown.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and max_pixels > 2 * limit:  # Pillow raises above twice its limit, and only has this global one
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
    # Given a path, Pillow 13 maps uncompressed TIFFs into memory and garbles those that are to be turned.
    with Image.open(file, formats=_pillow_formats(head)) as image:
        if isinstance(image, TiffImageFile):
            if page == "bands" and image.tag_v2.next:
                raise UnidentifiedImageError("Pillow does not stack pages")
            _seek_page(image, page)
            if image.tag_v2.get(COMPRESSION) == _WEBP:
                raise UnidentifiedImageError("Pillow's libtiff prints errors, and rarely supports it")
            if any(0 in image.tag_v2.get(tag, ()) for tag in _BYTE_COUNTS):
                raise UnidentifiedImageError("a sparse TIFF, whose missing tiles Pillow does not fill")
        if image.width * image.height > max_pixels:
            raise too_large(image.width * image.height, max_pixels)
        yield image


def _pillow_formats(head: bytes) -> tuple[str, ...]:
    if is_avif(head):
        Image.init()
        if "AVIF" not in Image.OPEN:
            raise ImageError("an AVIF image: pip install 'Pillow>=11.3'")
        return ("AVIF",)
    if is_heif(head):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ImageError("a HEIC image: pip install pillow-heif") from None
        register_heif_opener()
        return ("HEIF",)
    return _DECODERS


def page_areas(image: TiffImageFile, limit: int = MAX_PAGES) -> dict[int, int]:
    """Return the area of each full-resolution page among the first `limit` by index; the image is then at another page.

    Raises:
        UnidentifiedImageError: Pillow does not know what samples a page has.
    """
    pages: list[tuple[int, int, int]] = []
    while len(pages) < limit:
        try:
            image.seek(len(pages))
        except SyntaxError as error:
            raise UnidentifiedImageError(str(error)) from error
        except Exception:  # the end, or damage; the pages before it are intact
            break
        pages.append((image.width, image.height, image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)))
    return full_pages(pages)


def _seek_page(image: TiffImageFile, page: Page) -> None:
    if not isinstance(page, int) and image.tag_v2.next:  # an offset: there are other pages
        page = largest_page(page_areas(image))
    if isinstance(page, int):
        try:
            image.seek(page)
        except EOFError:
            raise ImageError(f"page {page} of a file with fewer") from None


def _heif_brands(head: bytes) -> set[bytes]:
    """Return the major and compatible brands of an ISO base media file."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}


def is_avif(head: bytes) -> bool:
    """Return True if a file that starts with `head` is an AVIF image."""
    return bool(_heif_brands(head) & {b"avif", b"avis"})


def is_heif(head: bytes) -> bool:
    """Return True if a file that starts with `head` is a HEIF image; check for AVIF first, which is one."""
    return bool(_heif_brands(head) & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})


def is_color_png16(head: bytes) -> bool:
    """Return True if a file that starts with `head` is a PNG of 16-bit colors, of which Pillow keeps 8 bits."""
    return head.startswith(b"\x89PNG") and (head[24], head[25]) in _COLOR_PNG_16


def is_gray16(image: Image.Image) -> bool:
    """Return True if samples are 16-bit gray, 0…65535. A 16-bit PGM, and a PNG before Pillow 11, comes as mode "I"."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def is_color_ppm16(image: Image.Image) -> bool:
    """Return True if the file is a binary PPM of more than 8 bits, of which Pillow keeps 8."""
    return isinstance(image, PpmImageFile) and image.mode == "RGB" and _ppm_maximum(image) > 255


def _ppm_maximum(image: PpmImageFile) -> int:
    """Return the sample value of white of a PPM that Pillow has opened and not yet decoded."""
    args = image.tile[0].args if image.tile and image.tile[0].codec_name == "ppm" else None
    return int(args[1]) if isinstance(args, tuple) else 255  # otherwise the samples are taken as they are


def to_gray16(image: Image.Image) -> np.ndarray:
    """Return the (H, W) samples of an image that `is_gray16`: 0 for black to 65535 for white."""
    samples = np.asarray(image).astype(np.uint32)
    if isinstance(image, TiffImageFile):  # Pillow ignores the 12 bits of scanners and inverted samples
        white = (1 << image.tag_v2[BITSPERSAMPLE][0]) - 1
        samples = (samples * 65535 + white // 2) // white
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
            samples = 65535 - samples
    return samples


def check_bit_depth(image: Image.Image) -> None:
    """Raise ImageError for samples without a defined range."""
    if image.mode in ("I", "F"):
        raise ImageError("has 32-bit samples, whose black and white are not defined")


def from_pil(image: Image.Image) -> ImageArray:
    """Return the samples of an upright PIL image, 8-bit or 16-bit gray; palettes and CMYK become RGB.

    Raises:
        ImageError: 32-bit samples.
    """
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "L", "LA") else None
    info = FileInfo(image.format or "PNG", profile)
    if is_gray16(image):
        return ImageArray(to_gray16(image).astype(np.uint16)[:, :, None], info=info)
    check_bit_depth(image)
    is_gray = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("LA" if is_gray else "RGBA"))
        return ImageArray(np.ascontiguousarray(pixels[:, :, :-1]), np.ascontiguousarray(pixels[:, :, -1]), info)
    pixels = np.asarray(image.convert("L" if is_gray else "RGB"))
    return ImageArray(pixels.reshape(*pixels.shape[:2], -1), info=info)


def to_8_bit(image: Image.Image) -> Image.Image:
    """Return `image` with 8-bit samples and without transparency; unchanged if it already is like this."""
    if is_gray16(image):
        return Image.fromarray(gray_to_8_bit(to_gray16(image)))
    check_bit_depth(image)
    if image.has_transparency_data:
        return composite_over_white(image.convert("RGBA"))
    return image


def is_srgb(profile: bytes) -> bool:
    """Return True if a color profile says that it is sRGB; also if it cannot be read."""
    try:
        return "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return True


def to_srgb(image: Image.Image) -> Image.Image:
    """Return an 8-bit image converted from its color profile to sRGB; unchanged without a profile that can be used."""
    profile, file_format = image.info.get("icc_profile"), image.format
    if not profile or is_srgb(profile):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGB" if image.mode in ("P", "CMYK", "YCbCr", "LAB") else image.mode
        if image.mode in ("P", "PA"):
            image = image.convert(mode)
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if converted is None:
        return image
    converted.format = file_format
    return converted


def gray_to_8_bit(samples: np.ndarray) -> np.ndarray:
    """Return 0…65535 scaled to 0…255 (uint8), rounded."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def read_pillow(file: BinaryIO, page: Page, max_pixels: int, as_srgb: bool) -> ImageArray:
    """Read a file of any format that Pillow decodes, except TIFF."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    with open_with_pillow(file, head, page, max_pixels) as image:
        if is_color_png16(head):
            return _read_color_png16(file, image)
        if is_color_ppm16(image):
            assert isinstance(image, PpmImageFile)
            return _read_color_ppm16(file, image)
        ImageOps.exif_transpose(image, in_place=True)
        return from_pil(to_srgb(image) if as_srgb else image)


def _read_color_png16(file: BinaryIO, image: Image.Image) -> ImageArray:
    """Read 16-bit colors, of which Pillow keeps 8 bits. Args: image is the same file as Pillow opened it."""
    try:
        from imagecodecs import png_decode
    except ImportError:
        raise ImageError("a PNG with 16-bit colors: pip install imagecodecs") from None
    orientation = image.getexif().get(_ORIENTATION, 1)
    file.seek(0)
    pixels = transpose_by_orientation(png_decode(file.read()), orientation)
    info = FileInfo("PNG", image.info.get("icc_profile"))
    if pixels.shape[2] in (2, 4):
        return ImageArray(np.ascontiguousarray(pixels[:, :, :-1]), np.ascontiguousarray(pixels[:, :, -1]), info)
    return ImageArray(np.ascontiguousarray(pixels), info=info)


def _read_color_ppm16(file: BinaryIO, image: PpmImageFile) -> ImageArray:
    """Read colors of 9 to 16 bits, scaled to 0…65535. Args: image is the same file as Pillow opened it."""
    white, count = _ppm_maximum(image), image.width * image.height * 3
    file.seek(image.tile[0].offset)
    content = file.read(2 * count)
    if len(content) < 2 * count:
        raise ImageError(f"truncated: {len(content)} of {2 * count} bytes of samples")
    samples = np.minimum(np.frombuffer(content, ">u2"), white).astype(np.uint32)
    pixels = ((samples * 65535 + white // 2) // white).astype(np.uint16)
    return ImageArray(pixels.reshape(image.height, image.width, 3), info=FileInfo("PPM"))


def read_any_tiff(file: BinaryIO, page: Page, max_pixels: int, as_srgb: bool) -> ImageArray:
    """Read a TIFF through Pillow if that is without loss, otherwise through tifffile."""
    try:
        with open_with_pillow(file, b"", page, max_pixels) as image:
            assert isinstance(image, TiffImageFile)
            index, pages = image.tell(), 1
            if page is None:
                pages = len(page_areas(image))
                image.seek(index)
            if _is_exact(image, pages):
                tags = image.tag_v2
                geo = tuple(_geo_tag(image, code) for code in GEO_TAGS if code in tags)
                if tags.get(_ORIENTATION, 1) != 1:
                    geo = ()  # georeferencing describes the stored rows
                ImageOps.exif_transpose(image, in_place=True)
                array = from_pil(to_srgb(image) if as_srgb else image)
                return replace(array, info=replace(array.info, format="TIFF", geo_tags=geo, pages=pages))
    except UnidentifiedImageError:
        pass
    file.seek(0)
    return read_tiff(file, page, max_pixels)


def _is_exact(image: TiffImageFile, pages: int) -> bool:
    """Return True if Pillow decodes every band and every bit, and if the page is a whole image."""
    tags = image.tag_v2
    bits, samples = tags.get(BITSPERSAMPLE, (1,)), tags.get(SAMPLESPERPIXEL, 1)
    if set(tags.get(SAMPLEFORMAT, (_UNSIGNED,))) != {_UNSIGNED}:
        return False
    is_whole = not spans_pages(str(tags.get(IMAGEDESCRIPTION, "")), pages, image.width, image.height)
    if is_gray16(image):
        return samples == 1 and is_whole
    return image.mode not in ("I", "F") and max(bits) <= 8 and samples == len(image.getbands()) and is_whole


def _geo_tag(image: TiffImageFile, code: int) -> TiffTag:
    value = image.tag_v2[code]
    if not isinstance(value, str | bytes | tuple):
        value = (value,)
    return TiffTag(code, image.tag_v2.tagtype[code], len(value), value)
