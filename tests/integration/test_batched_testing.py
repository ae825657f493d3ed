"""test.py reads, translates and writes at the same time: with the very results of doing one after the other."""

import errno
import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from image_factory import fill, noise, options
from page_reader import read_page
from PIL import Image

from data import create_dataset
from models import create_model
from models.networks.base import check_batch_independence
from options import TestOptions, TrainOptions
from util.errors import UserError
from util.images import AsyncImageWriter

# Under another name: Python has a package called test.
SPEC = importlib.util.spec_from_file_location("testing_program", ROOT / "test.py")
program = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(program)

NETWORKS = ["--netG", "resnet_4blocks", "--ngf", "2"]


def test_the_page_is_that_of_one_image_after_the_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With worker processes, threads that write, and batches of those neighbors that have one size."""
    run_dir = ["--checkpoints_dir", str(tmp_path / "checkpoints"), "--name", "run"]
    trained = [*run_dir, *NETWORKS, "--ndf", "2", "--nce_layers", "0,4,8", "--gpu_ids", "-1"]
    create_model(TrainOptions().parse(trained)).save_networks("latest")
    images = fill(tmp_path / "data", 7, (32, 32))
    noise(40, 32).save(images[3])
    images[5].write_bytes(b"damaged")

    pages = {}
    for way in (["--num_threads", "0"], ["--num_threads", "2"], ["--num_threads", "2", "--batch_size", "3"]):
        folder = "_".join(["results", *way])
        known = [*run_dir, *NETWORKS, "--model", "test", "--preprocess", "none", "--gpu_ids", "-1", "--num_test", "6"]
        data = ["--dataroot", str(tmp_path / "data"), "--results_dir", str(tmp_path / folder)]
        program.test(program.parse_with_saved_options([*known, *data, *way]))
        told, complained = capfd.readouterr()
        assert "6 of 7 images" in " ".join(told.split())  # lines are wrapped
        assert "05.png': not an image" in complained
        results = tmp_path / folder / "run" / "data_latest"
        page = read_page(results / "index.html")
        images = {path.relative_to(results): np.asarray(Image.open(path)) for path in results.rglob("*.png")}
        pages[folder] = page.text_of("h2"), page.attributes("img", "src"), images
    plain, overlapped, batched = pages.values()

    assert plain[0] == ["00.png", "01.png", "02.png", "03.png", "04.png", "06.png"]
    for names, links, images in (overlapped, batched):
        assert (names, links) == plain[:2]
        assert images.keys() == plain[2].keys()
    assert all(np.array_equal(image, plain[2][path]) for path, image in overlapped[2].items())
    for path, image in batched[2].items():
        assert abs(image.astype(int) - plain[2][path]).max() <= 1  # rounding, of a truncated value


@pytest.mark.parametrize(("option", "layer"), [("--normG=batch", "BatchNorm2d"), ("--no_dropout=false", "Dropout")])
def test_images_are_not_batched_where_they_would_mix(option: str, layer: str) -> None:
    model = create_model(TestOptions().parse(["--model", "test", "--gpu_ids", "-1", *NETWORKS, option]))
    check_batch_independence(model.networks, 1)
    with pytest.raises(UserError, match=f"--batch_size 2: the generator has a {layer} layer in training mode"):
        check_batch_independence(model.networks, 2)
    model.eval()
    check_batch_independence(model.networks, 2)


def test_images_with_noise_of_their_own_are_not_batched() -> None:
    model = create_model(TestOptions().parse(["--model", "sincut", "--gpu_ids", "-1", "--crop_size", "32"]))
    model.eval()
    with pytest.raises(UserError, match="--batch_size 2: the generator injects noise"):
        check_batch_independence(model.networks, 2)


def test_batches_of_a_test_have_one_size_each(tmp_path: Path) -> None:
    images = fill(tmp_path, 6, (20, 16))
    noise(24, 16).save(images[1])
    loader = create_dataset(
        options(tmp_path, is_train=False, dataset_mode="single", preprocess="none", batch_size=4, num_threads=1)
    )
    assert [[Path(path).name for path in batch["A_paths"]] for batch in loader] == [
        ["00.png"],
        ["01.png"],
        ["02.png", "03.png"],
        ["04.png", "05.png"],
    ]


@pytest.mark.parametrize("threads", [0, 2])
def test_all_is_written_at_the_end(threads: int, tmp_path: Path) -> None:
    with AsyncImageWriter(threads) as writer:
        for number in range(20):
            writer.save(torch.full((1, 3, 8, 8), number / 20), tmp_path / "deep" / f"{number}.png")
    assert [Image.open(tmp_path / "deep" / f"{number}.png").getpixel((0, 0))[0] for number in range(20)] == [
        int((number / 20 + 1) / 2 * 255) for number in range(20)
    ]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_not_overlooked(threads: int, tmp_path: Path) -> None:
    (tmp_path / "0.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught, AsyncImageWriter(threads) as writer:
        for number in range(3):
            writer.save(torch.zeros(1, 3, 8, 8), tmp_path / f"{number}.png")
    assert caught.value.errno == errno.ENOSPC


def test_an_interrupt_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), AsyncImageWriter(2) as writer:
        writer.save(torch.zeros(1, 3, 500, 500), tmp_path / "0.png")
        raise KeyboardInterrupt
    assert threading.active_count() == before
