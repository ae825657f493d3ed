"""Translation of images of any band count and dtype: nothing but the generator changes them."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from array_files import noise
from generators import checkpoint
from image_factory import options
from PIL import Image

from data.image_array import ImageArray
from data.image_io import read_array
from data.value_range import ValueRange
from models import Translator
from models.inference.exact_results import ExactResults
from models.inference.image_io import Job, plan_inputs, plan_jobs
from models.inference.pipeline import translate_files
from models.inference.web import to_png
from models.networks.base import Generator
from scripts.translate import build_parser, translate
from util.channel_view import ChannelView
from util.errors import UserError


class Identity(Generator):
    """A generator that returns its input."""

    size_multiple = 4
    min_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image) + 0


def identity(bands: int, **settings: object) -> Translator:
    return Translator(Identity(), input_nc=bands, device=torch.device("cpu"), **settings)


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_integer_level_comes_back(dtype: type, bands: int) -> None:
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 256, 1).repeat(bands, 2)
    np.testing.assert_array_equal(identity(bands)(levels), levels)


def test_floats_come_back_within_one_ulp_of_the_range() -> None:
    chosen = ValueRange(-1024.0, 3071.0)
    values = np.random.default_rng(0).uniform(chosen.lo, chosen.hi, (64, 64, 2)).astype(np.float32)
    result = identity(2, input_range=chosen, output_range=chosen)(values)
    assert result.dtype == np.float32
    assert np.abs(result - values).max() <= np.spacing(np.float32(chosen.hi - chosen.lo))


def test_signed_integers_come_back() -> None:
    chosen = ValueRange(-32768, 32767)
    values = np.arange(-32768, 32768, dtype=np.int16).reshape(256, 256, 1)
    np.testing.assert_array_equal(identity(1, input_range=chosen, output_range=chosen)(values), values)


@pytest.mark.parametrize(
    ("name", "dtype", "bands"),
    [
        ("a.png", np.uint8, 3),
        ("a.png", np.uint16, 3),
        ("a.tif", np.uint16, 5),
        ("a.npy", np.float32, 4),
        ("a.npz", np.int16, 1),
    ],
)
def test_files_come_back(name: str, dtype: type, bands: int, tmp_path: Path) -> None:
    from data.image_writer import write_array

    pixels = noise(24, 20, bands, dtype)
    source = tmp_path / "in" / name
    source.parent.mkdir()
    write_array(ImageArray(pixels), source)
    chosen = {np.float32: ValueRange(-8, 8), np.int16: ValueRange(-32768, 32767)}.get(dtype)
    translator = identity(bands, input_range=chosen, output_range=chosen)
    jobs = plan_jobs(str(source.parent), tmp_path / "out")
    assert translate_files(translator, jobs, 2, 1, lambda job: None) == []
    result = read_array(str(tmp_path / "out" / name))
    assert (result.pixels.dtype, result.bands, result.info.format) == (dtype, bands, read_array(str(source)).info.format)
    tolerance = np.spacing(np.float32(16)) if dtype is np.float32 else 0
    assert np.abs(result.pixels.astype(np.float64) - pixels).max() <= tolerance


def test_georeferencing_is_carried_over(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    scale = (33550, 12, 3, (10.0, 10.0, 0.0), True)
    tifffile.imwrite(
        tmp_path / "in" / "a.tif",
        noise(24, 20, 4, np.uint16),
        photometric="minisblack",
        planarconfig="contig",
        extratags=[scale],
    )
    jobs = plan_jobs(str(tmp_path / "in"), tmp_path / "out")
    assert translate_files(identity(4), jobs, 1, 1, lambda job: None) == []
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as tif:
        assert tif.pages[0].tags[33550].value == (10.0, 10.0, 0.0)


def test_unsuitable_files_are_named_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "bands.npy", noise(24, 20, 4))
    np.save(tmp_path / "in" / "float.npy", noise(24, 20, 5, np.float32))
    failures = translate_files(identity(5), plan_jobs(str(tmp_path / "in"), tmp_path / "out"), 1, 1, lambda job: None)
    assert {failure.job.source.name: failure.reason for failure in failures} == {
        "bands.npy": "has 4 bands, expected 5",
        "float.npy": "has float32 samples, whose black and white are not defined",
    }


def test_a_format_that_cannot_hold_the_result_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(24, 20, 5))
    (failure,) = translate_files(identity(5), [Job(tmp_path / "a.npy", tmp_path / "a.png")], 1, 1, lambda job: None)
    assert failure.reason.startswith("PNG holds 8- and 16-bit images of 1 or 3 bands, not uint8 of 5 bands")


def test_ranges_are_read_with_the_weights(tmp_path: Path) -> None:
    checkpoint(tmp_path, input_nc=2, output_nc=2)
    (tmp_path / "train_opt.json").write_text('{"value_range_A": "-1000,400", "value_range": "0,10", "direction": "BtoA"}')
    translator = Translator.from_checkpoint(tmp_path)
    assert (translator.input_range, translator.output_range) == (ValueRange(0, 10), ValueRange(-1000, 400))
    overridden = Translator.from_checkpoint(tmp_path, architecture={"value_range": "0,5"})
    assert (overridden.input_range, overridden.output_range) == (ValueRange(0, 5), ValueRange(0, 5))


def test_a_dtype_that_cannot_hold_the_output_range_is_changed() -> None:
    translator = identity(1, input_range=ValueRange(0, 255), output_range=ValueRange(-1000, 400))
    result = translator(np.array([[0, 255]], np.uint8).repeat(4, 0).repeat(4, 1))
    assert result.dtype == np.int16
    assert set(np.unique(result)) == {-1000, 400}


def test_a_range_of_few_levels_becomes_float() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = identity(1, input_range=ValueRange(0, 255), output_range=ValueRange(0, 1))(levels)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, levels / 255, atol=1e-6)
    labels = levels // 26
    chosen = ValueRange(0, 9)
    np.testing.assert_array_equal(identity(1, input_range=chosen, output_range=chosen)(labels), labels)


def test_a_format_for_results_with_other_bands(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(24, 20, 3)).save(tmp_path / "in/a.png")
    translator = identity(3)
    translator.output_nc = 4
    (failure,) = translate_files(translator, plan_jobs(str(tmp_path / "in"), tmp_path / "out"), 1, 1, lambda job: None)
    assert failure.reason.endswith("not uint8 of 4 bands. Use .tif or .npy, for example with --format tif")
    jobs = plan_jobs(str(tmp_path / "in"), tmp_path / "out", ".tif")
    assert translate_files(translator, jobs, 1, 1, lambda job: None) == []
    assert read_array(str(tmp_path / "out/a.tif")).info.format == "TIFF"
    Image.fromarray(noise(24, 20, 3)).save(tmp_path / "in/a.webp")
    with pytest.raises(UserError, match=r"in/a.png and .*in/a.webp have the same result .*out/a.tif"):
        plan_jobs(str(tmp_path / "in"), tmp_path / "out", ".tif")
    with pytest.raises(UserError, match=r"--format: .tif contradicts --output .*b.png"):
        plan_jobs(str(tmp_path / "in/a.png"), tmp_path / "b.png", ".tif")


def test_every_page_of_a_tiff(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pages = [noise(24, 20, 1, np.uint16, seed) for seed in range(3)]
    for number, page in enumerate(pages):
        tifffile.imwrite(tmp_path / "in/a.tif", page[:, :, 0], append=number > 0)
    (tmp_path / "in/empty.tif").touch()
    jobs = plan_inputs([str(tmp_path / "in")], tmp_path / "out", all_pages=True)
    (failure,) = translate_files(identity(1), jobs, 1, 1, lambda job: None)
    assert failure.job.source.name == "empty.tif"
    for number, page in enumerate(pages):
        np.testing.assert_array_equal(read_array(str(tmp_path / f"out/a/page_{number:04}.tif")).pixels, page)


def test_colors_are_kept_where_alpha_is_0_everywhere() -> None:
    pixels = noise(8, 8, 4)
    pixels[:, :, 3] = 0
    result = identity(3)(Image.fromarray(pixels))
    np.testing.assert_array_equal(np.asarray(result), pixels)


def test_the_app_shows_the_chosen_channels() -> None:
    bands = np.arange(5, dtype=np.uint8) * 50
    shown = Image.open(io.BytesIO(to_png(ImageArray(np.broadcast_to(bands, (4, 4, 5))), ChannelView((5, 4, 1)))))
    assert shown.getpixel((0, 0)) == (200, 150, 0)


def test_files_are_read_as_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    checkpoint(tmp_path / "run", input_nc=5, output_nc=5)
    (tmp_path / "run" / "train_opt.json").write_text('{"tiff_pages": "bands", "to_srgb": true}')
    tifffile.imwrite(tmp_path / "a.tif", noise(5, 24, 20, np.uint16), photometric="minisblack")
    known = ["--checkpoint", str(tmp_path / "run"), "--input", str(tmp_path / "a.tif"), "--gpu_ids", "-1"]
    for arguments, succeeds in ([], True), (["--tiff_pages", "largest"], False):
        output = ["--output", str(tmp_path / f"out{succeeds}")]
        assert translate(build_parser().parse_args([*known, *arguments, *output]), {}) == succeeds
    said, complained = capsys.readouterr()
    assert "as in training: --tiff_pages bands --to_srgb\n" in said and "as in training: --to_srgb\n" in said
    assert "has 1 band in each of 5 pages, expected 5. Use --tiff_pages bands" in complained
    assert read_array(str(tmp_path / "outTrue" / "a.tif")).bands == 5


def test_results_of_a_test_note_alpha_that_they_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(8, 8, 4, np.uint16), photometric="rgb", extrasamples=["unassalpha"])
    for channels, notes in ((3, 1), (4, 0)):
        exact = ExactResults(options(tmp_path, input_nc=channels, output_nc=channels))
        for _ in range(2):
            assert list(exact({"A": str(tmp_path / "a.tif")}, {"fake_B": torch.zeros(1, channels, 8, 8)})) == ["fake_B"]
        assert capsys.readouterr().out.count("its alpha is composited over white and not written") == notes


def test_images_of_a_test_keep_the_type_of_the_file_that_they_are_made_of(tmp_path: Path) -> None:
    """A is 16-bit TIFF, B is 8-bit PNG; then the other way round."""
    deep, shallow = noise(8, 8, 1, np.uint16), noise(8, 8, 3)
    tifffile.imwrite(tmp_path / "deep.tif", deep)
    Image.fromarray(shallow).save(tmp_path / "shallow.png")
    names = ("real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B")
    visuals = {name: torch.zeros(1, 3, 8, 8) for name in names}
    exact = ExactResults(options(tmp_path))
    for first, second, expected in (("deep.tif", "shallow.png", names[:3]), ("shallow.png", "deep.tif", names[3:])):
        files = exact({"A": str(tmp_path / first), "B": str(tmp_path / second)}, visuals)
        assert {name: file.suffix for name, file in files.items()} == dict.fromkeys(expected, ".tif")


def test_ranges_of_two_domains_stay_with_their_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(8, 8, 1, np.int16))
    tifffile.imwrite(tmp_path / "b.tif", noise(8, 8, 1, np.uint16))
    exact = ExactResults(options(tmp_path, input_nc=1, output_nc=1, value_range_A="-1000,1000", value_range_B="0,4095"))
    paths = {"A": str(tmp_path / "a.npy"), "B": str(tmp_path / "b.tif")}
    found = {}
    for name, file in exact(paths, {name: torch.ones(1, 1, 8, 8) for name in ("real_A", "fake_B", "real_B")}).items():
        file.write(tmp_path / f"{name}{file.suffix}")
        pixels = read_array(str(tmp_path / f"{name}{file.suffix}")).pixels
        found[name] = (file.suffix, str(pixels.dtype), int(pixels.max()))
    assert found == {
        "real_A": (".npy", "int16", 1000),
        "fake_B": (".npy", "int16", 4095),
        "real_B": (".tif", "uint16", 4095),
    }
