"""Arrays, TIFFs and DICOM files as other tools write them, damaged ones, and ones that lie about their size."""

import io
import random
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_files import noise
from numpy.lib import format as npy_format
from PIL import Image

from data.image_array import ImageArray, ImageError
from data.image_io import is_8_bit, read_array, read_image, read_rgb_or_array
from data.image_writer import derive, write_array

tifffile = pytest.importorskip("tifffile")


def read(path: Path) -> np.ndarray:
    return read_array(str(path)).pixels


# NumPy


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", ">i2", "<i4", ">f2", "<f4", ">f4", "<f8", "<i8", "i1"])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "transposed"])
@pytest.mark.parametrize("bands", [None, 1, 5])
def test_arrays_of_any_order(dtype: str, layout: str, bands: int | None, tmp_path: Path) -> None:
    pixels = noise(6, 7, bands or 1, np.dtype(dtype).newbyteorder("="))
    stored = (pixels if bands else pixels[:, :, 0]).astype(dtype)
    if layout == "F":
        stored = np.asfortranarray(stored)
    elif layout == "strided":
        stored = np.repeat(stored, 2, axis=0)[::2]
    elif layout == "transposed":
        stored = np.ascontiguousarray(stored.T).T
    np.save(tmp_path / "a.npy", stored)
    np.savez(tmp_path / "a.npz", image=stored)
    np.savez_compressed(tmp_path / "b.npz", stored)
    for name in ("a.npy", "a.npz", "b.npz"):
        array = read_array(str(tmp_path / name))
        np.testing.assert_array_equal(array.pixels, pixels)
        assert array.pixels.dtype == pixels.dtype
        assert array.pixels.dtype.isnative
        assert array.pixels.flags.c_contiguous
        write_array(derive(array, array.pixels), tmp_path / f"again{Path(name).suffix}")
        again = np.load(tmp_path / f"again{Path(name).suffix}")
        np.testing.assert_array_equal(again["image" if name == "a.npz" else "arr_0"] if "npz" in name else again, stored)


def test_masks_are_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(4, dtype=bool))
    np.testing.assert_array_equal(read(tmp_path / "a.npy")[:, :, 0], np.eye(4, dtype=np.uint8) * 255)


