"""train.py and test.py as programs: command lines, files, pages, errors and exit statuses."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from image_factory import fill, noise, two_domains
from page_reader import facts_of, linked_file, read_page
from PIL import Image
from programs import ENVIRONMENT, command, refuse, run, succeed

NETWORKS = ["--netG", "resnet_4blocks", "--ngf", "2", "--ndf", "2"]
CROPS = ["--load_size", "36", "--crop_size", "32"]
CUT = [*NETWORKS, *CROPS, "--netF_nc", "4", "--num_patches", "8", "--nce_layers", "0,4,8"]
ONE_EPOCH = ["--n_epochs", "1", "--n_epochs_decay", "0"]

LOG_LINE = r"\(epoch: \d+, iters: \d+, time: \d+\.\d{3}, data: \d+\.\d{3}\) (\w+: -?\d+\.\d{3} )+"
DATA = "Kätzchen"
NAME = 'it\'s <b>"C" & D'
HOSTILE_NAME = "<img src=x onerror=alert(1)>'\"&\n.png"


def saved(run_dir: Path) -> set[str]:
    """Return the labels of the saved generators of a run."""
    return {path.name.partition("_net_")[0] for path in run_dir.glob("*_net_G*.pth")}


def weights(run_dir: Path, label: str = "latest", network: str = "G") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / f"{label}_net_{network}.pth", weights_only=True)


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return not all(torch.allclose(tensor, other[key], rtol=1e-6, atol=1e-12) for key, tensor in one.items())


def recorded(run_dir: Path) -> dict:
    return json.loads((run_dir / "train_opt.json").read_text())


def logged(run_dir: Path) -> list[str]:
    """Return the lines of the log of one run without its header. Check their published format."""
    header, *lines = (run_dir / "loss_log.txt").read_text().splitlines()
    assert header.startswith("================ Training Loss (")
    assert all(re.fullmatch(LOG_LINE, line) for line in lines)
    return lines


def shown(page_path: Path) -> list[Path]:
    """Return the images of a page. Check that their files exist."""
    page = read_page(page_path)
    files = [linked_file(page_path, link) for link in page.attributes("img", "src")]
    assert all(file.is_file() for file in files)
    return files


def results(folder: Path) -> dict[str, np.ndarray]:
    """Return the images of a results page by visual and name."""
    images = folder / "images"
    assert sorted(shown(folder / "index.html")) == sorted(images.rglob("*.png"))
    return {str(path.relative_to(images)): np.asarray(Image.open(path)) for path in images.rglob("*.png")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with a trained CUT and a dataset that has only its test split, and the output of the training."""
    folder = tmp_path_factory.mktemp("cut")
    data = two_domains(folder / DATA, n_A=5, n_B=3, size=(40, 32))
    told = succeed(
        folder,
        *("train.py", "--dataroot", DATA, "--name", NAME, "--CUT_mode", "CUT", *CUT, "--no_antialias"),
        *("--batch_size", "2", "--n_epochs", "2", "--n_epochs_decay", "1", "--print_freq", "3", "--seed", "5"),
        *("--save_latest_freq", "5", "--save_by_iter", "--save_epoch_freq", "2"),
    )
    shutil.rmtree(data / "trainA")
    shutil.rmtree(data / "trainB")
    fill(data / "testA", 1, (32, 32))
    fill(data / "testA" / "cats", 1, (32, 32))
    noise(32, 32).save(data / "testA" / HOSTILE_NAME)
    fill(data / "testB", 1, (32, 32))
    return folder, told


