"""Arrays of noise, and image files written byte by byte as other programs write them."""

import struct
import zlib
from typing import Any

import numpy as np

SHORT, LONG = 3, 4
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2


def noise(height: int, width: int, bands: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(height, width, bands)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, (height, width, bands), dtype=dtype, endpoint=True)


def png(width: int, height: int, bits: int, color_type: int, lines: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file. Args: lines are those of the image, each after a byte 0."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def color_png16(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    height, width, bands = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    return png(width, height, 16, {2: 4, 3: 2, 4: 6}[bands], lines, *chunks)


def raw_tiff(
    samples: bytes, width: int, height: int, bits: int, bands: int = 1, order: str = "<", **tags: tuple[int, int]
) -> bytes:
    """Return an uncompressed TIFF of one strip. Args: tags are `_<code>=(type, value)`, beside or instead of the usual."""
    after_header = 8
    entries = {
        256: (LONG, width),
        257: (LONG, height),
        258: (SHORT, bits),
        259: (SHORT, 1),
        262: (SHORT, BLACK_IS_ZERO),
        273: (LONG, 0),
        277: (SHORT, bands),
        278: (LONG, height),
        279: (LONG, len(samples)),
        284: (SHORT, 1),
        **{int(name[1:]): tag for name, tag in tags.items()},
    }
    bits_at = after_header + 2 + 12 * len(entries) + 4
    table = b""
    for code, (kind, value) in sorted(entries.items()):
        count = 1
        if code == 258 and bands > 2:
            count, value = bands, bits_at
        elif code == 258 and bands == 2:
            count, value = 2, 0
        if code == 273 and not value:
            value = bits_at + 2 * bands
        field = struct.pack(order + "HH", bits, bits) if code == 258 and bands == 2 else None
        field = field or (
            struct.pack(order + "HH", value, 0) if kind == SHORT and count == 1 else struct.pack(order + "I", value)
        )
        table += struct.pack(order + "HHI", code, kind, count) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, after_header, len(entries))
    return head + table + bytes(4) + struct.pack(f"{order}{bands}H", *[bits] * bands) + samples