def test_8_bit_arrays_are_images(tmp_path: Path) -> None:
    pixels = noise(6, 7, 3, np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(np.asarray(read_image(str(tmp_path / "a.npy"))), pixels)
    np.save(tmp_path / "a.npy", pixels.astype(np.float32))
    with pytest.raises(ImageError, match="black and white are not defined"):
        read_image(str(tmp_path / "a.npy"))


class Hostile:
    """Would run a program if it were unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch pwned",)


def npy_bytes(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    npy_format.write_array(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def npy_header(header: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(text)) + text + content


BAD_ARRAYS = {
    "Python objects": npy_bytes(np.array([[Hostile()]], dtype=object), allow_pickle=True),
    "of type": npy_bytes(noise(4, 4, 1, np.float32)[:, :, 0].astype(complex)),
    "of type [^ ]*U3": npy_bytes(np.array([["abc"]])),
    "of type float128": npy_bytes(np.zeros((4, 4), np.longdouble)),
    r"of type \[": npy_bytes(np.zeros((4, 4), [("r", "u1"), ("g", "u1")])),
    r"shape \(5,\)": npy_bytes(np.zeros(5)),
    r"shape \(1, 2, 3, 4\)": npy_bytes(np.zeros((1, 2, 3, 4))),
    r"shape \(0, 4\)": npy_bytes(np.zeros((0, 4))),
    r"shape \(5, 64, 64\), which looks like \(C, H, W\)": npy_bytes(np.zeros((5, 64, 64), np.uint8)),
    "1 of 16 samples are NaN or infinite": npy_bytes(np.diag([np.nan, 0, 0, 0])),
    "2 of 16 samples are NaN or infinite": npy_bytes(np.diag([np.inf, 1e300, 0, -np.inf])),
    "truncated: 64 bytes": npy_bytes(np.zeros((8, 8), np.uint8))[:-1],
    r"shape \(-1, 4\)": npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4)}", bytes(64)),
    "exceeds limit": npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000)}"),
    "exceed limit of": npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000, 10000, 1000)}"),
    "400000000 bytes declared, at most": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10000, 10000)}"),
    "header cannot be read": npy_header("{'descr': '<f4'" + " " * 60000),
    "NumPy header": npy_header("(" * 9000),
    "expected 1.0 or 2.0": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", version=b"\3\0"),
}


@pytest.mark.parametrize("reason", BAD_ARRAYS)
def test_bad_arrays_are_refused(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(BAD_ARRAYS[reason])
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", BAD_ARRAYS[reason])
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ImageError, match=reason) as caught:
            read_array(str(tmp_path / name))
        assert len(str(caught.value)) <= 320
    assert not (tmp_path / "pwned").exists()


def test_archives_with_another_content(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    with pytest.raises(ImageError, match=r"2 arrays \(a.npy, b.npy\), expected one"):
        read_array(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(ImageError, match="ZIP archive without a NumPy array"):
        read_array(str(path))
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(ImageError, match="0 arrays"):
        read_array(str(path))


def test_a_name_in_an_archive_is_no_path(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("../../up.npy", npy_bytes(np.zeros((4, 4))))
    array = read_array(str(tmp_path / "a.npz"))
    write_array(array, tmp_path / "b.npz")
    assert zipfile.ZipFile(tmp_path / "b.npz").namelist() == ["arr_0.npy"]


# DICOM


def dicom(path: Path, stored: np.ndarray, **changes: Any) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = stored.dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def test_dicom_rescale_is_applied(tmp_path: Path) -> None:
    path, stored = tmp_path / "a.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6) * 100
    dicom(path, stored)
    assert read(path).dtype == np.uint16
    np.testing.assert_array_equal(read(path)[:, :, 0], stored)
    dicom(path, stored, RescaleSlope=1, RescaleIntercept=-1024)
    assert read(path).dtype == np.int16
    np.testing.assert_array_equal(read(path)[:, :, 0], stored.astype(int) - 1024)
    dicom(path, stored, RescaleSlope=0.5, RescaleIntercept=0.25)
    assert read(path).dtype == np.float32
    np.testing.assert_array_equal(read(path)[:, :, 0], stored * 0.5 + 0.25)
    dicom(path, stored, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(path)[:, :, 0], 4095 - stored)
    dicom(path, noise(4, 6, 3, np.uint8), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    np.testing.assert_array_equal(read(path), noise(4, 6, 3, np.uint8))


def test_bad_dicom_files(tmp_path: Path) -> None:
    path, stored = tmp_path / "a.dcm", np.zeros((4, 6), np.uint16)
    for changes, reason in [
        ({"NumberOfFrames": 12}, "12 frames, expected one"),
        ({"Rows": 60_000, "Columns": 60_000}, "declares"),
        ({"Rows": 400}, "."),
        ({"Rows": 0}, "."),
        ({"RescaleSlope": "1e400", "RescaleIntercept": 0}, "."),
    ]:
        try:
            dicom(path, stored, **changes)
        except (ValueError, OverflowError):
            continue
        with pytest.raises(ImageError, match=reason):
            read_array(str(path))
    dicom(path, stored)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ImageError):
        read_array(str(path))
    path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"))
    with pytest.raises(ImageError, match="deflated"):
        read_array(str(path))


# Damage


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Return a file as disks, transfers and enemies leave it."""
    content, place = bytearray(whole), rng.randrange(len(whole))
    kind = rng.randrange(6)
    if kind == 0:  # truncated
        return bytes(content[:place])
    if kind == 1:  # a few bytes changed, most often in the header
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(min(len(content), rng.choice((200, 10**9))))] = rng.randrange(256)
    elif kind == 2:  # a number at its bounds
        place = rng.randrange(min(len(content), rng.choice((200, 10**9))))
        content[place : place + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    elif kind == 3:  # a piece lost
        del content[place : place + rng.randint(1, 40)]
    elif kind == 4:  # a piece twice
        content[place:place] = content[place : place + rng.randint(1, 40)]
    else:  # a block of zeros, as after a crash
        content[place:] = bytes(len(content) - place)
    return bytes(content)


def whole_files(folder: Path) -> list[Path]:
    bands, options = noise(20, 16, 5, np.uint16), {"photometric": "minisblack", "planarconfig": "contig"}
    for name, more in {
        "plain.tif": {},
        "tiles.tif": {"tile": (16, 16), "compression": "zlib"},
        "big.tif": {"bigtiff": True, "byteorder": ">"},
        "lzma.tif": {"compression": "lzma"},
    }.items():
        tifffile.imwrite(folder / name, bands, **options, **more)
    tifffile.imwrite(folder / "planar.tif", bands.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(folder / "pages.tif", noise(4, 16, 16, np.uint16), imagej=True, metadata={"axes": "CYX"})
    np.save(folder / "a.npy", bands)
    np.savez_compressed(folder / "a.npz", bands)
    dicom(folder / "a.dcm", bands[:, :, 0])
    write_array(ImageArray(noise(20, 16, 3, np.uint16)), folder / "color16.png")
    for name in ("a.avif", "a.heic"):
        write_array(ImageArray(noise(32, 32, 3, np.uint8)), folder / name)
    Image.fromarray(bands[:, :, 0]).save(folder / "gray.tif")
    return sorted(folder.iterdir())


FUZZ = """
import random, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1] + "/unit", sys.argv[1] + "/helpers"]
from test_image_formats import damaged, whole_files
from data.image_io import ImageError, read_array, read_image
folder, count = Path(sys.argv[2]), int(sys.argv[3])
(folder / "whole").mkdir()
rng, files = random.Random(0), [path.read_bytes() for path in whole_files(folder / "whole")]
outcomes = {True: 0, False: 0}
for _ in range(count):
    (folder / "image").write_bytes(damaged(rng.choice(files), rng))
    for read in (read_array, read_image):
        try:
            read(str(folder / "image"))
            outcomes[True] += 1
        except ImageError as error:
            assert str(error)
            outcomes[False] += 1
print(*outcomes.values())
"""


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(count: int, tmp_path: Path) -> None:
    """In a process of its own, whose memory is limited, and which a decoder could crash."""
    pytest.importorskip("pillow_heif")
    pytest.importorskip("imagecodecs")
    tests = Path(__file__).parents[1]
    finished = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tests), str(tmp_path), str(count)],
        cwd=tests.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=280 if count == 1000 else 3000,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)),
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    readable, refused = map(int, finished.stdout.split())
    assert readable > count / 10
    assert refused > count / 2