def test_training_cut_leaves_weights_options_a_log_and_a_page(trained: tuple[Path, str]) -> None:
    folder, told = trained
    run_dir = folder / "checkpoints" / NAME
    # Two steps of two images an epoch: multiples of 5 are crossed with image 6 and 10, multiples of 3 with 4, 6, 10, 12.
    assert saved(run_dir) == {"latest", "2", "iter_6", "iter_10"}
    assert {path.name for path in run_dir.glob("latest*")} == {f"latest_net_{network}.pth" for network in "DFG"}
    assert differ(weights(run_dir, "iter_10"), weights(run_dir, "latest"))
    lines = logged(run_dir)
    places = [re.findall(r"\d+", line)[:2] for line in lines]
    assert places == [["1", "4"], ["2", "2"], ["3", "2"], ["3", "4"]]
    assert [line for line in told.splitlines() if line.startswith("(")] == lines

    screen = told[: told.index("(epoch: 1, ")].replace("\\xe4", "ä").splitlines()
    assert 8 <= len(screen) <= 12 and max(map(len, screen)) <= 80, screen
    assert screen[1] == "data:     Kätzchen: A 5, B 3 images of 40x32, resized to 36x36, cropped to 32x32"
    assert "epoch:    5 training images per epoch, batch size 2" in screen
    assert (run_dir / "web" / "index.html").is_file()
    assert re.search(r"^ *ngf: 2    \[given\]$", (run_dir / "train_opt.txt").read_text(), flags=re.MULTILINE)
    assert {"ngf": 2, "seed": 5, "lambda_NCE": 1.0}.items() <= recorded(run_dir).items()

    page = read_page(run_dir / "web" / "index.html")
    assert page.text_of("h1") == [NAME]
    assert [text for text in page.text_of("h2") if text.startswith("epoch ")] == ["epoch 3", "epoch 2", "epoch 1"]
    assert len([path for path in shown(run_dir / "web" / "index.html") if path.parent.name == "images"]) == 3 * len(
        ("real_A", "fake_B", "real_B", "idt_B")
    )


