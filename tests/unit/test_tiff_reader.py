"""TIFFs of any band count, type and layout, their pages and georeferencing, and ones that lie about their size."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from array_files import LONG, SHORT, WHITE_IS_ZERO, noise, raw_tiff
from PIL import Image

from data.image_array import ImageError, TiffTag
from data.image_io import image_pages, read_array, read_image
from data.image_writer import derive, write_array

tifffile = pytest.importorskip("tifffile")


def read(path: Path) -> np.ndarray:
    return read_array(str(path)).pixels


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiffs_of_any_type(dtype: str, bands: int, order: str, planar: str, tmp_path: Path) -> None:
    pixels = noise(20, 33, bands, np.dtype(dtype))
    for number, options in enumerate(({}, {"tile": (16, 32)}, {"bigtiff": True, "compression": "zlib", "rowsperstrip": 7})):
        stored, settings = pixels, {"photometric": "minisblack", "byteorder": order, **options}
        if bands == 1:
            stored = pixels[:, :, 0]
        else:
            settings["planarconfig"] = planar
            stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
        tifffile.imwrite(tmp_path / f"{number}.tif", stored, **settings)
        array = read_array(str(tmp_path / f"{number}.tif"))
        np.testing.assert_array_equal(array.pixels, pixels)
        assert array.pixels.dtype == pixels.dtype
        assert array.pixels.dtype.isnative
        assert array.info.pages == 1


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma", "jpeg"])
@pytest.mark.parametrize("bands", [3, 5])
def test_compressed_tiffs(compression: str, bands: int, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    pixels = np.full((40, 40, bands), 100, np.uint8) if compression == "jpeg" else noise(40, 40, bands, np.uint16)
    planar = {"planarconfig": "separate" if compression == "jpeg" and bands == 5 else "contig"}
    stored = pixels.transpose(2, 0, 1) if planar["planarconfig"] == "separate" else pixels
    predictor = {"predictor": True} if compression in ("lzw", "zlib", "zstd") else {}
    photometric = "minisblack" if bands == 5 else "rgb"
    tifffile.imwrite(
        tmp_path / "a.tif", stored, compression=compression, photometric=photometric, tile=(16, 16), **planar, **predictor
    )
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


def test_float_predictor(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    pixels = noise(40, 40, 2, np.float32)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, compression="zlib", predictor=True, photometric="minisblack", planarconfig="contig"
    )
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_tiffs_written_byte_by_byte(order: str, bands: int, tmp_path: Path) -> None:
    pixels = noise(5, 4, bands, np.uint16)
    content = raw_tiff(pixels.astype(order + "u2").tobytes(), 4, 5, 16, bands, order)
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


def test_negatives_and_12_bits(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2**15, 2**16 - 1]], np.uint16)
    (tmp_path / "a.tif").write_bytes(raw_tiff(values.astype("<u2").tobytes(), 4, 1, 16, _262=(SHORT, WHITE_IS_ZERO)))
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [65535, 65534, 2**15 - 1, 0]
    values = np.array([[0, 1, 2**32 - 1]], np.uint32)
    (tmp_path / "a.tif").write_bytes(raw_tiff(values.astype("<u4").tobytes(), 3, 1, 32, _262=(SHORT, WHITE_IS_ZERO)))
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [2**32 - 1, 2**32 - 2, 0]
    (tmp_path / "a.tif").write_bytes(raw_tiff(bytes.fromhex("0007ff800fff") * 2, 4, 2, 12))
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 32759, 32776, 65535]


def test_fewer_bits_than_a_byte_pair_are_scaled(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    values = np.array([[0, 1, 512, 1023]] * 2, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, bitspersample=10, photometric="minisblack")
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 64, 32800, 65535]


def test_an_intact_4_band_tiff_is_not_damaged(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        tifffile.imwrite(tmp_path / "a.tif", noise(8, 8, 4, dtype), photometric="minisblack", planarconfig="contig")
        with pytest.raises(ImageError, match=r"^has 4 bands, expected 3$"):
            read_image(str(tmp_path / "a.tif"))
        with pytest.raises(ImageError, match=r"^has 4 bands, expected 3$"):
            read_array(str(tmp_path / "a.tif")).with_channels(3)


@pytest.mark.parametrize("kind", ["unspecified", "unassalpha", "assocalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_band_of_any_meaning(kind: str, dtype: type, tmp_path: Path) -> None:
    pixels = noise(8, 8, 4, dtype)
    if kind == "assocalpha":
        pixels[:, :, 3] = np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=[kind])
    array = read_array(str(tmp_path / "a.tif"))
    assert (array.bands, array.alpha is None) == ((4, True) if kind == "unspecified" else (3, False))
    np.testing.assert_array_equal(array.with_channels(4), pixels)


def test_the_largest_page_is_read(tmp_path: Path) -> None:
    shapes = [(8, 8, 1), (24, 24, 2), (24, 24, 3), (32, 32, 4)]
    for dtype in (np.uint8, np.uint16, np.float32):
        path, pages = tmp_path / f"{np.dtype(dtype)}.tif", [noise(*shape, dtype, shape[2])[:, :, 0] for shape in shapes]
        with tifffile.TiffWriter(path) as writer:
            for number, page in enumerate(pages):
                writer.write(page, subfiletype=1 if number == 3 else 0, photometric="minisblack", metadata=None)
        array = read_array(str(path))
        np.testing.assert_array_equal(array.pixels[:, :, 0], pages[1])
        assert (array.info.pages, image_pages(str(path))) == (3, [0, 1, 2])
        for number, page in enumerate(pages):
            np.testing.assert_array_equal(read_array(str(path), page=number).pixels[:, :, 0], page)
        with pytest.raises(ImageError, match="page 4"):
            read_array(str(path), page=4)
        if dtype == np.uint8:
            np.testing.assert_array_equal(np.asarray(read_image(str(path)))[:, :, 0], pages[1])
            np.testing.assert_array_equal(np.asarray(read_image(str(path), page=2))[:, :, 0], pages[2])


def test_a_thumbnail_before_bands(tmp_path: Path) -> None:
    pixels = noise(32, 32, 5, np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(8, 8, 3, np.uint8), photometric="rgb", metadata=None)
        writer.write(pixels, photometric="minisblack", planarconfig="contig", metadata=None)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)
    assert image_pages(str(tmp_path / "a.tif")) == [0, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
def test_channels_of_microscopes(kind: str, dtype: type, tmp_path: Path) -> None:
    channels = noise(4, 16, 16, dtype)  # four channels of 16 by 16 pixels
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    tifffile.imwrite(path, channels, **{kind: True}, metadata={"axes": "CYX"}, photometric="minisblack")
    array = read_array(str(path))
    np.testing.assert_array_equal(array.pixels, channels.transpose(1, 2, 0))
    assert array.info.pages == 1
    np.testing.assert_array_equal(read_array(str(path), page=2).pixels[:, :, 0], channels[2])
    tifffile.imwrite(path, channels, **{kind: True}, metadata={"axes": "ZYX"}, photometric="minisblack")
    assert (read_array(str(path)).bands, read_array(str(path)).info.pages) == (1, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_of_tifffile_without_options(compression: str | None, dtype: type, tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.tif", noise(20, 24, 5, dtype)
    tifffile.imwrite(path, pixels, compression=compression)
    assert len(tifffile.TiffFile(path).pages) == 20  # a row each
    np.testing.assert_array_equal(read(path), pixels)
    tifffile.imwrite(path, pixels.transpose(2, 0, 1), compression=compression)
    np.testing.assert_array_equal(read(path), pixels[:, :, :1])
    with pytest.raises(ImageError, match="has 1 band in each of 5 pages, expected 5"):
        read_array(str(path)).with_channels(5)
    array = read_array(str(path), page="bands")
    np.testing.assert_array_equal(array.pixels, pixels)
    with pytest.raises(ImageError, match="has 5 bands, expected 3"):
        read_image(str(path), page="bands")
    Image.fromarray(noise(8, 8, 3, np.uint8)).save(path)
    np.testing.assert_array_equal(np.asarray(read_image(str(path), page="bands")), noise(8, 8, 3, np.uint8))


@pytest.mark.parametrize("bands", [1, 3])
def test_missing_tiles_are_zero(bands: int, tmp_path: Path) -> None:
    """GDAL does not write empty tiles."""
    pixels = noise(64, 64, bands)
    photometric = "rgb" if bands == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), photometric=photometric, tile=(32, 32))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for code in (324, 325):  # offsets and byte counts
            tag = tif.pages[0].tags[code]
            tag.overwrite([0, *tag.value[1:]])
    pixels[:32, :32] = 0
    np.testing.assert_array_equal(read_array(str(tmp_path / "a.tif")).pixels, pixels)
    np.testing.assert_array_equal(np.asarray(read_image(str(tmp_path / "a.tif"))), np.broadcast_to(pixels, (64, 64, 3)))


def test_pages_before_a_damaged_one_are_read(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.tif", noise(8, 8, 1, np.uint8)[:, :, 0]
    tifffile.imwrite(path, np.stack([pixels, pixels + 1]), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        second = tif.pages[1].offset
    content = bytearray(path.read_bytes())
    content[second + 2 : second + 60] = bytes(58)
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path)[:, :, 0], pixels)
    np.testing.assert_array_equal(np.asarray(read_image(str(path)))[:, :, 0], pixels)


def test_many_pages_take_bounded_time(tmp_path: Path) -> None:
    content = bytearray(raw_tiff(bytes(2), 1, 1, 16))
    link = 8 + 2 + 12 * 10  # to the next page
    content[link : link + 4] = struct.pack("<I", 8)  # itself
    (tmp_path / "a.tif").write_bytes(content)
    assert read(tmp_path / "a.tif").shape == (1, 1, 1)
    assert len(image_pages(str(tmp_path / "a.tif"))) == 1


GEO = (
    TiffTag(33550, 12, 3, (10.0, 10.0, 0.0)),
    TiffTag(33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0)),
    TiffTag(34264, 12, 16, tuple(float(number) for number in range(16))),
    TiffTag(34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1)),
    TiffTag(34736, 12, 2, (6378137.0, 298.25)),
    TiffTag(34737, 2, 22, "WGS 84 / UTM zone 33N|"),
    TiffTag(42112, 2, 20, "<GDALMetadata></GDALMetadata>"),
    TiffTag(42113, 2, 6, "-9999"),
)


@pytest.mark.parametrize(("dtype", "bands"), [(np.uint8, 3), (np.uint8, 1), (np.uint16, 5), (np.float32, 1)])
def test_georeferencing_is_carried_over(dtype: type, bands: int, tmp_path: Path) -> None:
    tags = [(tag.code, tag.type, tag.count, tag.value, True) for tag in GEO]
    pixels = noise(8, 8, bands, dtype)
    photometric = {"photometric": "rgb" if bands == 3 else "minisblack"}
    photometric |= {"planarconfig": "contig"} if bands > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), extratags=tags, metadata=None, **photometric)
    source = read_array(str(tmp_path / "a.tif"))
    write_array(derive(source, pixels), tmp_path / "b.tif")
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), pixels)
    for name in ("a.tif", "b.tif"):
        with tifffile.TiffFile(tmp_path / name) as tif:
            assert {tag.code: tif.pages[0].tags[tag.code].value for tag in GEO} == {tag.code: tag.value for tag in GEO}
    write_array(derive(source, pixels[:4]), tmp_path / "c.tif")
    with tifffile.TiffFile(tmp_path / "c.tif") as tif:
        assert not {tag.code for tag in GEO} & {tag.code for tag in tif.pages[0].tags}


@pytest.mark.parametrize(("dtype", "bands"), [(np.uint16, 5), (np.uint8, 3)])
def test_an_array_that_was_turned_loses_its_georeferencing(dtype: type, bands: int, tmp_path: Path) -> None:
    pixels, photometric = noise(8, 6, bands, dtype), "rgb" if bands == 3 else "minisblack"
    tags = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, planarconfig="contig", extratags=tags)
    array = read_array(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(array.pixels, np.rot90(pixels, -1))
    assert not array.info.geo_tags


def bomb(width: int, height: int, expanded: int) -> bytes:
    """Return a deflated TIFF whose strip expands to `expanded` bytes."""
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # such blocks can be repeated
    strip = start + block * (expanded >> 20)
    return raw_tiff(strip, width, height, 16, 5, _259=(SHORT, 8))


def test_tiffs_that_lie(tmp_path: Path) -> None:
    path, content = tmp_path / "a.tif", noise(8, 8, 5, np.uint16).tobytes()
    for whole, reason in [
        (raw_tiff(content, 2**31, 2**31, 16, 5), "declares"),
        (raw_tiff(content, 60_000, 60_000, 16, 5), "declares"),
        (raw_tiff(content, 8, 80, 16, 5), "."),
        (raw_tiff(content, 8, 0, 16, 5), "."),
        (raw_tiff(content, 8, 8, 16, 5, _279=(LONG, 2**31)), "truncated"),
        (raw_tiff(content, 8, 8, 16, 5, _273=(LONG, 2**31)), "truncated"),
        (raw_tiff(content, 8, 8, 16, 5, _259=(SHORT, 34712)), "compression .* is not supported"),
        (raw_tiff(content, 8, 8, 17, 5), "."),
        (raw_tiff(content, 8, 8, 16, 5, _278=(LONG, 1)), "1 of 8 strips or tiles are listed"),
        (raw_tiff(content, 8, 8, 16, 5, _277=(SHORT, 60_000)), "."),
        (raw_tiff(content, 8, 8, 16, 5, _322=(SHORT, 65520), _323=(SHORT, 65520)), "."),
        (bomb(1000, 1000, 1 << 29), "expands to more"),
        (bomb(8, 8, 1 << 27), "bytes for a tile of"),
    ]:
        path.write_bytes(whole)
        with pytest.raises(ImageError, match=reason):
            read_array(str(path))
    tifffile.imwrite(path, np.full((8, 8), np.nan, np.float32))
    with pytest.raises(ImageError, match="64 of 64 samples are NaN"):
        read_array(str(path))
    tifffile.imwrite(path, np.zeros((4, 16, 16), np.float32), volumetric=True, photometric="minisblack", tile=(4, 16, 16))
    with pytest.raises(ImageError, match="a volume of 4 slices"):
        read_array(str(path))
