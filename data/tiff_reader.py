"""TIFF files through tifffile: any band count and dtype, planar or interleaved, in strips or tiles."""

import logging
import lzma
import re
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from data.image_array import (
    GDAL_NODATA,
    FileInfo,
    ImageArray,
    ImageError,
    TiffTag,
    check_dtype,
    check_size,
    clean_samples,
    transpose_by_orientation,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams, GDAL_METADATA,
# GDAL_NODATA (GeoTIFF 1.1; GDAL's own two).
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, GDAL_NODATA)
MAX_GEO_BYTES = 1 << 20  # maximum size of a tag
MAX_PAGES = 4096  # pages among which the largest is searched
MAX_LISTED_PAGES = 1 << 16
SMALL_CHUNK_BYTES = 1 << 24  # no declared tile of this size is refused
UNCHECKED_DEFLATE_BYTES = 1 << 18  # these expand to at most 258 MiB
REDUCED_OR_MASK = 0b101  # bits of NewSubfileType: an overview or a mask of another page

Page = int | Literal["bands"] | None  # of a TIFF: an index, all stacked, or the largest

_ORIENTATION = 274
_RGB, _PALETTE, _WHITE_IS_ZERO = 2, 3, 0  # PhotometricInterpretation
_ASSOCIATED_ALPHA, _ALPHA = 1, (1, 2)  # ExtraSamples
_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS = 1, 5, 7, (8, 32946), 32773
_LZMA, _ZSTD = 34925, 50000
# Others decode to a size that their own header declares.
_BOUNDED_COMPRESSIONS = (_NONE, _LZW, _JPEG, *_DEFLATE, _PACKBITS, _LZMA, _ZSTD)

