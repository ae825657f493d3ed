"""Readers of array formats: NumPy, DICOM through pydicom, and JPEG 2000 through imagecodecs."""

import logging
import struct
import zipfile
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from data.image_array import FileInfo, ImageArray, ImageError, check_dtype, check_size, clean_samples

MAX_ZIP_RATIO = 1100  # of deflate: 1032
_JP2_START, _CODESTREAM_START = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_DEFLATED_DICOM = b"1.2.840.10008.1.2.1.99"

# pydicom logs warnings about unusual files. Without a handler, Python prints them.
logging.getLogger("pydicom").addHandler(logging.NullHandler())


def read_npy(file: BinaryIO, max_pixels: int) -> ImageArray:
    """Read a `.npy` array (H, W) or (H, W, C), in any byte and memory order.

    Raises:
        ImageError: another shape, a header that contradicts the file, Python objects, NaN or infinite samples.
    """
    size = file.seek(0, 2)
    file.seek(0)
    return _read_npy_stream(file, size, max_pixels, FileInfo("NPY"))


def read_npz(file: BinaryIO, max_pixels: int) -> ImageArray:
    """Read a `.npz` archive with exactly one array; see `read_npy`."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(names) != 1:
            shown = ", ".join(names[:3])[:100]
            raise ImageError(f"{len(names)} arrays ({shown}), expected one. Save one image per .npz file")
        name = names[0].removesuffix(".npy")
        if name == names[0]:
            raise ImageError("a ZIP archive without a NumPy array")
        declared = min(members[0].file_size, size * MAX_ZIP_RATIO)
        with archive.open(members[0]) as stream:
            return _read_npy_stream(stream, declared, max_pixels, FileInfo("NPZ", array_name=name))


def _read_npy_stream(stream: IO[bytes], stream_bytes: int, max_pixels: int, info: FileInfo) -> ImageArray:
    """Read an array whose header and samples take `stream_bytes` bytes. The header is checked before memory is allocated."""
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    version = npy_format.read_magic(stream)
    if version not in readers:  # 3.0 is for field names of structured samples
        raise ImageError(f"NumPy format {'.'.join(map(str, version))}, expected 1.0 or 2.0 with plain samples")
    try:
        shape, is_fortran, dtype = readers[version](stream)
    except Exception as error:  # the header is parsed as Python
        raise ImageError("damaged: its NumPy header cannot be read") from error
    check_dtype(dtype)
    if len(shape) not in (2, 3):
        raise ImageError(f"an array of shape {shape}, expected (H, W) or (H, W, C)"[:200])
    height, width, bands = (*shape, 1)[:3]
    if min(shape) < 1:
        raise ImageError(f"an array of shape {shape}, which is no image"[:200])
    if bands > 16 >= height and height < min(width, bands):
        raise ImageError(f"an array of shape {shape}, which looks like (C, H, W). Save it as (H, W, C)")
    check_size(height, width, bands * dtype.itemsize, max_pixels)
    wanted = height * width * bands * dtype.itemsize
    if wanted > stream_bytes:
        raise ImageError(f"truncated: {wanted} bytes declared, at most {stream_bytes} present")
    content = stream.read(wanted)
    if len(content) < wanted:
        raise ImageError(f"truncated: {wanted} bytes declared, {len(content)} present")
    pixels = np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
    has_band_axis = len(shape) == 3
    info = FileInfo(info.format, has_band_axis=has_band_axis, array_name=info.array_name)
    return ImageArray(clean_samples(pixels.reshape(height, width, bands)), info=info)


def read_dicom(file: BinaryIO, max_pixels: int) -> ImageArray:
    """Read a DICOM image of one slice, its rescale slope and intercept applied: Hounsfield units for a CT.

    Whole numbers become int16 (or int32), others float32. Without a rescale the stored dtype is kept. MONOCHROME1, in
    which 0 is white, is inverted.

    Raises:
        ImageError: pydicom or a decoder is missing, several frames, a damaged file.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_rescale
    except ImportError:
        raise ImageError("a DICOM file: pip install 'pydicom>=3'") from None
    file_bytes = file.seek(0, 2)
    file.seek(0)
    if _DEFLATED_DICOM in file.read(1 << 16):  # pydicom would inflate all of it
        raise ImageError("a deflated DICOM file is not supported")
    file.seek(0)
    dataset = pydicom.dcmread(file)
    if "PixelData" not in dataset and "FloatPixelData" not in dataset:
        raise ImageError("a DICOM file without an image")
    frames, bands = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    if frames != 1:
        raise ImageError(f"a DICOM file of {frames} frames, expected one")
    height, width = int(dataset.Rows), int(dataset.Columns)
    check_size(height, width, bands * max(1, int(dataset.BitsAllocated) // 8), max_pixels, file_bytes)
    try:
        stored = dataset.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        name = dataset.file_meta.TransferSyntaxUID.name
        raise ImageError(f"{name}: pip install pylibjpeg[all], or the file is damaged") from error
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        lowest = -(1 << (int(dataset.BitsStored) - 1)) if dataset.PixelRepresentation else 0
        stored = (2 * lowest + (1 << int(dataset.BitsStored)) - 1 - stored.astype(np.int64)).astype(stored.dtype)
    pixels = _smallest_exact(apply_rescale(stored, dataset), stored.dtype)
    return ImageArray(clean_samples(pixels.reshape(height, width, bands)), info=FileInfo("DICOM"))


def _smallest_exact(values: np.ndarray, stored: np.dtype) -> np.ndarray:
    """Return rescaled values in `stored`, if they have not changed type, else in int16, int32 or float32."""
    if values.dtype == stored:
        return values
    if np.isfinite(values).all() and (values == np.rint(values)).all():
        for dtype in (np.int16, np.int32):
            limits = np.iinfo(dtype)
            if limits.min <= values.min() and values.max() <= limits.max:
                return values.astype(dtype)
    return values.astype(np.float32)


def is_jpeg2000(head: bytes) -> bool:
    """Return True if a file that starts with `head` is a JPEG 2000 image, with or without the JP2 container."""
    return head.startswith((_JP2_START, _CODESTREAM_START))


def read_jpeg2000(file: BinaryIO, max_pixels: int) -> ImageArray:
    """Read a JPEG 2000 image of any band count, its samples as stored: satellite data use part of 16 bits.

    Raises:
        ImageError: imagecodecs is missing, a damaged file.
    """
    try:
        from imagecodecs import jpeg2k_decode
    except ImportError:
        raise ImageError("a JPEG 2000 image: pip install imagecodecs") from None
    content = _codestream(file.read())
    if len(content) < 42 or not content.startswith(_CODESTREAM_START):
        raise ImageError("damaged: a JPEG 2000 file without an image")
    right, bottom, left, top = struct.unpack(">4I", content[8:24])  # of the SIZ marker segment, ISO 15444-1 A.5.1
    (bands,) = struct.unpack(">H", content[40:42])
    height, width = bottom - top, right - left
    check_size(height, width, bands * 4, max_pixels, len(content))  # decoders compute in 32 bits
    pixels = jpeg2k_decode(content)
    if pixels.size != height * width * bands:
        raise ImageError("bands of different sizes")
    return ImageArray(clean_samples(pixels.reshape(height, width, bands)), info=FileInfo("JPEG2000"))


def _codestream(content: bytes) -> bytes:
    """Return the first codestream of a JP2 file (ISO 15444-1, annex I), or `content` if it is one."""
    at = 0
    while not content.startswith(_CODESTREAM_START) and at + 16 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        header = 8
        if length == 1:
            (length,), header = struct.unpack(">Q", content[at + 8 : at + 16]), 16
        if kind == b"jp2c":
            return content[at + header : at + length if length else None]
        if length < header:
            break
        at += length
    return content
