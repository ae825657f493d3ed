"""The scripts that create datasets from other datasets, run as programs on small folders and archives."""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parents[2] / "datasets"
RED, BLUE = (255, 0, 0), (0, 0, 255)
FRAMES = {"train": ("aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019"), "val": ("lindau_1_2",)}


Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script with options as the main program, in this process, so that PyTorch is imported only once."""

    def run(script: str, **options: Path | str) -> Result:
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value)) if part]
        monkeypatch.setattr(sys, "argv", [script, *flags])
        monkeypatch.syspath_prepend(SCRIPTS)
        status: int | str | None = 0
        try:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        assert isinstance(status, int)
        return subprocess.CompletedProcess(flags, status, said.out, said.err)

    return run


def assert_refused(result: Result, output: Path, *words: str) -> None:
    """Check for a one-line error with `words`, exit status 2, and no new file."""
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last
    assert not output.exists()
    assert [path.name for path in output.parent.iterdir() if path.name.startswith(f".{output.name}")] == []


def image(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def colors(path: Path) -> tuple[tuple[int, int], list[int], list[int]]:
    """Return the size, and the colors at the centers of the left and of the right half, rounded to multiples of 5."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    left, right = (np.round(pixels[height // 2, x] / 5) * 5 for x in (width // 4, 3 * width // 4))
    return (width, height), left.astype(int).tolist(), right.astype(int).tolist()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# combine_A_and_B.py


@pytest.fixture
def two_folders(tmp_path: Path) -> dict[str, Path]:
    for name in ("train/1.png", "train/2.jpg", "val/1.png"):
        image(tmp_path / "A" / name, RED)
        image(tmp_path / "B" / name, BLUE)
    return {"fold_A": tmp_path / "A", "fold_B": tmp_path / "B", "fold_AB": tmp_path / "AB"}


def test_pairs_are_joined_with_a_on_the_left(run: Run, two_folders: dict[str, Path]) -> None:
    result = run("combine_A_and_B.py", **two_folders)
    assert result.returncode == 0, result.stderr
    assert files(two_folders["fold_AB"]) == {"train/1.png", "train/2.jpg", "val/1.png"}
    for path in two_folders["fold_AB"].rglob("*.*"):
        assert colors(path) == ((16, 6), list(RED), list(BLUE))


def test_folders_without_subfolders_are_joined_too(run: Run, tmp_path: Path) -> None:
    image(tmp_path / "A" / "1.png", RED)
    image(tmp_path / "B" / "1.png", BLUE)
    run("combine_A_and_B.py", fold_A=tmp_path / "A", fold_B=tmp_path / "B", fold_AB=tmp_path / "AB")
    assert files(tmp_path / "AB") == {"1.png"}


def test_suffixed_names_are_pairs_with_use_ab(run: Run, tmp_path: Path) -> None:
    image(tmp_path / "all" / "train" / "cat_A.png", RED)
    image(tmp_path / "all" / "train" / "cat_B.png", BLUE)
    folders = {"fold_A": tmp_path / "all", "fold_B": tmp_path / "all", "fold_AB": tmp_path / "AB"}
    result = run("combine_A_and_B.py", **folders, use_AB="")
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "AB") == {"train/cat.png"}
    assert colors(tmp_path / "AB" / "train" / "cat.png") == ((16, 6), list(RED), list(BLUE))


def test_names_of_a_pair_may_differ(run: Run, tmp_path: Path) -> None:
    image(tmp_path / "A" / "1_A.png", RED)
    image(tmp_path / "B" / "1_B.bmp", BLUE)
    result = run("combine_A_and_B.py", fold_A=tmp_path / "A", fold_B=tmp_path / "B", fold_AB=tmp_path / "AB")
    assert result.returncode == 0, result.stderr
    assert colors(tmp_path / "AB" / "1_A.png") == ((16, 6), list(RED), list(BLUE))


def test_an_ambiguous_pair_is_named(run: Run, two_folders: dict[str, Path]) -> None:
    image(two_folders["fold_B"] / "val" / "1.bmp", BLUE)
    image(two_folders["fold_B"] / "val" / "1.jpg", BLUE)
    (two_folders["fold_B"] / "val" / "1.png").unlink()
    result = run("combine_A_and_B.py", **two_folders)
    assert_refused(result, two_folders["fold_AB"], "ambiguous pair: 'val/1.png'", "'val/1.bmp' or 'val/1.jpg'")