@pytest.mark.parametrize("container", ["jp2", "j2k"])
@pytest.mark.parametrize(("bands", "dtype"), [(1, np.int16), (3, np.uint8), (5, np.uint16)])
def test_jpeg2000_keeps_bands_and_samples(container: str, bands: int, dtype: type, tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels, path = noise(20, 33, bands, dtype), tmp_path / f"a.{container}"
    path.write_bytes(imagecodecs.jpeg2k_encode(np.squeeze(pixels), level=0, codecformat=container))
    array = read_array(str(path))
    np.testing.assert_array_equal(array.pixels, pixels)
    assert array.pixels.dtype == pixels.dtype
    content = path.read_bytes()
    size_at = content.index(b"\xff\x4f\xff\x51") + 8
    path.write_bytes(content[:size_at] + b"\0\1\0\0" * 2 + content[size_at + 8 :])
    with pytest.raises(ImageError, match="damaged: a file of"):
        read_array(str(path))


def test_color_ppm_of_16_and_12_bits(tmp_path: Path) -> None:
    samples = np.array([[[0, 1, 4095], [4096, 65534, 65535]]], np.uint16)
    for white, expected in ((65535, samples), (4095, [[[0, 16, 65535], [65535] * 3]])):
        (tmp_path / "a.ppm").write_bytes(b"P6\n# comment\n2 1\n%d\n" % white + samples.astype(">u2").tobytes())
        np.testing.assert_array_equal(read_array(str(tmp_path / "a.ppm")).pixels, expected)
        assert not is_8_bit(str(tmp_path / "a.ppm"))
        assert isinstance(read_rgb_or_array(str(tmp_path / "a.ppm")), ImageArray)
