"""Image files that Pillow can read but not write."""

import struct
import zlib

import numpy as np

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # photometric interpretations of a TIFF


def png(width: int, height: int, bits: int, color_type: int, lines: bytes) -> bytes:
    """Return a PNG file. `lines` are the image rows, each after a zero byte, compressed by zlib."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def png_16(samples: np.ndarray) -> bytes:
    """Return a PNG file of 16-bit colors (H, W, 3)."""
    height, width, _ = samples.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    return png(width, height, 16, 2, zlib.compress(lines))


def tiff(
    samples: bytes, size: tuple[int, int], bits: int, photometric: int, channels: int = 1, is_signed: bool = False
) -> bytes:
    """Return an uncompressed little-endian TIFF file. `size` is (width, height), `bits` the depth of a sample."""
    width, height = size
    after = 8 + 2 + 12 * 11 + 4  # header, number of entries, entries, no further image
    bits_at, samples_at = after, after + 2 * channels
    short, long = 3, 4
    entries = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, channels, bits_at if channels > 2 else bits),
        (259, short, 1, 1),  # no compression
        (262, short, 1, photometric),
        (273, long, 1, samples_at),
        (277, short, 1, channels),
        (278, long, 1, height),  # rows in a strip
        (279, long, 1, len(samples)),
        (284, short, 1, 1),  # channels next to each other
        (339, short, 1, 2 if is_signed else 1),
    ]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    return head + struct.pack(f"<{channels}H", *[bits] * channels) + samples