def test_num_imgs_counts_in_each_subfolder(run: Run, two_folders: dict[str, Path]) -> None:
    assert run("combine_A_and_B.py", **two_folders, num_imgs="1").returncode == 0
    assert files(two_folders["fold_AB"]) == {"train/1.png", "val/1.png"}


@pytest.mark.parametrize("side", ["fold_A", "fold_B"])
def test_an_image_without_partner_is_named(run: Run, two_folders: dict[str, Path], side: str) -> None:
    unpaired = two_folders[side] / "train" / "unpaired.png"
    image(unpaired, RED)
    result = run("combine_A_and_B.py", **two_folders)
    other = two_folders["fold_B" if side == "fold_A" else "fold_A"]
    assert_refused(result, two_folders["fold_AB"], f"{other}: no partner of {unpaired}")


def test_different_sizes_are_named(run: Run, two_folders: dict[str, Path]) -> None:
    image(two_folders["fold_B"] / "val" / "1.png", BLUE, size=(8, 7))
    result = run("combine_A_and_B.py", **two_folders)
    assert_refused(result, two_folders["fold_AB"], "val/1.png", "8x6", "8x7")


def test_bands_and_bits_are_kept(run: Run, tmp_path: Path) -> None:
    deep = np.arange(2 * 3 * 48, dtype=np.uint16).reshape(2, 6, 8, 3)[..., :1] * 400
    bands = np.random.default_rng(0).random((2, 6, 8, 5), np.float32)
    for side, gray, stack in zip("AB", deep, bands, strict=True):
        (tmp_path / side).mkdir()
        Image.fromarray(gray[..., 0]).save(tmp_path / side / "gray.png")
        np.save(tmp_path / side / "stack.npy", stack)
    result = run("combine_A_and_B.py", fold_A=tmp_path / "A", fold_B=tmp_path / "B", fold_AB=tmp_path / "AB")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "AB" / "gray.png") as joined:
        np.testing.assert_array_equal(np.asarray(joined), np.hstack(deep[..., 0]))
    np.testing.assert_array_equal(np.load(tmp_path / "AB" / "stack.npy"), np.hstack(bands))


def test_different_bands_are_named(run: Run, two_folders: dict[str, Path]) -> None:
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(two_folders["fold_B"] / "val" / "1.png")
    result = run("combine_A_and_B.py", **two_folders)
    assert_refused(result, two_folders["fold_AB"], "val/1.png", "3 uint8 bands", "1 uint16")


def test_formats_that_are_only_read_become_tiffs(run: Run, tmp_path: Path) -> None:
    for side in "AB":
        image(tmp_path / side / "1.png", RED)
        (tmp_path / side / "1.png").rename(tmp_path / side / "1.jp2")  # a file's content says what it is
    run("combine_A_and_B.py", fold_A=tmp_path / "A", fold_B=tmp_path / "B", fold_AB=tmp_path / "AB")
    assert files(tmp_path / "AB") == {"1.tif"}


def test_an_image_that_its_format_cannot_hold_is_named(run: Run, tmp_path: Path) -> None:
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.fromarray(np.zeros((6, 8), np.uint16)).save(tmp_path / side / "1.png")
        (tmp_path / side / "1.png").rename(tmp_path / side / "1.jpg")
    result = run("combine_A_and_B.py", fold_A=tmp_path / "A", fold_B=tmp_path / "B", fold_AB=tmp_path / "AB")
    assert_refused(result, tmp_path / "AB", "A/1.jpg: ", "Convert the images first")


def test_a_broken_image_is_named_and_nothing_partial_stays(run: Run, two_folders: dict[str, Path]) -> None:
    (two_folders["fold_B"] / "val" / "1.png").write_bytes(b"no image")
    assert_refused(run("combine_A_and_B.py", **two_folders), two_folders["fold_AB"], "B/val/1.png: not an image")


