"""Images of every kind of file are read without loss, upright, or refused with a reason, and written back alike."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from array_files import color_png16, noise, png
from PIL import Image

from data import image_io
from data.image_array import FileInfo, ImageArray, ImageError, transpose_by_orientation
from data.image_io import EXTENSIONS, READ_ONLY, READERS, image_pages, open_exif_transposed, read_array, read_image
from data.image_writer import WRITERS, derive, output_format, write_array

ORIENTATION = 0x0112


def run_python(program: str, folder: Path, *arguments: str) -> str:
    """Return what a program prints that runs in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, *arguments]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert not finished.stderr, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tif", "a.ppm", "without ending"])
def test_8_bit_rgb_is_what_pillow_reads(name: str, tmp_path: Path) -> None:
    pixels = noise(16, 24, 3)
    Image.fromarray(pixels).save(tmp_path / name, format=None if "." in name else "PNG", lossless=True)
    path = str(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(read_image(path)), pixels)
    array = read_array(path)
    np.testing.assert_array_equal(array.pixels, pixels)
    assert (array.pixels.dtype, array.alpha, array.bands) == (np.uint8, None, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg", ".gif", ".webp"])
def test_array_and_image_agree(mode: str, ending: str, tmp_path: Path) -> None:
    pixels = Image.fromarray(noise(16, 20, 4))
    image = Image.fromarray(noise(16, 20, 1, np.uint16)[:, :, 0]) if mode == "I;16" else pixels.convert(mode)
    path = tmp_path / f"image{ending}"
    try:
        image.save(path)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"{ending} holds no {mode}")
    as_rgb = np.asarray(read_image(str(path)))
    flat = read_array(str(path)).with_channels(3)
    if flat.dtype == np.uint16:
        flat = np.round(flat / 257)
    np.testing.assert_array_equal(flat, as_rgb)
    gray = read_array(str(path)).with_channels(1)
    if gray.dtype == np.uint8:
        np.testing.assert_array_equal(gray[:, :, 0], np.asarray(read_image(str(path)).convert("L")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["rgb.png", "rgb.tif", "deep.png", "deep.tif", "color16.png"])
def test_exif_orientation(kind: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / kind
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if kind == "color16.png":
        pixels = noise(4, 6, 3, np.uint16)
        path.write_bytes(color_png16(pixels, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    else:
        pixels = noise(4, 6, 1, np.uint16) if "deep" in kind else noise(4, 6, 3)
        Image.fromarray(pixels.squeeze()).save(path, exif=exif)
    expected = transpose_by_orientation(pixels, orientation)
    np.testing.assert_array_equal(read_array(str(path)).pixels, expected)
    if pixels.dtype == np.uint8:
        np.testing.assert_array_equal(np.asarray(read_image(str(path))), expected)
        with open_exif_transposed(str(path)) as image:
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_alpha_of_0_everywhere_is_ignored(tmp_path: Path) -> None:
    pixels = noise(8, 8, 4)
    pixels[:, :, 3] = 0
    path = str(tmp_path / "render.png")
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(np.asarray(read_image(path)), pixels[:, :, :3])
    np.testing.assert_array_equal(read_array(path).with_channels(3), pixels[:, :, :3])
    deep = noise(8, 8, 4, np.uint16)
    deep[:, :, 3] = 0
    np.testing.assert_array_equal(ImageArray(deep[:, :, :3], deep[:, :, 3]).with_channels(3), deep[:, :, :3])
    pixels[0, 0, 3] = 255
    Image.fromarray(pixels).save(path)
    assert (np.asarray(read_image(path))[1:] == 255).all()


def test_deep_alpha_is_composited_over_white(tmp_path: Path) -> None:
    pixels = noise(8, 8, 4, np.uint16)
    (tmp_path / "image.png").write_bytes(color_png16(pixels))
    array = read_array(str(tmp_path / "image.png"))
    alpha = pixels[:, :, 3:] / 65535
    expected = pixels[:, :, :3] * alpha + 65535 * (1 - alpha)
    assert abs(array.with_channels(3) - expected).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(array.with_channels(4), pixels)


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_16_bit_colors_of_a_png(bands: int, tmp_path: Path) -> None:
    pixels = noise(5, 7, bands, np.uint16)
    (tmp_path / "image.png").write_bytes(color_png16(pixels))
    array = read_array(str(tmp_path / "image.png"))
    whole = array.pixels if array.alpha is None else np.dstack([array.pixels, array.alpha])
    np.testing.assert_array_equal(whole, pixels)
    assert whole.dtype == np.uint16


def test_another_band_count_is_named() -> None:
    with pytest.raises(ImageError, match=r"^has 4 bands, expected 3$"):
        ImageArray(noise(4, 4, 4)).with_channels(3)
    pages = ImageArray(noise(4, 4, 1), info=FileInfo("TIFF", pages=5))
    with pytest.raises(ImageError, match=r"^has 1 band in each of 5 pages, expected 4$"):
        pages.with_channels(4)
    with pytest.raises(ImageError, match=r"^has 1 band in each of 5 pages, expected 5\. Use --tiff_pages bands$"):
        pages.with_channels(5)


@pytest.mark.parametrize("ending", [".avif", ".heic"])
def test_camera_formats(ending: str, tmp_path: Path) -> None:
    pixels = np.full((32, 48, 3), (200, 100, 50), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    if ending == ".heic":
        pytest.importorskip("pillow_heif")
    write_array(ImageArray(pixels), tmp_path / f"image{ending}")
    (tmp_path / f"image{ending}").rename(tmp_path / "image.jpg")  # content decides
    array = read_array(str(tmp_path / "image.jpg"))
    assert array.pixels.shape == (32, 48, 3)
    assert abs(array.pixels.astype(int) - pixels).max() < 8
    np.testing.assert_array_equal(np.asarray(read_image(str(tmp_path / "image.jpg"))), array.pixels)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    write_array(ImageArray(noise(4, 4, 5)), tmp_path / "bands.tif")
    tifffile.imwrite(
        tmp_path / "lzw.tif", noise(4, 4, 2), photometric="minisblack", planarconfig="contig", compression="lzw"
    )
    (tmp_path / "color16.png").write_bytes(color_png16(noise(4, 4, 3, np.uint16)))
    (tmp_path / "image.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(200))
    (tmp_path / "slice.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    # data.image_io is imported first: it needs none of them.
    program = """
import sys
from data.image_io import ImageError, read_array
import data.image_writer
assert not {"tifffile", "pydicom", "pillow_heif", "imagecodecs"} & set(sys.modules)
for module, name in zip(sys.argv[1::2], sys.argv[2::2]):
    sys.modules[module] = None
    try:
        read_array(name)
    except ImageError as error:
        print(error)
"""
    cases = {
        "imagecodecs color16.png": "a PNG with 16-bit colors: pip install imagecodecs",
        "imagecodecs lzw.tif": "compression LZW or its predictor: pip install imagecodecs",
        "tifffile bands.tif": "a TIFF that only tifffile can read: pip install tifffile imagecodecs",
        "pillow_heif image.heic": "a HEIC image: pip install pillow-heif",
        "pydicom slice.dcm": "a DICOM file: pip install 'pydicom>=3'",
    }
    finished = run_python(program, tmp_path, *" ".join(cases).split())
    assert finished.splitlines() == list(cases.values())


def test_broken_files_have_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(noise(64, 64, 3)).save(path)
    whole = path.read_bytes()
    for content, reason in [
        (b"", "an empty file"),
        (whole[:-200], "truncated"),
        (b"no image at all", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image of a known format"),
        (b"II*\0" + bytes(100), "."),
        (b"II*\0", "."),
        (b"PK\3\4" + bytes(100), "."),
        (b"\x93NUMPY", "."),
        (bytes(128) + b"DICM", "."),
        (b"\0\0\0\x18ftypheic", "."),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + bytes(100), "."),
    ]:
        path.write_bytes(content)
        for read in (read_image, read_array):
            with pytest.raises(ImageError, match=reason):
                read(str(path))
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        read_array(str(path))
    os.mkfifo(path)
    with pytest.raises(ImageError, match="not a regular file"):
        read_array(str(path))
    with pytest.raises(ImageError, match="not a regular file"):
        read_array(str(tmp_path))


@pytest.mark.timeout(60)
def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole.png").write_bytes(b"a file")
    as_it_was = (tmp_path / "whole.png").stat()
    os.mkfifo(tmp_path / "image.png")
    monkeypatch.setattr(Path, "stat", lambda path: as_it_was)
    with pytest.raises(ImageError, match="not an image"):
        read_array(str(tmp_path / "image.png"))


def test_the_limit_and_its_option_are_named(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"P6 20000 10000 255\n" + bytes(1000))
    for read in (read_image, read_array):
        with pytest.raises(ImageError, match=r"200 megapixels exceeds limit of 179\. Use --max_megapixels 200"):
            read(str(path))


def test_a_raised_limit_reads_more(tmp_path: Path) -> None:
    lines = (b"\0" + bytes(20_000 // 8)) * 10_000
    (tmp_path / "image.png").write_bytes(png(20_000, 10_000, 1, 0, lines))
    pytest.importorskip("pillow_heif")
    write_array(ImageArray(np.zeros((16, 16, 3), np.uint8)), tmp_path / "image.heic")
    program = """
from data.image_io import open_exif_transposed, read_image
print(read_image("image.heic").size)  # in a new process
with open_exif_transposed("image.png", max_pixels=200_000_000) as image:
    print(image.size)
"""
    assert run_python(program, tmp_path) == "(16, 16)\n(20000, 10000)\n"
    with pytest.raises(ImageError, match="exceeds limit"):
        read_image(str(tmp_path / "image.png"))


def test_a_lowered_limit_refuses_more(tmp_path: Path) -> None:
    for name in ("image.png", "image.tif", "image.npy"):
        write_array(ImageArray(noise(40, 30, 3)), tmp_path / name)
        with pytest.raises(ImageError, match="exceeds limit"):
            read_array(str(tmp_path / name), max_pixels=1000)


def test_every_ending_has_a_reader_and_most_a_writer() -> None:
    writable = {extension for writer in WRITERS.values() for extension in writer.extensions}
    assert set(EXTENSIONS) - writable == {suffix for name in READ_ONLY for suffix in READERS[name].extensions}
    assert image_io.READERS is READERS


LOSSLESS = [
    (name, dtype, bands)
    for dtype in (np.uint8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64)
    for bands in (1, 2, 3, 4, 5, 12)
    for name in ("a.tif", "a.npy", "a.npz", "a.png", "a.ppm")
    if name not in ("a.png", "a.ppm") or (bands in (1, 3) and dtype in (np.uint8, np.uint16))
]


@pytest.mark.parametrize(("name", "dtype", "bands"), LOSSLESS)
def test_what_is_written_is_read(name: str, dtype: type, bands: int, tmp_path: Path) -> None:
    pixels = noise(5, 7, bands, dtype)
    path = tmp_path / name
    write_array(ImageArray(pixels), path)
    array = read_array(str(path))
    np.testing.assert_array_equal(array.pixels, pixels)
    assert array.pixels.dtype == dtype
    assert array.alpha is None
    write_array(derive(array, array.pixels), tmp_path / f"again{path.suffix}")
    np.testing.assert_array_equal(read_array(str(tmp_path / f"again{path.suffix}")).pixels, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_and_profile_are_written(name: str, bands: int, dtype: type, tmp_path: Path) -> None:
    pixels, alpha = noise(5, 7, bands, dtype), noise(5, 7, 1, dtype, seed=1)[:, :, 0]
    image = ImageArray(pixels, alpha, FileInfo(icc_profile=b"a profile" * 20))
    write_array(image, tmp_path / name)
    array = read_array(str(tmp_path / name))
    np.testing.assert_array_equal(array.pixels, pixels)
    np.testing.assert_array_equal(array.alpha, alpha)
    assert array.info.icc_profile == image.info.icc_profile
    assert array.info.format == {"a.png": "PNG", "a.tif": "TIFF"}[name]


def test_a_format_that_cannot_hold_the_image_is_refused(tmp_path: Path) -> None:
    for name, image in [
        ("a.jpg", ImageArray(noise(4, 4, 3, np.uint16))),
        ("a.jpg", ImageArray(noise(4, 4, 3), noise(4, 4, 1)[:, :, 0])),
        ("a.png", ImageArray(noise(4, 4, 5))),
        ("a.png", ImageArray(noise(4, 4, 3, np.float32))),
        ("a.pgm", ImageArray(noise(4, 4, 3, np.int16))),
    ]:
        with pytest.raises(ImageError, match=r"holds .* images .* Use \.tif or \.npy"):
            write_array(image, tmp_path / name)
    with pytest.raises(ImageError, match="cannot write DICOM"):
        output_format(tmp_path / "a", FileInfo("DICOM"))
    with pytest.raises(ImageError, match=r"cannot write \.pdf"):
        output_format(tmp_path / "a.pdf", FileInfo("PNG"))
    assert output_format(tmp_path / "photo", FileInfo("JPEG")) == "JPEG"
    assert output_format(tmp_path / "photo.HEIC", FileInfo("JPEG")) == "HEIF"
    assert not any(tmp_path.iterdir())


def test_pages_of_other_files_than_tiff(tmp_path: Path) -> None:
    write_array(ImageArray(noise(4, 4, 5)), tmp_path / "a.npy")
    assert image_pages(str(tmp_path / "a.npy")) == [0]