def test_a_lone_weights_file_is_enough_to_test(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    (folder / "checkpoints" / "alone").mkdir()
    shutil.copy(folder / "checkpoints" / NAME / "latest_net_G.pth", folder / "checkpoints" / "alone")
    expected = ["--dataroot", DATA, "--crop_size", "32", "--num_test", "1"]
    for run_name in (NAME, "alone"):
        succeed(folder, "test.py", *expected, "--name", run_name, "--results_dir", f"of {run_name[:5]}")
    ours, theirs = (results(folder / f"of {name[:5]}" / name / "test_latest") for name in (NAME, "alone"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_testing_needs_neither_the_training_images_nor_the_architecture_again(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    known = ["--dataroot", DATA, "--name", NAME, "--crop_size", "32"]
    told = succeed(folder, "test.py", *known, "--num_test", "2", "--epoch", "2")
    assert "2 of 3 images (raise --num_test for more)" in told
    assert "note:" not in told and "size:     tested at 32 px, as trained" in told
    assert "options:  --epoch 2 --gpu_ids -1 --num_test 2\n" in told, "what was read back is marked as given"
    assert len(results(folder / "results" / NAME / "test_2")) == 2 * len(("real_A", "fake_B", "real_B"))

    told = succeed(folder, "test.py", *known, "--dataset_mode", "single", "--verbose")
    assert re.search(r"^ *ngf: 2$", told, flags=re.MULTILINE) and "ResnetGenerator" in told
    assert "3 of 3 images\n" in told
    page_folder = folder / "results" / NAME / "test_latest"
    images = results(page_folder)
    assert sorted(file.partition("/")[0] for file in images) == ["fake_B"] * 3 + ["real_A"] * 3
    assert {"fake_B/00.png", "fake_B/cats/00.png"} < set(images)
    assert {image.shape for image in images.values()} == {(32, 32, 3)}
    page = read_page(page_folder / "index.html")
    assert page.text_of("h1") == [NAME]
    assert page.text_of("h2") == ["00.png", HOSTILE_NAME.replace("\n", "\ufffd"), "cats/00.png"]


def test_testing_with_another_architecture_prints_a_note(trained: tuple[Path, str]) -> None:
    finished = run(trained[0], "test.py", "--dataroot", DATA, "--name", NAME, "--ngf", "4")
    assert "note: --ngf is 4 here, but the run was trained with 2\n" in finished.stdout
    assert finished.returncode == 2
    assert re.fullmatch(r"error: .*latest_net_G.pth: weights of another network: .*--ngf.*\n", finished.stderr)


def test_cycle_gan_both_ways_or_one(tmp_path: Path) -> None:
    data = two_domains(tmp_path / "data", n_A=2, n_B=2, size=(40, 32))
    known = ["--dataroot", "data", "--name", "cycle"]
    succeed(tmp_path, "train.py", *known, "--model", "cycle_gan", *NETWORKS, *CROPS, *ONE_EPOCH)
    run_dir = tmp_path / "checkpoints" / "cycle"
    # Shorter than every frequency, and yet not for nothing.
    assert {path.name for path in run_dir.glob("*.pth")} == {
        f"latest_net_{network}.pth" for network in ("G_A", "G_B", "D_A", "D_B")
    }
    assert logged(run_dir) == []
    assert len([path for path in shown(run_dir / "web" / "index.html") if path.parent.name == "images"]) == 8

    shutil.rmtree(data / "trainB")
    known += ["--phase", "train", "--crop_size", "32"]
    succeed(tmp_path, "test.py", *known, "--dataset_mode", "single")
    cycle = results(tmp_path / "results" / "cycle" / "train_latest")
    assert set(cycle) == {f"{visual}/0{number}.png" for visual in ("real_A", "fake_B", "rec_A") for number in (0, 1)}
    known[1] = "data/trainA"  # no dataset around it
    succeed(tmp_path, "test.py", *known, "--model", "test", "--model_suffix", "_A", "--results_dir", "one")
    one_sided = results(tmp_path / "one" / "cycle" / "train_latest")
    assert set(one_sided) == {file for file in cycle if not file.startswith("rec_A")}
    assert all(np.array_equal(image, cycle[file]) for file, image in one_sided.items())


def test_sincut_from_two_images_to_a_whole_one(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=1, n_B=1, size=(56, 40))
    known = ["--model", "sincut", "--dataroot", "data", "--name", "single"]
    succeed(
        tmp_path,
        *("train.py", *known, "--ngf", "2", "--ndf", "2", "--netF_nc", "4", "--load_size", "56", "--crop_size", "32"),
        *("--batch_size", "2", "--max_dataset_size", "4", "--print_freq", "2", *ONE_EPOCH),
    )
    assert saved(tmp_path / "checkpoints" / "single") == {"latest", "1"}
    assert all(" D_R1: " in line for line in logged(tmp_path / "checkpoints" / "single"))
    assert "1 of 1 images" in succeed(tmp_path, "test.py", *known)
    images = results(tmp_path / "results" / "single" / "test_latest")
    assert set(images) == {"real_A/00.png", "fake_B/00.png", "real_B/00.png"}
    assert {image.shape for image in images.values()} == {(40, 56, 3)}


def test_fastcut_interrupted_and_resumed(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=5, n_B=3, size=(40, 32))
    known = ["--dataroot", "data", "--CUT_mode", "FastCUT", *CUT]
    log = [*known, "--name", "long", "--print_freq", "1", "--num_threads", "2"]
    with subprocess.Popen(
        command("train.py", *log),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as training:
        assert any(line.startswith("(epoch: 1, ") for line in training.stdout)
        os.killpg(training.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        told, complained = training.communicate(timeout=250)
    assert training.returncode == 130
    assert complained == "stopping after this step, then saving; again: stop now, unsaved\ninterrupted\n"
    *_, where, how = told.splitlines()
    assert where == "saved:    checkpoints/long/latest_net_*.pth"
    program = command("train.py")[1]
    options = "--gpu_ids -1 --num_threads 2"  # the others are saved with the run
    assert how == f"resume:   python {program} --continue_train --name long {options}"
    long = tmp_path / "checkpoints" / "long"
    assert facts_of(long / "web/index.html")["status"] == "stopped"
    of_the_mode = {"n_epochs": 150, "n_epochs_decay": 50, "flip_equivariance": True, "nce_idt": False, "lambda_NCE": 10.0}
    assert of_the_mode.items() <= recorded(long).items()

    # With so small a rate what a run ends with is what it began with, and the seeds would begin differently.
    still = [*known, *ONE_EPOCH, "--lr", "1e-30", "--continue_train"]
    began = {network: weights(long, network=network) for network in "DFG"}
    succeed(tmp_path, "train.py", *still, "--name", "long", "--seed", "1", "--save_epoch_freq", "1")
    assert facts_of(long / "web/index.html")["status"] == "finished"
    succeed(tmp_path, "train.py", *still, "--name", "next", "--seed", "2", "--pretrained_name", "long", "--epoch", "1")
    for run_dir, label in ((long, "1"), (long, "latest"), (tmp_path / "checkpoints" / "next", "latest")):
        assert not any(differ(began[network], weights(run_dir, label, network)) for network in "DFG")

    again = [*known, "--name", "long", "--overwrite"]
    sentence = refuse(tmp_path, "train.py", *again, "--preprocess", "crop", "--crop_size", "64")
    assert "Lower --crop_size" in sentence
    assert not differ(began["G"], weights(long)), "a run that never took a step has spoilt the weights of another"


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (["--dataroot", "nowhere"], "error: --dataroot nowhere: no such folder."),
        (["--dataroot", "empty"], "error: empty/trainA: no images, only files of other types (1 .txt). Use"),
        (["--batch_size", "6"], "error: --batch_size 6: larger than the dataset, data has 5 samples"),
        (["--gpu_ids", "0"], "error: --gpu_ids 0: PyTorch finds no CUDA GPU. Use --gpu_ids -1 for the CPU."),
        (
            ["--ngf", "1000000000000"],
            "error: --ngf 1000000000000: the network is too large for any memory. Use a smaller value",
        ),
        (["--ndf", "100000"], "error: --ndf 100000: the network needs "),
        (["--netF_nc", "1000000000"], "error: --netF_nc 1000000000: the network needs "),
        (["--netG", "stylegan2", "--net_size", "65536"], "error: --netG stylegan2: incompatible with training images of"),
        (
            ["--nce_layers", "8,4"],
            "error: --nce_layers 8,4: invalid for --netG resnet_4blocks: layers must be strictly incr",
        ),
        (
            ["--netG", "unet_128", "--load_size", "128", "--crop_size", "128"],
            "error: --netG unet_128: incompatible with --model cut, bec",
        ),
        (["--checkpoints_dir", "data/trainA/00.png"], "error: data/trainA/00.png/run: no file can be created (Not a dir"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_create_no_files(tmp_path: Path, mistake: list[str], sentence: str) -> None:
    two_domains(tmp_path / "data", n_A=5, n_B=3)
    (tmp_path / "empty" / "trainA").mkdir(parents=True)
    (tmp_path / "empty" / "trainA" / "notes.txt").touch()
    said = refuse(tmp_path, "train.py", "--dataroot", "data", "--name", "run", *CUT, *ONE_EPOCH, *mistake)
    assert said.startswith(sentence)
    assert not (tmp_path / "checkpoints").exists()


def test_a_missing_run_is_a_one_line_error(tmp_path: Path) -> None:
    said = refuse(tmp_path, "test.py", "--name", "cats")
    assert said == "error: --name cats: no such run. checkpoints has no runs. Check --checkpoints_dir, or train first."


def test_results_that_cannot_be_written_are_a_one_line_error(trained: tuple[Path, str]) -> None:
    place = f"{DATA}/testA/00.png"
    said = refuse(trained[0], "test.py", "--dataroot", DATA, "--name", NAME, "--crop_size", "32", "--results_dir", place)
    assert re.match(
        r"error: .*00.png/.*/test_latest: no file can be created \(Not a directory\)\. Check --results_dir", said
    )


def test_tiny_images_are_a_one_line_error(trained: tuple[Path, str]) -> None:
    said = refuse(trained[0], "test.py", "--dataroot", DATA, "--name", NAME, "--crop_size", "4", "--results_dir", "few")
    assert re.match(r"error: .*testA/\S+.png: 4x4 pixels are too few \(", said)


def test_a_test_without_results_fails(trained: tuple[Path, str]) -> None:
    options = ("--dataroot", DATA, "--name", NAME, "--crop_size", "32", "--load_size", "1000000000000")
    finished = run(trained[0], "test.py", *options, "--results_dir", "nothing")
    assert finished.returncode == 2
    assert re.search(r"\nerror: .*testA: no image could be translated\. .*\n$", finished.stderr)
    assert not list((trained[0] / "nothing").rglob("index.html"))