def test_missing_folders_are_named(run: Run, two_folders: dict[str, Path]) -> None:
    shutil.rmtree(two_folders["fold_B"])
    result = run("combine_A_and_B.py", **two_folders)
    assert_refused(result, two_folders["fold_AB"], f"{two_folders['fold_B']}: not a folder")
    assert "--dataroot" not in result.stderr, "an option of another program"


def test_an_existing_result_is_not_changed(run: Run, two_folders: dict[str, Path]) -> None:
    image(two_folders["fold_AB"] / "mine.png", RED)
    result = run("combine_A_and_B.py", **two_folders)
    assert result.returncode == 2
    assert "already exists" in result.stderr
    assert files(two_folders["fold_AB"]) == {"mine.png"}


def test_a_folder_that_cannot_be_written_is_named(run: Run, two_folders: dict[str, Path]) -> None:
    file = two_folders["fold_AB"]
    file.write_bytes(b"")
    result = run("combine_A_and_B.py", **two_folders | {"fold_AB": file / "AB"})
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {file / 'AB'}: cannot be created")


# prepare_cityscapes_dataset.py


@pytest.fixture
def cityscapes(tmp_path: Path) -> dict[str, Path]:
    """Create the official folders, including files that are not used. Return them and the output folder."""
    for phase, frames in FRAMES.items():
        for frame in frames:
            city = frame.split("_")[0]
            photo = tmp_path / "leftImg8bit" / phase / city / f"{frame}_leftImg8bit.png"
            image(photo, (frames.index(frame) * 50, 0, 0), size=(64, 32))
            labels = tmp_path / "gtFine" / phase / city / f"{frame}_gtFine_color.png"
            image(labels, (0, 0, frames.index(frame) * 50), size=(64, 32))
            image(labels.with_name(f"{frame}_gtFine_labelIds.png"), RED)
    image(tmp_path / "leftImg8bit" / "test" / "berlin" / "berlin_0_0_leftImg8bit.png", RED)
    return {
        "leftImg8bit_dir": tmp_path / "leftImg8bit",
        "gtFine_dir": tmp_path / "gtFine",
        "output_dir": tmp_path / "cityscapes",
    }


def zipped(folder: Path) -> Path:
    """Create an archive like the official one: with the top folder, without entries for folders."""
    archive = folder.parent / f"{folder.name}_trainvaltest.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for path in folder.rglob("*.png"):
            writer.write(path, path.relative_to(folder.parent))
    return archive


@pytest.mark.parametrize("source", ["folders", "folders around them", "archives"])
def test_cityscapes_photos_are_a_and_labels_are_b(run: Run, cityscapes: dict[str, Path], source: str) -> None:
    output = cityscapes["output_dir"]
    if source == "folders around them":
        cityscapes |= {name: cityscapes[name].parent for name in ("leftImg8bit_dir", "gtFine_dir")}
    if source == "archives":
        cityscapes |= {name: zipped(cityscapes[name]) for name in ("leftImg8bit_dir", "gtFine_dir")}
    result = run("prepare_cityscapes_dataset.py", **cityscapes)
    assert result.returncode == 0, result.stderr
    assert "3 train, 1 test pairs" in result.stdout
    assert "the official train split has 2975 pairs" in result.stderr
    expected = {f"{phase}/{n}.jpg" for phase, count in (("train", 3), ("test", 1)) for n in range(1, count + 1)}
    expected |= {name.replace("/", f"{half}/").replace(".jpg", f"_{half}.jpg") for name in expected for half in "AB"}
    assert files(output) == expected
    for number in (1, 2, 3):  # in the order of the frames' names
        photo, labels = [(number - 1) * 50, 0, 0], [0, 0, (number - 1) * 50]
        assert colors(output / "trainA" / f"{number}_A.jpg") == ((256, 256), photo, photo)
        assert colors(output / "trainB" / f"{number}_B.jpg") == ((256, 256), labels, labels)
        assert colors(output / "train" / f"{number}.jpg") == ((512, 256), photo, labels)


def test_cityscapes_without_a_label_map_is_refused(run: Run, cityscapes: dict[str, Path]) -> None:
    (cityscapes["gtFine_dir"] / "train" / "zurich" / "zurich_000000_000019_gtFine_color.png").unlink()
    result = run("prepare_cityscapes_dataset.py", **cityscapes)
    words = ("3 photos", "2 label maps", "1 without a partner, first of them zurich_000000_000019")
    assert_refused(result, cityscapes["output_dir"], *words)


