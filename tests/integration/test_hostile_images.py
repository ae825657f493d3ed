"""Unusual folders, folders that change during a run, and thousands of damaged files, read in real runs."""

import os
import random
import re
import socket
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_factory import fill, noise, options, two_domains
from image_files import png
from PIL import Image
from programs import ENVIRONMENT, command, run

from data import create_dataset
from data.image_io import EXTENSIONS
from util.html.results_page import VIEWS

KNOWN = ["--dataroot", "data", "--name", "run"]
SMALL = ["--netG", "resnet_4blocks", "--ngf", "2", "--ndf", "2", "--load_size", "36", "--crop_size", "32"]
SMALL += ["--netF_nc", "4", "--num_patches", "8", "--nce_layers", "0,4,8"]


def tree(folder: Path) -> set[Path]:
    """Return all paths below `folder`."""
    return {Path(here, name) for here, folders, files in os.walk(folder) for name in folders + files}


def hostile_folder(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Fill `folder`. Return the names of readable images, and those of unreadable images with the reasons."""
    folder.mkdir(parents=True)
    readable = {
        '"><script>alert(1)<|script>.png': noise(40, 32),
        "two\nlines.png": noise(40, 32),
        os.fsdecode(b"caf\xe9.png"): noise(40, 32),
        "a..%2f..%2f..%2fup.png": noise(40, 32),
        "C:..\\up.png": noise(40, 32),
        "-rf.png": noise(40, 32),
        "$(touch pwned).png": noise(40, 32),
        "line.png": noise(1, 300),
        "print.jpg": noise(40, 32).convert("CMYK"),
        "deep.png": Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40),
        "half transparent.webp": noise(40, 32).convert("RGBA"),
    }
    for name, image in readable.items():
        image.save(folder / name)
    noise(40, 32).save(folder / "animated.gif", save_all=True, append_images=[noise(40, 32, 1)])
    noise(40, 32).save(folder / "misnamed.jpg", format="PNG")
    (folder / "folder.png").mkdir()
    noise(40, 32).save(folder / "folder.png" / "inside.png")
    (folder / "in a circle").symlink_to(folder)
    (folder / "link.png").symlink_to("deep.png")

    noise(64, 64).save(folder / "truncated.jpg")
    os.truncate(folder / "truncated.jpg", 1500)
    (folder / "bomb.png").write_bytes(png(50_000, 50_000, 8, 2, zlib.compress(bytes(1000))))
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("<svg onload=alert(1)>")
    (folder / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(pwned) (w) file\n")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket.png"))
    (folder / "nowhere.png").symlink_to("there is nothing.png")
    (folder / "itself.png").symlink_to("itself.png")

    names = {*readable, "animated.gif", "misnamed.jpg", "folder.png/inside.png", "link.png"}
    return names, {
        "truncated.jpg": "truncated",
        "bomb.png": "exceeds limit",
        "empty.png": "an empty file",
        "text.png": "not an image of a known format",
        "script.png": "not an image of a known format",
        "pipe.png": "not a regular file",
        "socket.png": "not a regular file",
        "nowhere.png": "No such file",
        "itself.png": "Too many levels of symbolic links",
    }


def test_a_folder_of_everything(tmp_path: Path) -> None:
    readable, unreadable = hostile_folder(tmp_path / "data" / "trainA")
    fill(tmp_path / "data" / "trainB", 2, (40, 32))
    before = tree(tmp_path)

    training = run(tmp_path, "train.py", *KNOWN, *SMALL, "--n_epochs", "1", "--n_epochs_decay", "1", "--num_threads", "2")
    testing = run(
        tmp_path,
        *("test.py", *KNOWN, "--dataset_mode", "single", "--phase", "train", "--num_test", "100"),
        *("--preprocess", "resize", "--load_size", "32", "--crop_size", "32"),
    )
    for finished in (training, testing):
        assert finished.returncode == 0, finished.stderr
        said = finished.stderr.splitlines()
        assert len(said) == len(unreadable), finished.stderr
        for name, reason in unreadable.items():
            assert sum(f"trainA/{name}': " in line and reason in line for line in said) == 1, (name, finished.stderr)

    images = tmp_path / "results" / "run" / "train_latest" / "images"
    written = [path for path in images.rglob("*") if path.is_file() and VIEWS not in path.relative_to(images).parts]
    assert len(written) == len(readable) * len(("real_A", "fake_B"))
    outside = {path.relative_to(tmp_path).parts[0] for path in tree(tmp_path) - before}
    assert outside == {"checkpoints", "results"}


def test_100_megapixels(tmp_path: Path) -> None:
    lines = zlib.compress(bytes(1 + 10_000 // 8) * 10_000)  # of bits, all black
    fill(tmp_path, 1)
    (tmp_path / "large.png").write_bytes(png(10_000, 10_000, 1, 0, lines))
    opt = options(tmp_path, is_train=False, dataset_mode="single", preprocess="resize", load_size=32, crop_size=32)
    batches = list(create_dataset(opt))
    assert [batch["A"].shape for batch in batches] == [(1, 3, 32, 32)] * 2
    assert batches[1]["A"].max() == -1


def test_a_folder_that_changes_while_training_runs(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=8, n_B=2, size=(40, 32))
    A, B = tmp_path / "data" / "trainA", tmp_path / "data" / "trainB"
    arguments = [*KNOWN, *SMALL, "--n_epochs", "100000", "--num_threads", "2", "--no_html", "--save_epoch_freq", "100000"]
    with subprocess.Popen(
        command("train.py", *arguments),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as training:
        try:
            wait_for(training, r"End of epoch 1 ")
            (A / "00.png").unlink()
            os.truncate(A / "01.png", (A / "01.png").stat().st_size // 2)
            os.truncate(A / "02.png", 0)
            (A / "03.png").write_text("something else")
            (A / "04.png").unlink()
            os.mkfifo(A / "04.png")
            noise(90, 20).save(A / "05.jpg")
            (A / "05.jpg").rename(A / "06.png")  # of another size and kind
            noise(40, 32).save(A / "new.png")
            skipped = sorted(re.search(r"(\w+).png': ", wait_for(training, r"^skipped ")).group(1) for _ in range(5))
            assert skipped == ["00", "01", "02", "03", "04"]
            wait_for(training, r"End of epoch ")
            for path in B.iterdir():
                path.unlink()
            wait_for(training, r"^error: '.*trainB/0[01].png': No such file.* None of the 2 images")
            training.communicate(timeout=100)
        finally:
            training.kill()
    assert training.returncode == 2
    assert (tmp_path / "checkpoints" / "run" / "latest_net_G.pth").exists()


def wait_for(process: subprocess.Popen[str], pattern: str) -> str:
    """Return the next output line of the process that matches `pattern`."""
    told = []
    assert process.stdout is not None
    for line in process.stdout:
        told.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError(f"ended without {pattern}: {''.join(told)}")


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy of a file, as after a disk error, a lost transfer or an attack."""
    content, place = bytearray(whole), rng.randrange(len(whole))
    kind = rng.randrange(6)
    if kind == 0:  # cut short
        return bytes(content[:place])
    if kind == 1:  # a few bytes changed
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 2:  # a number at its bounds
        content[place : place + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    elif kind == 3:  # a piece lost
        del content[place : place + rng.randint(1, 40)]
    elif kind == 4:  # a piece twice
        content[place:place] = content[place : place + rng.randint(1, 40)]
    else:  # a block of zeros, as after a crash
        content[place:] = bytes(len(content) - place)
    return bytes(content)


def whole_files(folder: Path) -> list[Path]:
    """Create a file for every extension, and for each further decoding path of Pillow."""
    folder.mkdir()
    color, turned = noise(20, 16), Image.Exif()
    turned[0x0112] = 6
    ways: list[tuple[str, Image.Image, dict]] = [
        *(
            ("any" + extension, color, {})
            for extension in sorted(set(EXTENSIONS) & set(Image.registered_extensions()) - {".pgm"})
        ),
        ("gray.pgm", color.convert("L"), {}),
        ("progressive.jpg", color, {"progressive": True, "exif": turned}),
        ("print.jpg", color.convert("CMYK"), {}),
        ("palette.png", color.quantize(16), {"transparency": 3}),
        ("deep.png", Image.fromarray(np.arange(320, dtype=np.uint16).reshape(16, 20) * 200), {}),
        ("bits.bmp", color.convert("1"), {}),
        ("animated.gif", color, {"save_all": True, "append_images": [noise(20, 16, 1)]}),
        ("animated.png", color, {"save_all": True, "append_images": [noise(20, 16, 1)]}),
        ("animated.webp", color, {"save_all": True, "append_images": [noise(20, 16, 1)]}),
        ("lossless.webp", color.convert("RGBA"), {"lossless": True, "exif": turned}),
        *((f"{how}.tif", color, {"compression": how}) for how in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")),
    ]
    for name, image, settings in ways:
        image.save(folder / name, **settings)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("count", [1000, pytest.param(8000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(count: int, tmp_path: Path) -> None:
    rng, whole = random.Random(0), [path.read_bytes() for path in whole_files(tmp_path / "whole")]
    folder = tmp_path / "damaged"
    fill(folder, 1)
    for number in range(count):
        content = damaged(rng.choice(whole), rng)
        (folder / f"{number:05}{rng.choice(EXTENSIONS)}").write_bytes(content)
    before = tree(tmp_path)

    loader = create_dataset(
        options(
            folder, is_train=False, dataset_mode="single", preprocess="resize", load_size=32, crop_size=32, num_threads=2
        )
    )
    batches = sum(batch["A"].shape == (1, 3, 32, 32) for batch in loader)
    assert batches + len(loader.skipped) == count + 1
    assert batches > count / 10
    assert len(loader.skipped) > count / 10
    assert all(loader.skipped.values())
    assert tree(tmp_path) == before
