"""Images of any band count and dtype through datasets, loader and cache, in their full precision."""

import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from array_files import noise
from image_factory import options, two_domains
from PIL import Image, ImageCms

from data import create_dataset
from data.eval_data import EvalDataset
from data.image_io import read_array
from data.loader import Batch
from data.pillow_reader import is_srgb
from data.value_range import ValueRange
from options import TrainOptions
from util.errors import UserError


def write(folder: Path, images: list[np.ndarray]) -> None:
    """Write (H, W, C) images as .npy, or as .tif if they have integers, alternately."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(images):
        if pixels.dtype.kind == "f" or number % 2:
            np.save(folder / f"{number}.npy", pixels)
        else:
            layout = {"planarconfig": "contig"} if pixels.shape[2] > 1 else {}
            tifffile.imwrite(folder / f"{number}.tif", pixels, photometric="minisblack", **layout)


def dataset(root: Path, bands: int, dtype: type, count: int = 3) -> Path:
    for number, domain in enumerate("AB"):
        write(root / f"train{domain}", [noise(24, 20, bands, dtype, seed=10 * number + i) for i in range(count)])
    return root


def batches(opt: Namespace) -> list[Batch]:
    loader = create_dataset(opt)
    loader.set_epoch(1)
    return list(loader)


@pytest.mark.parametrize("cache", [None, 1.0])
@pytest.mark.parametrize(("dtype", "value_range"), [(np.uint16, None), (np.float32, "-3,3"), (np.int16, "-32768,32767")])
def test_pixels_arrive_in_their_precision(dtype: type, value_range: str | None, cache: float | None, tmp_path: Path) -> None:
    opt = options(dataset(tmp_path, 5, dtype), preprocess="none", no_flip=True, value_range=value_range, cache=cache)
    chosen = ValueRange.parse(value_range) if value_range else ValueRange(0, 65535)
    for batch in batches(opt):
        assert opt.input_nc == opt.output_nc == 5
        path = Path(batch["A_paths"][0])
        stored = np.load(path) if path.suffix == ".npy" else tifffile.imread(path)
        expected = chosen.normalize(stored.transpose(2, 0, 1))
        np.testing.assert_array_equal(batch["A"][0].numpy(), expected)
        assert batch["A"].dtype == torch.float32


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "scale_width_and_crop", "zoom_and_patch", "fixsize_and_trim"])
def test_every_preprocess(preprocess: str, tmp_path: Path) -> None:
    opt = options(dataset(tmp_path, 6, np.uint16), preprocess=preprocess)
    assert {tuple(batch["B"].shape) for batch in batches(opt)} == {(1, 6, 16, 16)}


def test_deep_and_8_bit_batches_differ_by_less_than_a_level(tmp_path: Path) -> None:
    root = two_domains(tmp_path / "8", n_A=3, n_B=3)
    for path in root.rglob("*.png"):
        deep = tmp_path / "16" / path.relative_to(root).with_suffix(".npy")
        deep.parent.mkdir(parents=True, exist_ok=True)
        np.save(deep, np.asarray(Image.open(path)).astype(np.uint16) * 257)
    for shallow, deep in zip(batches(options(root)), batches(options(tmp_path / "16")), strict=True):
        assert (shallow["A"] - deep["A"]).abs().max() < 1.1 * 2 / 255
        assert (shallow["A"] - deep["A"]).abs().mean() < 0.5 * 2 / 255


def test_cached_batches_are_the_same(tmp_path: Path) -> None:
    root = dataset(tmp_path, 4, np.float32)
    plain, cached = (batches(options(root, value_range="-2,2", cache=cache)) for cache in (None, 1.0))
    for one, other in zip(plain, cached, strict=True):
        assert torch.equal(one["A"], other["A"]) and torch.equal(one["B"], other["B"])


def test_another_band_count_is_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(tmp_path, 5, np.uint16)
    np.save(tmp_path / "trainA" / "9.npy", noise(24, 20, 4, np.uint16))
    loader = create_dataset(options(tmp_path))
    loader.set_epoch(1)
    list(loader)
    assert list(loader.skipped.values()) == ["has 4 bands, expected 5"]
    assert "9.npy': has 4 bands, expected 5 (1 skipped so far)" in capsys.readouterr().err


def test_the_number_of_channels_is_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = options(dataset(tmp_path, 5, np.uint16))
    create_dataset(opt)
    assert (opt.input_nc, opt.output_nc) == (5, 5)
    assert "note: --input_nc 5, the number of bands of" in capsys.readouterr().out


def test_a_number_of_channels_that_is_given_is_kept(tmp_path: Path) -> None:
    opt = options(dataset(tmp_path, 5, np.uint16), input_nc=4, explicit=frozenset(["input_nc", "output_nc"]))
    with pytest.raises(UserError, match=r"--input_nc 4: .*0.tif' has 5 bands, expected 4. Use --input_nc 5"):
        create_dataset(opt)


def test_alpha_is_a_fourth_channel_if_asked_for(tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        Image.fromarray(noise(24, 20, 4)).save(tmp_path / f"train{domain}" / "a.png")
    opt = options(tmp_path, preprocess="none", no_flip=True, input_nc=4, output_nc=4)
    expected = ValueRange(0, 255).normalize(noise(24, 20, 4).transpose(2, 0, 1))
    np.testing.assert_array_equal(batches(opt)[0]["A"][0].numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32])
def test_undefined_ranges_are_refused_with_a_proposal(dtype: type, tmp_path: Path) -> None:
    root = dataset(tmp_path, 1, dtype)
    with pytest.raises(UserError, match=r"--value_range=-?[\d.e+]+,[\d.e+]+, or --value_range=percentile:1,99") as caught:
        create_dataset(options(root))
    proposal = str(caught.value).split("--value_range=")[1].split(", or")[0]
    assert batches(options(root, value_range=proposal))


def test_percentiles_become_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = options(dataset(tmp_path, 2, np.float32), value_range="percentile:1,99", value_range_B="-5,5")
    create_dataset(opt)
    values = np.concatenate([np.load(path).ravel() for path in (tmp_path / "trainA").iterdir()])
    computed = ValueRange.parse(opt.value_range)
    assert computed.lo == pytest.approx(np.percentile(values, 1), abs=0.1)
    assert computed.hi == pytest.approx(np.percentile(values, 99), abs=0.1)
    assert opt.value_range_B == "-5,5"
    said = capsys.readouterr().out
    assert f"note: --value_range={computed}, computed from percentile:1,99 of 3 training images" in said
    assert "note: trainA: 2.0" in said and "lie outside" in said


def test_one_range_completes_the_other(tmp_path: Path) -> None:
    write(tmp_path / "trainA", [noise(24, 20, 1, np.float32)])
    write(tmp_path / "trainB", [noise(24, 20, 1, np.uint16)])
    opt = options(tmp_path, value_range_A="-3,3")
    create_dataset(opt)
    assert (opt.value_range, opt.value_range_A, opt.value_range_B) == (None, "-3,3", "0,65535")


def test_pairs_of_bands_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    pair = noise(24, 40, 5, np.uint16)
    np.save(tmp_path / "train" / "a.npy", pair)
    opt = options(
        tmp_path, dataset_mode="aligned", preprocess="none", no_flip=True, value_range_A="0,1000", value_range_B="0,60000"
    )
    (batch,) = batches(opt)
    A, B = pair[:, :20].transpose(2, 0, 1), pair[:, 20:].transpose(2, 0, 1)
    np.testing.assert_array_equal(batch["A"][0].numpy(), ValueRange(0, 1000).normalize(A))
    np.testing.assert_array_equal(batch["B"][0].numpy(), ValueRange(0, 60000).normalize(B))


def test_a_single_pair_of_images(tmp_path: Path) -> None:
    dataset(tmp_path, 5, np.uint16, count=1)
    opt = options(tmp_path, dataset_mode="singleimage", preprocess="zoom_and_patch", max_dataset_size=3)
    assert {tuple(batch["A"].shape) for batch in batches(opt)} == {(1, 5, 16, 16)}


@pytest.mark.parametrize(
    ("dtype_A", "dtype_B", "changes", "channels"),
    [
        (np.uint16, np.float32, {}, (1, 1)),
        (np.uint16, np.uint8, {}, (3, 3)),
        (np.uint16, np.uint16, {"input_nc": 3, "explicit": frozenset({"input_nc"})}, (3, 3)),
        (np.uint16, np.uint16, {"continue_train": True}, (3, 3)),
        (np.uint16, np.uint16, {"pretrained_G": "latest_net_G.pth"}, (3, 3)),
    ],
)
def test_gray_images_of_more_than_8_bits_keep_one_channel(
    dtype_A: type, dtype_B: type, changes: dict[str, object], channels: tuple[int, int], tmp_path: Path
) -> None:
    write(tmp_path / "trainA", [noise(24, 20, 1, dtype_A)])
    write(tmp_path / "trainB", [noise(24, 20, 1, dtype_B)])
    opt = options(tmp_path, value_range="0,1000", **changes)
    create_dataset(opt)
    assert (opt.input_nc, opt.output_nc) == channels


def test_nodata_is_left_out_of_ranges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        pixels = np.linspace(10, 20, 24 * 20, dtype=np.float32).reshape(24, 20)
        pixels[:, :5] = -9999
        nodata = (42113, "s", 0, "-9999", True)
        tifffile.imwrite(tmp_path / f"train{domain}" / "a.tif", pixels, photometric="minisblack", extratags=[nodata])
    with pytest.raises(UserError, match=r"have values in 10\.1\d*,20: use"):
        create_dataset(options(tmp_path))
    opt = options(tmp_path, value_range="percentile:0,100")
    create_dataset(opt)
    assert 10 < ValueRange.parse(opt.value_range).lo < 10.2
    said = capsys.readouterr().out
    assert "trainA: 1 of 1 images checked have samples of GDAL's nodata value" in said and "lie outside" not in said


def test_all_pages_are_images_if_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        with tifffile.TiffWriter(tmp_path / f"train{domain}" / "stack.tif") as writer:
            for number in range(4):
                writer.write(np.full((24, 20), 100 * number, np.uint16), photometric="minisblack")
    assert len(batches(options(tmp_path))) == 1
    assert "trainA: 1 of 1 images checked have several pages; the largest is used" in capsys.readouterr().out
    pages = batches(options(tmp_path, tiff_pages="all", input_nc=1, output_nc=1, preprocess="none"))
    assert sorted(Path(batch["A_paths"][0]).name for batch in pages) == [f"page_{number:04}" for number in range(4)]
    assert sorted(round((float(batch["A"].mean()) + 1) / 2 * 65535) for batch in pages) == [0, 100, 200, 300]
    with pytest.raises(UserError, match=r"--input_nc 4: .* Use --tiff_pages bands, or --input_nc 1\.$"):
        create_dataset(options(tmp_path, input_nc=4, output_nc=4, explicit=frozenset({"input_nc", "output_nc"})))
    (stacked,) = batches(options(tmp_path, tiff_pages="bands", preprocess="none"))  # 4 channels are taken over
    assert [round((float(band.mean()) + 1) / 2 * 65535) for band in stacked["A"][0]] == [0, 100, 200, 300]


@pytest.mark.parametrize("tiff_pages", ["all", "bands"])
def test_evaluation_in_training_reads_pages_as_training_does(tiff_pages: str, tmp_path: Path) -> None:
    nc = 4 if tiff_pages == "bands" else 1
    for domain in "AB":
        (tmp_path / f"test{domain}").mkdir()
        pages = np.broadcast_to(np.arange(4, dtype=np.uint16)[:, None, None] * 1000, (4, 16, 16))
        tifffile.imwrite(tmp_path / f"test{domain}" / "stack.tif", pages, photometric="minisblack")
    opt = options(tmp_path, tiff_pages=tiff_pages, input_nc=nc, output_nc=nc, preprocess="none")
    opt.evaluation_phase, opt.evaluation_pictures = "test", 9
    dataset = EvalDataset(opt)
    assert not any("warning" in line for line in dataset.check(needs_pairs=True))
    inputs = list(dataset.inputs())
    assert len(inputs) == len(dataset.real_images(None)) == 4 // nc
    for (image, _), target in zip(inputs, dataset.targets([name for _, name in inputs], None), strict=True):
        assert target is not None
        np.testing.assert_allclose(dataset.to_pixels(image), target, atol=1e-4)


def test_images_that_may_surprise_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "trainA", [np.full((24, 20, 1), 7, np.uint8), noise(24, 20, 1) // 80])
    write(tmp_path / "trainB", [noise(24, 20, 1, np.uint16) // 16, noise(24, 20, 1, np.uint16) // 16])
    create_dataset(options(tmp_path))
    said = capsys.readouterr().out
    assert "note: trainA: 1 of 2 images checked are constant" in said
    assert "note: trainB: 2 of 2 images checked use less than 1/8 of their range (see --value_range=0,4084)" in said
    two_domains(tmp_path / "colors")
    create_dataset(options(tmp_path / "colors"))
    assert "note" not in capsys.readouterr().out


def swapped_profile() -> bytes:
    """Return a color profile in which red is blue: sRGB with two tags exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"?").replace(b"bXYZ", b"rXYZ").replace(b"?", b"bXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def test_color_profiles_are_counted_and_converted_if_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "trainA/a.png", tmp_path / "trainB/a.tif"):
        path.parent.mkdir()
        Image.new("RGB", (24, 20), (200, 60, 20)).save(path, icc_profile=swapped_profile())
    plain = batches(options(tmp_path))[0]["A"]
    said = capsys.readouterr().out
    assert "trainA: 1 of 1 images checked have a color profile other than sRGB, ignored (--to_srgb" in said
    converted = batches(options(tmp_path, to_srgb=True))[0]
    assert "profile" not in capsys.readouterr().out
    assert float(plain[0, 0].mean()) == pytest.approx(200 / 127.5 - 1, abs=1e-5)
    for domain in "AB":
        assert float(converted[domain][0, 2].mean()) > float(converted[domain][0, 0].mean())
        array = read_array(converted[f"{domain}_paths"][0], as_srgb=True)
        assert array.pixels[0, 0, 2] > array.pixels[0, 0, 0]
        assert array.info.format == {"A": "PNG", "B": "TIFF"}[domain]
        assert array.info.icc_profile is not None
        assert is_srgb(array.info.icc_profile)
    shutil.copytree(tmp_path / "trainB", tmp_path / "testB")
    shutil.copytree(tmp_path / "trainA", tmp_path / "testA")
    opt = options(tmp_path, to_srgb=True, preprocess="none", evaluation_phase="test", evaluation_pictures=1)
    (real,) = EvalDataset(opt).real_images(None)
    expected = ((converted["B"][0, :, 0, 0] + 1) * 127.5).numpy()
    np.testing.assert_allclose(real[0, 0], expected, atol=0.01)


def test_system_folders_are_left_out_and_other_files_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_domains(tmp_path, n_A=3, n_B=2)
    for folder in ("@eaDir", "__MACOSX", "$RECYCLE.BIN", ".thumbnails"):
        (tmp_path / "trainA" / folder).mkdir()
        (tmp_path / "trainA" / folder / "x.png").write_bytes((tmp_path / "trainA" / "00.png").read_bytes())
    for name in ("a.jxl", "b.jxl", "clip.mts", "unnamed"):
        (tmp_path / "trainA" / name).write_bytes(b"something")
    assert len(create_dataset(options(tmp_path))) == 3
    said = capsys.readouterr().out
    assert "trainA: ignored files of other types: 2 .jxl, 1 .mts, 1 without an ending" in said


def test_the_limit_of_pixels_can_be_set(tmp_path: Path) -> None:
    root = two_domains(tmp_path, n_A=1, n_B=1, size=(200, 100))
    with pytest.raises(UserError, match="0 megapixels exceeds limit of 0"):
        create_dataset(options(root, max_megapixels=0.01))
    assert len(batches(options(root, max_megapixels=0.03))) == 1


def test_negative_ranges_are_values_not_options() -> None:
    opt = TrainOptions().parse(["--value_range", "-1000,400", "--value_range_A", "percentile:1,99"])
    assert (opt.value_range, opt.value_range_A) == ("-1000,400", "percentile:1,99")
    for wrong in ("5", "3,3", "2,1", "nan,1", "percentile:0,101", "a,b"):
        with pytest.raises(SystemExit):
            TrainOptions().parse(["--value_range", wrong])