def test_cityscapes_from_a_cut_archive_is_refused(run: Run, cityscapes: dict[str, Path]) -> None:
    archive = zipped(cityscapes["gtFine_dir"])
    archive.write_bytes(archive.read_bytes()[:-100])
    result = run("prepare_cityscapes_dataset.py", **cityscapes | {"gtFine_dir": archive})
    assert_refused(result, cityscapes["output_dir"], f"{archive}: neither a folder nor a complete zip archive")


def test_cityscapes_with_a_damaged_image_is_refused(run: Run, cityscapes: dict[str, Path]) -> None:
    archive = zipped(cityscapes["leftImg8bit_dir"])
    content = bytearray(archive.read_bytes())
    last_bytes = content.index(b"IEND", content.index(b"zurich")) + 4
    content[last_bytes] ^= 0xFF  # which only the archive's checksum covers
    archive.write_bytes(content)
    result = run("prepare_cityscapes_dataset.py", **cityscapes | {"leftImg8bit_dir": archive})
    assert_refused(result, cityscapes["output_dir"], "_leftImg8bit.png: cannot be read")


@pytest.mark.parametrize("missing", ["leftImg8bit_dir", "gtFine_dir"])
def test_cityscapes_with_folders_mixed_up_is_refused(run: Run, cityscapes: dict[str, Path], missing: str) -> None:
    mixed_up = cityscapes | {missing: cityscapes["output_dir"].parent / "nothing"}
    assert_refused(run("prepare_cityscapes_dataset.py", **mixed_up), cityscapes["output_dir"], "does not exist")
    mixed_up[missing].mkdir()
    assert_refused(run("prepare_cityscapes_dataset.py", **mixed_up), cityscapes["output_dir"], "contains no folder")


# prepare_cat2dog_dataset.py


@pytest.mark.parametrize("test_name", ["val", "test"])
def test_afhq_becomes_cat2dog(run: Run, tmp_path: Path, test_name: str) -> None:
    afhq, output = tmp_path / "afhq", tmp_path / "cat2dog"
    for phase in ("train", test_name):
        for animal in ("cat", "dog", "wild"):
            image(afhq / phase / animal / f"{phase}_{animal}.jpg", RED)
    result = run("prepare_cat2dog_dataset.py", afhq_dir=afhq, output_dir=output)
    assert result.returncode == 0, result.stderr
    assert files(output) == {
        "trainA/train_cat.jpg",
        "trainB/train_dog.jpg",
        f"testA/{test_name}_cat.jpg",
        f"testB/{test_name}_dog.jpg",
    }
    original = afhq / "train" / "cat" / "train_cat.jpg"
    assert (output / "trainA" / "train_cat.jpg").samefile(original), "not a link"
    shutil.rmtree(afhq)
    assert colors(output / "trainA" / "train_cat.jpg")[0] == (8, 6), "lost together with AFHQ"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_cat2dog_is_copied_to_another_file_system(run: Run, tmp_path: Path) -> None:
    afhq, output = tmp_path / "afhq", Path("/dev/shm") / f"cat2dog-{os.getpid()}"
    for phase in ("train", "val"):
        for animal in ("cat", "dog"):
            image(afhq / phase / animal / "1.jpg", RED)
    try:
        result = run("prepare_cat2dog_dataset.py", afhq_dir=afhq, output_dir=output)
        assert result.returncode == 0, result.stderr
        assert len(files(output)) == 4
    finally:
        shutil.rmtree(output, ignore_errors=True)


def test_a_folder_that_is_not_afhq_is_named(run: Run, tmp_path: Path) -> None:
    image(tmp_path / "afhq" / "train" / "cat" / "1.jpg", RED)
    result = run("prepare_cat2dog_dataset.py", afhq_dir=tmp_path / "afhq", output_dir=tmp_path / "cat2dog")
    assert_refused(result, tmp_path / "cat2dog", "no folder train/dog")


@pytest.mark.parametrize("script", ["combine_A_and_B.py", "prepare_cat2dog_dataset.py", "prepare_cityscapes_dataset.py"])
def test_scripts_start_from_any_folder(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / script), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: " in result.stdout
