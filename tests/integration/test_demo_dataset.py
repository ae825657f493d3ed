"""The demonstration dataset: files, errors, and paired metrics that rank translations correctly."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "datasets"))
import make_demo_dataset as demo

SCRIPT = Path(demo.__file__)
SMALL = ("--size", "32", "--train", "3", "--test", "2")
PHASES = {"trainA": 3, "trainB": 3, "testA": 2, "testB": 2}


def make(*arguments, cwd):
    return subprocess.run([sys.executable, SCRIPT, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scenes(count):
    return [demo.random_scene(np.random.default_rng([7, index])) for index in range(count)]


def pixels(image):
    return np.asarray(image, dtype=np.float64)


def drawn(scene, coat=demo.COATS["B"]):
    return pixels(demo.render(scene, coat, 64))


def animal_mask(scene):
    pitch = ((-1e9,) * 3,) * 2  # blacker than black: visible even if the outline covers a tiny part of a pixel
    return (drawn(scene, demo.Coat(pitch, pitch, None)) != np.rint(demo.render_meadow(scene, 64))).any(axis=2)


def psnr(images, targets):
    errors = [np.mean((image - target) ** 2) for image, target in zip(images, targets, strict=True)]
    return np.mean(10 * np.log10(255**2 / np.array(errors)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder / "demo", make("--output", "demo", *SMALL, cwd=folder)


def test_folder_holds_what_was_asked_for(made):
    folder, run = made
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("demo is ready") and "32 x 32" in run.stdout and "2 pairs" in run.stdout
    names = {f"{phase}/{index:04d}.png" for phase, count in PHASES.items() for index in range(count)}
    assert contents(folder).keys() == names | {"recipe.json"}
    for name in names:
        with Image.open(folder / name) as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe == {"drawing": demo.DRAWING_VERSION, "seed": 0, "size": 32, "train": 3, "test": 2}
    assert [path.name for path in folder.parent.iterdir()] == ["demo"], "a temporary folder is left"


def test_defaults_are_the_quickstart_set(tmp_path):
    assert make(cwd=tmp_path).returncode == 0
    recipe = json.loads((tmp_path / "datasets/demo/recipe.json").read_text())
    assert recipe == {"drawing": demo.DRAWING_VERSION, "seed": 0, "size": 64, "train": 200, "test": 20}
    assert len(contents(tmp_path / "datasets/demo")) == 2 * 200 + 2 * 20 + 1


def test_same_seed_same_bytes(made, tmp_path):
    make("--output", "again", *SMALL, cwd=tmp_path)
    make("--output", "other", "--seed", "1", *SMALL, cwd=tmp_path)
    assert contents(tmp_path / "again") == contents(made[0])
    first, other = contents(made[0]), contents(tmp_path / "other")
    assert all(first[name] != other[name] for name in first)


def test_images_match_the_drawing_version():
    """Fails when the images change: increase DRAWING_VERSION and update the values here."""
    mean = drawn(scenes(1)[0]).mean(axis=(0, 1))
    assert demo.DRAWING_VERSION == 1
    assert mean == pytest.approx((156.70, 171.15, 143.90), abs=0.05)


def test_scenes_do_not_depend_on_how_many_there_are(made, tmp_path):
    make("--output", "more", "--size", "32", "--train", "4", "--test", "3", cwd=tmp_path)
    more = contents(tmp_path / "more")
    assert all(more[name] == data for name, data in contents(made[0]).items() if name != "recipe.json")


def test_test_split_is_paired_and_train_split_is_not(made):
    folder, _ = made
    streams = {"trainA": 0, "trainB": 1, "testA": 2, "testB": 2}
    found = {phase: [pixels(Image.open(path)) for path in sorted((folder / phase).iterdir())] for phase in PHASES}
    top_row = {phase: [image[0].tobytes() for image in images] for phase, images in found.items()}
    assert top_row["testA"] == top_row["testB"], "one sky over both images of a pair"
    skies = top_row["trainA"] + top_row["trainB"] + top_row["testA"]
    assert len(set(skies)) == len(skies), "all other scenes differ"
    for phase, images in found.items():
        for index, image in enumerate(images):
            scene = demo.random_scene(np.random.default_rng([0, streams[phase], index]))
            assert np.array_equal(image, pixels(demo.render(scene, demo.COATS[phase[-1]], 32)))


@pytest.mark.parametrize("scene", scenes(6))
def test_ground_stays_and_animal_changes(scene):
    plain, striped = drawn(scene, demo.COATS["A"]), drawn(scene)
    animal = animal_mask(scene)
    assert np.array_equal(plain[~animal], striped[~animal])
    assert not (animal[0].any() or animal[-1].any() or animal[:, 0].any() or animal[:, -1].any())
    assert 0.2 < animal.mean() < 0.5
    assert (plain != striped).any(axis=2)[animal].mean() > 0.8  # eyes and hooves stay


def test_stripes_follow_the_animal():
    """Mirrored or moved by whole pixels, the animal keeps each stripe in its place."""
    scene = replace(scenes(1)[0], center=(0.5, 0.5), facing=1)
    animal = animal_mask(scene)
    inside = animal & np.all([np.roll(animal, way, axis) for way in (-1, 1) for axis in (0, 1)], axis=0)
    mirrored = drawn(replace(scene, facing=-1))[:, ::-1]
    moved = np.roll(drawn(replace(scene, center=(0.5 + 2 / 64, 0.5 - 1 / 64))), (1, -2), axis=(0, 1))
    assert np.abs(mirrored - drawn(scene))[inside].mean() < 1
    assert np.abs(moved - drawn(scene))[inside].mean() < 1


def test_psnr_ranks_input_below_recolored_below_striped(monkeypatch):
    """The right color improves the PSNR, stripes in the right place improve it much more."""
    striped, half = demo.COATS["B"], scenes(12)
    one_tone = replace(striped, hide=(demo.mix(*striped.hide, 0.5),) * 2)
    targets = [drawn(scene) for scene in half]
    unchanged = psnr([drawn(scene, demo.COATS["A"]) for scene in half], targets)
    recolored = psnr([drawn(scene, replace(striped, stripe=None)) for scene in half], targets)
    right = psnr([drawn(scene, one_tone) for scene in half], targets)

    in_place = demo.Limb.stripe_depth
    monkeypatch.setattr(demo.Limb, "stripe_depth", lambda limb, along, across: in_place(limb, along + 0.1, across))
    misplaced = psnr([drawn(scene) for scene in half], targets)
    assert unchanged + 2 < recolored < right - 10
    assert unchanged + 1 < misplaced < right - 10


def test_second_run_reports_that_it_exists(made):
    folder, _ = made
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run = make("--output", "demo", *SMALL, cwd=folder.parent)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("demo already exists")
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("mine.txt", "precious", "demo: already exists."),
        ("recipe.json", "not json", "demo: already exists."),
        ("recipe.json", '{"seed": 0}', "--output demo: already exists with another recipe"),
        (
            "recipe.json",
            '{"drawing": 0, "seed": 0, "size": 32, "train": 3, "test": 2}',
            "--output demo: already exists with another recipe",
        ),
    ],
)
def test_another_folder_is_never_overwritten(tmp_path, name, text, sentence):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / name).write_text(text)
    before = contents(tmp_path)
    assert_refused(make("--output", "demo", *SMALL, cwd=tmp_path), sentence)
    assert contents(tmp_path) == before


def test_a_failed_run_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "render", full_disk)
    recipe = {"drawing": demo.DRAWING_VERSION, "seed": 0, "size": 32, "train": 1, "test": 1}
    with pytest.raises(demo.UserError, match="No space left on device"):
        demo.make_dataset(tmp_path / "demo", recipe)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--train", "0"), "--train 0: must be at least 1."),
        (("--test", "-3"), "--test -3: must be at least 1."),
        (("--size", "31"), "--size 31: must be at least 32."),
        (("--seed", "-1"), "--seed -1: must be at least 0."),
        (("--size", "1000000000000"), "--size 1000000000000: must be at most 4096."),
        (("--size", "big"), "invalid int value: 'big'"),
        (("--color", "red"), "unrecognized arguments: --color red"),
        (("--output", "file/demo"), "file/demo: cannot be created"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, arguments, sentence):
    (tmp_path / "file").touch()
    assert_refused(make(*arguments, cwd=tmp_path), sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def assert_refused(run, sentence):
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("error: ") and sentence in run.stderr
    assert run.stderr.count("\n") == 1
