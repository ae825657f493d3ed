"""Image files of all formats are decoded to 8-bit RGB, or refused with a reason."""

import os
from pathlib import Path

import numpy as np
import pytest
from image_factory import noise
from image_files import BLACK_IS_ZERO, RGB, WHITE_IS_ZERO, png_16, tiff
from PIL import Image

from data.image_io import EXTENSIONS, ImageError, read_image

ORIENTATION = 0x0112


def read(path: Path) -> np.ndarray:
    return np.asarray(read_image(str(path)))


# Of the others, test_image_arrays.py writes files with the libraries that can.
PILLOW_EXTENSIONS = sorted(set(EXTENSIONS) & set(Image.registered_extensions()) - {".pgm"})


@pytest.mark.parametrize("extension", PILLOW_EXTENSIONS)
def test_every_extension(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{extension.upper()}"
    noise(24, 16).save(path)
    assert read(path).shape == (16, 24, 3)


@pytest.mark.parametrize("extension", [".png", ".webp", ".tif"])
def test_lossless_pixels_are_unchanged(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{extension}"
    noise(24, 16).save(path, lossless=True)
    np.testing.assert_array_equal(read(path), np.asarray(noise(24, 16)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_exif_orientation(extension: str, mode: str, tmp_path: Path) -> None:
    samples = np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 100
    image = Image.fromarray(samples) if mode == "I;16" else noise(24, 16).convert(mode)
    upright, turned = tmp_path / f"upright{extension}", tmp_path / f"turned{extension}"
    image.save(upright)
    exif = image.getexif()
    exif[ORIENTATION] = 6  # rotate by 90 degrees clockwise
    image.save(turned, exif=exif)
    np.testing.assert_array_equal(read(turned), np.rot90(read(upright), -1))


@pytest.mark.parametrize("extension", [".png", ".tif", ".pgm"])
def test_16_bits_are_scaled(extension: str, tmp_path: Path) -> None:
    samples = np.linspace(0, 65535, 24 * 16).round().astype(np.uint16).reshape(16, 24)
    path = tmp_path / f"image{extension}"
    if extension == ".pgm":
        path.write_bytes(b"P5 24 16 65535\n" + samples.astype(">u2").tobytes())
    else:
        Image.fromarray(samples).save(path)
    expected = np.round(samples / 257).astype(np.uint8)
    np.testing.assert_array_equal(read(path), np.stack([expected] * 3, 2))


def test_colors_of_16_bits_are_scaled(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype("<u2")
    for name, content in {
        "image.png": png_16(samples),
        "image.tif": tiff(samples.tobytes(), (5, 6), 16, RGB, 3),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert abs(read(tmp_path / name) - samples / 257).max() <= 1


def test_12_bits_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(bytes.fromhex("000 7ff 800 fff".replace(" ", "")) * 2, (4, 2), 12, BLACK_IS_ZERO))
    assert read(path)[:, :, 0].tolist() == [[0, 127, 128, 255]] * 2


@pytest.mark.parametrize("bits", [8, 16])
def test_negatives_are_inverted(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "negative.tif"
    samples = np.array([[0, 1, 2 ** (bits - 1), 2**bits - 1]], dtype=f"<u{bits // 8}")
    path.write_bytes(tiff(samples.tobytes(), (4, 1), bits, WHITE_IS_ZERO))
    assert read(path)[0, :, 0].tolist() == [255, 254 if bits == 8 else 255, 127, 0]


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int16])
def test_samples_without_a_defined_range_are_refused(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    if kind is np.int16:
        path.write_bytes(tiff(np.arange(-4, 4, dtype="<i2").tobytes(), (4, 2), 16, BLACK_IS_ZERO, is_signed=True))
    else:
        Image.fromarray(np.zeros((8, 8), kind)).save(path)
    with pytest.raises(ImageError, match="black and white are not defined"):
        read(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_images_are_composited_on_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (40, 40, 40, 255))
    image.paste((40, 40, 40, 0), (0, 0, 4, 8))
    image.convert(mode).save(tmp_path / "image.png")
    pixels = read(tmp_path / "image.png")
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 40).all()


def test_transparent_palette_entry(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 4, 8))
    image.save(tmp_path / "image.png", transparency=0)
    pixels = read(tmp_path / "image.png")
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[0, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "name"), [("1", "bits.png"), ("L", "gray.png"), ("P", "palette.gif"), ("CMYK", "print.jpg")]
)
def test_other_modes_are_converted_like_pillow(mode: str, name: str, tmp_path: Path) -> None:
    noise(16, 16).convert(mode).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), np.asarray(Image.open(tmp_path / name).convert("RGB")))


@pytest.mark.parametrize("extension", [".gif", ".webp", ".png"])
def test_first_frame_of_an_animation(extension: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("black", "red")]
    path = tmp_path / f"animation{extension}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert not read(path).any()


def test_the_content_determines_the_format(tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.jpg")
    np.testing.assert_array_equal(read(tmp_path / "image.jpg"), np.asarray(noise(8, 8)))


def test_damaged_files_have_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    noise(64, 64).save(path)
    whole = path.read_bytes()
    for content, reason in [
        (b"", "an empty file"),
        (whole[:-200], "truncated"),
        (b"no image at all", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image of a known format"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ImageError, match=reason):
            read(path)
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        read(path)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read(tmp_path / "image.png")


@pytest.mark.timeout(60)
def test_a_file_replaced_by_a_pipe_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(8, 8).save(tmp_path / "whole.png")
    regular = (tmp_path / "whole.png").stat()
    os.mkfifo(tmp_path / "image.png")
    monkeypatch.setattr(Path, "stat", lambda path: regular)
    with pytest.raises(ImageError, match="not an image"):
        read_image(str(tmp_path / "image.png"))


def test_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"P6 20000 10000 255\n" + bytes(1000))
    with pytest.raises(ImageError, match="exceeds limit"):
        read(path)
