"""--cache: the same batches as without, within its size, in memory that all workers share."""

import multiprocessing
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from image_factory import fill, options, two_domains
from PIL import Image

from data import create_dataset
from data.loader import ImageDataLoader
from options import TrainOptions
from util.errors import UserError


def epochs(loader: ImageDataLoader, numbers: Sequence[int] = (1, 2, 3)) -> list[tuple[bytes, list[str]]]:
    """Return pixels and paths of every batch of the epochs."""
    found = []
    for number in numbers:
        loader.set_epoch(number)
        found += [
            (torch.cat((batch["A"].flatten(), batch["B"].flatten())).numpy().tobytes(), batch["A_paths"] + batch["B_paths"])
            for batch in loader
        ]
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = two_domains(tmp_path, n_A=6, n_B=4, size=(30, 26))
    (root / "trainA" / "02.png").write_bytes(b"damaged")
    return root


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_threads": 2},
        {"max_dataset_size": 3, "batch_size": 2},
        {"preprocess": "scale_shortside_and_crop", "input_nc": 1},
        {"preprocess": "zoom_and_crop"},
        {"preprocess": "none"},
        {"preprocess": "resize", "num_threads": 1, "direction": "BtoA", "output_nc": 1},
    ],
    ids=str,
)
def test_batches_equal_those_without_a_cache(changes: dict[str, object], root: Path) -> None:
    plain, cached = (create_dataset(options(root, n_epochs=2, cache=cache, **changes)) for cache in (None, 4.0))
    assert epochs(cached) == epochs(plain)  # from the third epoch on, images are resized to the crop size
    assert cached.skipped == plain.skipped


def test_pairs_equal_those_without_a_cache(tmp_path: Path) -> None:
    fill(tmp_path / "train", 4, (60, 26))
    shared = {"dataset_mode": "aligned", "output_nc": 1, "num_threads": 1}
    plain, cached = (create_dataset(options(tmp_path, cache=cache, **shared)) for cache in (None, 4.0))
    assert epochs(cached) == epochs(plain)


def test_a_file_is_read_once_before_and_once_during_the_decay(root: Path) -> None:
    (root / "trainA" / "02.png").unlink()
    settings = options(root, n_epochs=2, num_threads=1)
    expected = epochs(create_dataset(settings), (1, 2, 3, 4))
    settings.cache = 4.0
    loader = create_dataset(settings)
    files = {path: path.read_bytes() for path in root.rglob("*.png")}

    found = []
    for number in (1, 2, 3, 4):
        if number in (1, 3):
            for path, content in files.items():
                path.write_bytes(content)
        found += epochs(loader, (number,))
        for path in files:
            path.unlink(missing_ok=True)
    assert found == expected
    assert not loader.skipped


def test_the_cache_is_refilled_when_the_transforms_change(root: Path) -> None:
    plain, cached = (create_dataset(options(root, n_epochs=1, num_threads=2, cache=cache)) for cache in (None, 4.0))
    for number in (1, 2, 1):
        for loader in (plain, cached):
            loader.set_epoch(number)
        next(iter(cached))  # and stopped early
        assert epochs(cached, (number,)) == epochs(plain, (number,))


def test_images_that_do_not_fit_are_read_from_disk(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = 20 * 20 * 3
    fitting = (3 * image + 1) / 1e9
    plain, cached = (create_dataset(options(root, num_threads=2, cache=cache)) for cache in (None, fitting))
    assert epochs(cached) == epochs(plain)
    (said,) = capfd.readouterr().out.splitlines()
    assert said.startswith("cache: full with 3 of 10 images in 3.601e-06 GB; the other images are read from disk")

    for name in ("00.png", "01.png", "03.png"):  # the images in the cache
        (root / "trainA" / name).unlink()
    epochs(cached)
    assert {Path(path).name for path in cached.skipped} == {"02.png"}


def test_the_size_of_the_cache_is_printed(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    epochs(create_dataset(options(root, n_epochs=2, cache=4.0)))
    said = capfd.readouterr().out.splitlines()
    assert len(said) == 2  # in the first epoch, and in the first one with another size
    assert re.fullmatch(r"cache: 9 images \(uint8\) in 1\.08e-05 GB of memory, read in \d+ seconds", said[0])


def test_the_cache_is_filled_once_if_the_size_does_not_change(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    epochs(create_dataset(options(root, n_epochs=1, cache=4.0, load_size=16)))
    assert capfd.readouterr().out.count("cache:") == 1


def test_single_image_mode_accepts_a_cache(tmp_path: Path) -> None:
    two_domains(tmp_path, n_A=1, n_B=1, size=(40, 40))
    shared = {"dataset_mode": "singleimage", "preprocess": "zoom_and_patch", "max_dataset_size": 4}
    plain, cached = (create_dataset(options(tmp_path, cache=cache, **shared)) for cache in (None, 4.0))
    assert epochs(cached) == epochs(plain)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_workers_share_the_memory_of_the_cache(tmp_path: Path) -> None:
    for domain in "AB":
        fill(tmp_path / f"train{domain}", 1)
        Image.new("RGB", (8, 8)).save(tmp_path / f"train{domain}" / "plain.png")
    for number in range(60):
        (tmp_path / "trainA" / f"link{number}.png").symlink_to(tmp_path / "trainA" / "plain.png")
    size = 1000
    loader = create_dataset(options(tmp_path, num_threads=2, cache=4.0, load_size=size, crop_size=16))
    batches = iter(loader)
    for _ in range(50):
        next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    held = 64 * size * size * 3
    for worker in workers:
        told = Path(f"/proc/{worker.pid}/smaps_rollup").read_text()
        private = sum(int(kilobytes) for kilobytes in re.findall(r"Private_\w+: +(\d+) kB", told)) * 1000
        assert private < held / 2, f"{private / 1e6:.0f} MB of private memory in a worker, cache of {held / 1e6:.0f} MB"


def test_systems_without_fork_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(UserError, match=r"--cache: worker processes cannot share memory .* Add --num_threads 0"):
        create_dataset(options(root, cache=4.0, num_threads=2))
    create_dataset(options(root, cache=4.0, num_threads=0))


def test_cache_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert [TrainOptions().parse(argv).cache for argv in ([], ["--cache"], ["--cache", "0.5"])] == [None, 4.0, 0.5]
    with pytest.raises(SystemExit):
        TrainOptions().parse(["--cache", "0"])
    assert "argument --cache: '0' is not a number above 0" in capsys.readouterr().err
