"""scripts/translate.py from the command line: folders, patterns, single and broken files, existing results."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from generators import checkpoint
from image_factory import fill, noise
from PIL import Image
from programs import refuse, run, succeed

from models import Translator
from models.inference.image_io import Job, pending_jobs, plan_inputs, plan_jobs
from models.inference.pipeline import Failure
from scripts.translate import describe_failures, main, scale_note
from util.errors import UserError

TRANSLATE = "scripts/translate.py"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return str(checkpoint(tmp_path / "run"))


def make_mixed_folder(folder: Path) -> dict[str, tuple[int, int]]:
    """Create a folder of many image formats, two files of them broken. Return the expected sizes of the results by name."""
    (folder / "deep" / "er").mkdir(parents=True)
    names = ["a.jpg", "a.png", "b.webp", "deep/a.bmp", "deep/er/c.tif", "deep/er/d.gif", "e.PPM", "ü f.jpeg"]
    sizes = {}
    for number, name in enumerate(names):
        sizes[name] = (5 + 7 * number, 30 - 3 * number)
        noise(*sizes[name], seed=number).save(folder / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    noise(20, 12).save(folder / "turned.jpg", exif=turned)
    alpha = noise(9, 9)
    alpha.putalpha(128)
    alpha.save(folder / "alpha.png")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(folder / "deep" / "16bit.png")
    (folder / "broken.png").write_bytes(b"not an image")
    (folder / "deep" / "empty.jpg").touch()
    return sizes | {"turned.jpg": (12, 20), "alpha.png": (9, 9), "deep/16bit.png": (8, 8)}


def test_a_folder_of_many_formats(tmp_path: Path, weights: str) -> None:
    expected = make_mixed_folder(tmp_path / "in")
    finished = run(tmp_path, TRANSLATE, "--checkpoint", weights, "--input", "in", "--output", "out", "--batch_size", "3")
    assert finished.returncode == 1
    assert finished.stdout.splitlines()[-1] == "11 of 13 images translated, 2 failed: out"
    assert sorted(line.split(":")[0] for line in finished.stderr.splitlines()) == ["in/broken.png", "in/deep/empty.jpg"]

    results = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert results.keys() == expected.keys()
    for name, path in results.items():
        with Image.open(path) as image:
            assert (image.size, image.getexif().get(0x0112, 1)) == (expected[name], 1), name
            assert image.format == Image.registered_extensions()[Path(name).suffix.lower()]
    with Image.open(results["alpha.png"]) as image:
        assert image.getchannel("A").getextrema() == (128, 128)


def test_many_failures_with_one_reason_take_a_few_lines(tmp_path: Path, weights: str) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.png").touch()
    (tmp_path / "in" / "3.png").write_bytes(b"not an image")
    finished = run(tmp_path, TRANSLATE, "--checkpoint", weights, "--input", "in", "--output", "out")
    assert finished.returncode == 1
    assert finished.stderr.splitlines() == [
        *(f"in/{number}.png: an empty file" for number in range(3)),
        "1 more of 4 files: an empty file",
        "in/3.png: not an image of a known format, or damaged at its start",
    ]
    assert finished.stdout.splitlines()[-1] == "0 of 5 images translated, 5 failed: out"
    assert list(describe_failures([Failure(Job(Path(name), Path()), "too large") for name in "abc"])) == [
        *("a: too large", "b: too large", "c: too large")
    ]


def test_existing_results_are_kept(tmp_path: Path, weights: str) -> None:
    fill(tmp_path / "in", 3)
    line = ["--checkpoint", weights, "--input", "in", "--output", "out"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00.png").write_bytes(b"mine")
    (tmp_path / "out" / "02.png").write_bytes(b"mine too")
    assert "2 of 3 results exist (out/00.png, out/02.png)" in refuse(tmp_path, TRANSLATE, *line)
    assert "1 of 3 images translated, 2 skipped" in succeed(tmp_path, TRANSLATE, *line, "--resume")
    assert (tmp_path / "out" / "00.png").read_bytes() == b"mine"
    jobs = plan_jobs(str(tmp_path / "in"), tmp_path / "out")
    assert pending_jobs(jobs, resume=False, overwrite=True) == jobs


def test_patterns_that_the_shell_expands(tmp_path: Path) -> None:
    for name in ("x/1.png", "x/2.jpg", "y/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(8, 8).save(tmp_path / "in" / name)
    expanded = sorted(str(path) for path in (tmp_path / "in").glob("*/1.png"))
    assert plan_inputs(expanded, tmp_path / "out") == plan_jobs(str(tmp_path / "in/*/1.png"), tmp_path / "out")
    assert plan_inputs([*expanded, expanded[0]], tmp_path / "out")[0].target == tmp_path / "out/x/1.png"
    folders = [str(tmp_path / "in" / name) for name in "xy"]
    with pytest.raises(UserError, match=r"x/1.png and .*y/1.png have the same result .*out/1.png"):
        plan_inputs(folders, tmp_path / "out")
    with pytest.raises(UserError, match=r"--output .*out.png: a file name, but there are 2 inputs"):
        plan_inputs(expanded, tmp_path / "out.png")


def test_several_files_are_translated(tmp_path: Path, weights: str) -> None:
    fill(tmp_path / "in", 3)
    succeed(tmp_path, TRANSLATE, "--checkpoint", weights, "--input", "in/00.png", "in/02.png", "--output", "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00.png", "02.png"]
    (tmp_path / "in" / "film.mp4").touch()
    videos = ["--input", "in/00.png", "in/film.mp4", "--output", "out"]
    assert "in/film.mp4 is a video" in refuse(tmp_path, TRANSLATE, "--checkpoint", weights, *videos)


def test_a_scale_that_the_generator_does_not_know_is_noted(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    noise(90, 70).save(photo)
    trained = {"preprocess": "resize_and_crop", "crop_size": 32}
    note = (
        "note: photo.jpg has 90x70 pixels, but the run was trained at 32x32. Use --short_side 32 to translate at that scale."
    )
    assert scale_note(photo, trained) == note
    assert scale_note(photo, trained | {"crop_size": 64}) is None
    assert scale_note(photo, trained | {"preprocess": "crop"}) is None
    assert scale_note(photo, {}) is None
    weights = checkpoint(tmp_path / "run")
    (tmp_path / "run" / "train_opt.json").write_text(json.dumps(trained))
    command = [TRANSLATE, "--checkpoint", str(weights), "--input", str(photo), "--overwrite", "--output", "out"]
    assert note in " ".join(succeed(tmp_path, *command).split())
    assert "note" not in succeed(tmp_path, *command, "--short_side", "32")


def test_patterns_and_single_images(tmp_path: Path, weights: str) -> None:
    for name in ("x/1.png", "x/2.jpg", "y/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(8, 8).save(tmp_path / "in" / name)
    succeed(tmp_path, TRANSLATE, "--checkpoint", weights, "--input", "in/*/1.png", "--output", "all", "--format", "tif")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("all/*/*")) == ["all/x/1.tif", "all/y/1.tif"]
    succeed(tmp_path, TRANSLATE, "--checkpoint", weights, "--input", "in/x/1.png", "--output", "one.webp")
    assert Image.open(tmp_path / "one.webp").format == "WEBP"
    (job,) = plan_jobs(str(tmp_path / "in/x/1.png"), tmp_path / "one")
    assert job.target == tmp_path / "one" / "1.png"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--input", "in", "--output", "in"], "inside --input in"),
        (["--input", "in", "--output", "in/results"], "inside --input in"),
        (["--input", "in/00.png", "--output", "in"], "is one of the input images"),
        (["--input", "link/00.png", "--output", "in/00.png"], "is one of the input images"),
        (["--input", "gone", "--output", "out"], "no such file or folder"),
        (["--input", "in/*.jpg", "--output", "out"], "no image matches"),
        (["--input", "in/00.png", "--output", "out.pdf"], "images are not written as .pdf. Use .png, or give a folder"),
        (["--input", "in", "--output", "out", "--gpu_ids", "99"], "--gpu_ids 99"),
        (["--input", "in", "--output", "out", "--short_side", "1000000000000"], "is not a number of pixels from 1 to 65535"),
        (["--input", "in", "--output", "out", "--memory", "1e300"], "--memory: '1e300' is too large"),
        (["--input", "in", "--output", "out", "--ngf", "1000000000000"], "the network is too large for any memory"),
        (["--input", "in", "--output", "out", "--netG", "resnet_9blocks"], "another network"),
        (["--inputs", "in", "--output", "out"], "are required: --input. Did you mean --input?"),
        (["--input", "in", "--output", "out", "--resum"], "unrecognized arguments: --resum. Did you mean --resume?"),
        (["--input", "in", "--output", "out", "--dataroot", "x"], "--dataroot: not an option of the architecture"),
    ],
)
def test_user_errors_are_reported_before_anything_is_written(
    tmp_path: Path,
    weights: str,
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (image,) = fill(tmp_path / "in", 1)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = image.read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["translate.py", "--checkpoint", weights, *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ending.value.code == 2 and line.startswith("error: ") and sentence in line
    assert image.read_bytes() == before and len(list((tmp_path / "in").iterdir())) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "kind"), [("photo", "JPEG"), ("shot.HEIC", "HEIF"), ("scan.pdf", None)])
def test_the_kind_of_a_result_is_known_before_it_is_computed(
    tmp_path: Path, weights: str, name: str, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Translate a JPEG without an ending, or with another one."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    noise(24, 24).save(tmp_path / name, "JPEG")
    computed = []
    monkeypatch.setattr(
        Translator, "translate", lambda self, batch, run=Translator.translate: computed.append(0) or run(self, batch)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["translate.py", "--checkpoint", weights, "--input", name, "--output", "out"])
    if kind is None:
        with pytest.raises(SystemExit) as ending:
            main()
        assert (ending.value.code, computed, list((tmp_path / "out").iterdir())) == (1, [], [])
    else:
        main()
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.format, image.size, len(computed)) == (kind, (24, 24), 1)


def test_a_pattern_does_not_reach_into_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1.png", "x/2.png", "results/run/test_latest/images/fake_B/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(8, 8).save(tmp_path / "in" / name)
    (tmp_path / "in/results/run/test_latest/index.html").touch()
    jobs = plan_jobs(str(tmp_path / "in/**/*.png"), tmp_path / "out")
    assert [job.target.relative_to(tmp_path / "out").as_posix() for job in jobs] == ["1.png", "x/2.png"]
    assert "in: 1 images are not read, because train.py or test.py wrote their folders" in capsys.readouterr().out
    assert len(plan_jobs(str(tmp_path / "in/**/images/**/*.png"), tmp_path / "out")) == 1, "if asked for by name"


def test_a_result_that_cannot_be_written_is_one_failure(tmp_path: Path, weights: str) -> None:
    fill(tmp_path / "in", 2)
    (tmp_path / "in" / "00.png").rename(tmp_path / "in" / "00.webp")  # a PNG with another extension
    wide = noise(17000, 1)  # WebP allows 16383 pixels
    wide.save(tmp_path / "in" / "00.webp", "PNG")
    finished: subprocess.CompletedProcess[str] = run(
        tmp_path, TRANSLATE, "--checkpoint", weights, "--input", "in", "--output", "out"
    )
    assert finished.returncode == 1 and finished.stderr.startswith("in/00.webp: cannot be written as .webp")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["01.png"]


def test_a_file_name_that_cannot_be_written_is_one_failure(tmp_path: Path, weights: str) -> None:
    fill(tmp_path / "in", 4)
    (tmp_path / "in" / "00.png").rename(tmp_path / "in" / f"{'0' * 248}.png")  # a temporary name must not be longer
    (tmp_path / "out" / "01.png").mkdir(parents=True)
    finished = run(tmp_path, TRANSLATE, "--checkpoint", weights, "--input", "in", "--output", "out", "--overwrite")
    (folder,) = finished.stderr.splitlines()
    assert finished.returncode == 1
    assert folder.startswith("in/01.png: ") and "(Is a directory)" in folder
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file()) == [
        f"{'0' * 248}.png",
        "02.png",
        "03.png",
    ]


def test_short_side_does_not_exceed_the_pixel_limit(tmp_path: Path, weights: str) -> None:
    fill(tmp_path / "in", 1)
    line = ("--checkpoint", weights, "--input", "in", "--output", "out", "--short_side", "60000")
    finished = run(tmp_path, TRANSLATE, *line)
    assert (finished.returncode, list((tmp_path / "out").iterdir())) == (1, [])
    assert (
        finished.stderr == "in/00.png: --short_side 60000: the image would have 75000x60000 pixels. Use a smaller value.\n"
    )