# tifffile logs warnings about unusual files. Without a handler, Python prints them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read_tiff(file: BinaryIO, page: Page, max_pixels: int) -> ImageArray:
    """Read a page of a TIFF through tifffile: any band count, 8 to 64 bits, planar or not, in strips or tiles.

    Args:
        page: index of the page; "bands" to stack all of them as the bands of one image; None for the largest. Pages are
            also stacked if the metadata of ImageJ, OME or tifffile declares them parts of one image.

    Raises:
        ImageError: tifffile or a decoder is missing, the file is damaged, or its samples have no meaning as bands.
    """
    file_bytes = file.seek(0, 2)
    file.seek(0)
    with _tifffile().TiffFile(file) as tif:
        selected, count = _select_pages(tif, page)
        for one in selected:
            _check_page(one, tif, max_pixels, file_bytes)
        first = selected[0]
        check_size(first.imagelength, first.imagewidth, sum(one.nbytes for one in selected) // _area(first), max_pixels)
        arrays = [_page_samples(one) for one in selected]
        if len({(array.shape, array.dtype) for array in arrays}) > 1:
            raise ImageError("channels of different sizes or types")
        if page is None and _has_page_per_row(str(first.description), len(arrays), first.imagewidth, first.imagelength):
            pixels = np.stack([array[:, :, 0] for array in arrays])
        else:
            pixels = np.concatenate(arrays, axis=2) if len(arrays) > 1 else arrays[0]
        info = FileInfo("TIFF", icc_profile=first.iccprofile, geo_tags=_geo_tags(first), pages=count)
        return _upright(pixels, first, info)


def list_pages(file: BinaryIO) -> list[int]:
    """Return the indices of the full-resolution pages, through tifffile."""
    with _tifffile().TiffFile(file) as tif:
        return list(full_pages([(p.imagewidth, p.imagelength, int(p.subfiletype)) for p in _pages(tif, MAX_LISTED_PAGES)]))


def _tifffile() -> ModuleType:
    try:
        import tifffile
    except ImportError:
        raise ImageError("a TIFF that only tifffile can read: pip install tifffile imagecodecs") from None
    return tifffile


def full_pages(pages: list[tuple[int, int, int]]) -> dict[int, int]:
    """Return the area of each full-resolution page by index, from (width, height, NewSubfileType) of all pages."""
    areas = {index: width * height for index, (width, height, kind) in enumerate(pages) if not kind & REDUCED_OR_MASK}
    return areas or {index: width * height for index, (width, height, _) in enumerate(pages)}


def largest_page(areas: dict[int, int]) -> int:
    """Return the index of the first page with the largest area."""
    return max(areas, key=lambda index: (areas[index], -index))


def spans_pages(description: str, page_count: int, width: int, height: int) -> bool:
    """Return True if metadata declare all `page_count` pages of `width` x `height` pixels to be one image.

    ImageJ and OME write a channel per page, and so does tifffile if it is told the axes. `tifffile.imwrite` of an (H, W, C)
    array writes a row per page, unless it is told the photometric interpretation.
    """
    if page_count < 2:
        return False
    if description.startswith("ImageJ="):
        found = re.search(r"^channels=(\d{1,4})$", description, re.MULTILINE)
    elif "<OME" in description[:2000]:
        found = re.search(r'\bSizeC="(\d{1,4})"', description)
    elif '"axes": "CYX"' in description[:2000]:  # of tifffile
        found = re.match(r'\{"shape": \[(\d{1,4}), ', description)
    else:
        return _has_page_per_row(description, page_count, width, height)
    return found is not None and int(found[1]) == page_count


def _has_page_per_row(description: str, page_count: int, width: int, height: int) -> bool:
    """Return True for pages that are the rows of an (H, W, C) array: `width` is then C, `height` W."""
    found = re.match(r'\{"shape": \[(\d+), (\d+), (\d+)\]', description)
    rows_of_bands = (page_count, height, width)
    return found is not None and tuple(map(int, found.groups())) == rows_of_bands and width <= 16 < min(page_count, height)


def _select_pages(tif: "TiffFile", page: Page) -> tuple[list["TiffPage"], int]:
    """Return the pages that make up the image, and how many images there are; 1 if `page` is given."""
    if isinstance(page, int):
        try:
            return [tif.pages[page]], 1  # type: ignore[list-item]
        except IndexError:
            raise ImageError(f"page {page} of a file with {len(tif.pages)}") from None
    pages = _pages(tif)
    areas = full_pages([(one.imagewidth, one.imagelength, int(one.subfiletype)) for one in pages])
    first = pages[0]
    if page == "bands" or spans_pages(str(first.description), len(areas), first.imagewidth, first.imagelength):
        return [pages[index] for index in areas], 1
    return [pages[largest_page(areas)]], len(areas)


def _pages(tif: "TiffFile", limit: int = MAX_PAGES) -> list["TiffPage"]:
    pages: list[TiffPage] = []
    while len(pages) < limit:
        try:
            pages.append(tif.pages[len(pages)])  # type: ignore[arg-type]
        except IndexError:
            break
    if not pages:
        raise ImageError("a TIFF without an image")
    return pages


def _area(page: "TiffPage") -> int:
    return page.imagelength * page.imagewidth


def _check_page(page: "TiffPage", tif: "TiffFile", max_pixels: int, file_bytes: int) -> None:
    """Raise ImageError before memory is allocated for what a damaged or hostile page declares."""
    _, depth, height, width, _ = page.shaped
    if page.dtype is None:
        raise ImageError(f"samples of {page.bitspersample} bits are not supported")
    check_dtype(page.dtype)
    if page.nbytes < 1 or depth < 1:
        raise ImageError("no pixels")
    check_size(height, width, page.nbytes // (height * width), max_pixels, file_bytes)
    if depth > 1:
        raise ImageError(f"a volume of {depth} slices, expected one")
    if page.photometric == _PALETTE:
        raise ImageError("a palette with indices of more than 8 bits")
    if page.compression not in _BOUNDED_COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        raise ImageError(f"compression {name} is not supported. Save it with deflate, LZW or ZSTD")
    chunk_bytes = int(np.prod([int(side) for side in page.chunks], dtype=object)) * page.dtype.itemsize
    if chunk_bytes > max(2 * page.nbytes, SMALL_CHUNK_BYTES):
        raise ImageError(f"damaged: a tile of {chunk_bytes} bytes in an image of {page.nbytes}")
    segments = int(np.prod([int(side) for side in page.chunked], dtype=object))
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    if listed < segments:
        raise ImageError(f"truncated or damaged: {listed} of {segments} strips or tiles are listed")
    for offset, count in zip(page.dataoffsets[:segments], page.databytecounts[:segments], strict=False):
        if offset + count > file_bytes:
            raise ImageError("truncated: samples lie beyond the end of the file")
        if page.compression != _NONE and count > 2 * chunk_bytes + 1024:
            raise ImageError(f"damaged: {count} bytes for a tile of {chunk_bytes}")
        _check_expansion(page, tif, offset, count, chunk_bytes)


def _check_expansion(page: "TiffPage", tif: "TiffFile", offset: int, count: int, chunk_bytes: int) -> None:
    """Raise ImageError if a segment expands to more than its tile. Decoders would allocate whatever it expands to."""
    bounded: Callable[[bytes], Any]
    if page.compression in _DEFLATE and count > UNCHECKED_DEFLATE_BYTES:
        bounded = lambda data: zlib.decompressobj().decompress(data, chunk_bytes + 1)  # noqa: E731
    elif page.compression == _LZMA:
        bounded = lambda data: lzma.LZMADecompressor().decompress(data, chunk_bytes + 1)  # noqa: E731
    elif page.compression == _ZSTD:
        bounded = _bounded_zstd(chunk_bytes)
    else:
        return
    tif.filehandle.seek(offset)
    if count and len(bounded(tif.filehandle.read(count))) > chunk_bytes:
        raise ImageError(f"damaged: a tile of {chunk_bytes} bytes expands to more")


def _bounded_zstd(chunk_bytes: int) -> Callable[[bytes], Any]:
    try:
        from imagecodecs import zstd_decode
    except ImportError:
        raise ImageError("compression ZSTD: pip install imagecodecs") from None
    return lambda data: zstd_decode(data, out=chunk_bytes)  # raises if there is more


def _page_samples(page: "TiffPage") -> np.ndarray:
    """Return the (H, W, C) samples of a page in native byte order, black at 0."""
    try:
        samples = page.asarray(maxworkers=1)
    except ValueError as error:
        if "imagecodecs" in str(error):
            name = getattr(page.compression, "name", page.compression)
            raise ImageError(f"compression {name} or its predictor: pip install imagecodecs") from error
        raise
    planes, _, height, width, interleaved = page.shaped
    samples = samples.reshape(planes, height, width, interleaved)
    pixels = samples[0] if planes == 1 else np.moveaxis(samples, 0, 2).reshape(height, width, planes * interleaved)
    white = (1 << page.bitspersample) - 1
    if page.photometric == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
        pixels = white - pixels
    if pixels.dtype.kind == "u" and page.bitspersample < 8 * pixels.dtype.itemsize:  # 10 or 12 bits of 16
        full = np.iinfo(pixels.dtype).max
        pixels = ((pixels.astype(np.uint64) * full + white // 2) // white).astype(pixels.dtype)
    return clean_samples(pixels)


def _upright(pixels: np.ndarray, page: "TiffPage", info: FileInfo) -> ImageArray:
    """Return the image with rows and columns as its orientation tag says, and with alpha set apart."""
    orientation = page.tags.get(_ORIENTATION)
    if orientation is not None and orientation.value != 1:
        pixels = np.ascontiguousarray(transpose_by_orientation(pixels, orientation.value))
        info = FileInfo(info.format, info.icc_profile, pages=info.pages)  # georeferencing is that of the stored rows
    extra, is_unsigned = tuple(page.extrasamples), pixels.dtype in (np.uint8, np.uint16)
    if len(extra) != 1 or extra[0] not in _ALPHA or not is_unsigned or pixels.shape[2] not in (2, 4):
        return ImageArray(pixels, info=info)
    colors, alpha = pixels[:, :, :-1], pixels[:, :, -1]
    if extra[0] == _ASSOCIATED_ALPHA and alpha.any():
        white = int(np.iinfo(pixels.dtype).max)
        opaque = np.maximum(alpha, 1)[:, :, None].astype(np.uint64)
        colors = np.minimum((colors * np.uint64(white) + opaque // 2) // opaque, white).astype(pixels.dtype)
    return ImageArray(np.ascontiguousarray(colors), np.ascontiguousarray(alpha), info)


def _geo_tags(page: "TiffPage") -> tuple[TiffTag, ...]:
    found = [page.tags[code] for code in GEO_TAGS if code in page.tags]
    return tuple(
        TiffTag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in found if tag.valuebytecount <= MAX_GEO_BYTES
    )
