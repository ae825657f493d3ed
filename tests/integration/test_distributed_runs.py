"""train.py in several processes, as users start it: it trains as one does, stops as one, goes on as any number."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from image_factory import noise, two_domains
from programs import ENVIRONMENT, command, succeed

from util.dir_lock import LOCK_FILE, lock_dir
from util.signals import STOPPING

TINY = [
    "--dataroot",
    "data",
    "--netG",
    "resnet_4blocks",
    "--ngf",
    "2",
    "--ndf",
    "2",
    "--load_size",
    "36",
    "--crop_size",
    "32",
]
CUT = [*TINY, "--netF_nc", "16", "--num_patches", "8", "--nce_layers", "0,4,8", "--print_freq", "1", "--batch_size", "4"]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
#: What `--gpu_ids 0,1` does, on the CPU.
AS_BY_GPU_IDS = (
    "import sys; from util.runtime.distributed import launch_processes; sys.exit(launch_processes(2, sys.argv[1:]))"
)

Losses = dict[tuple[int, int], list[float]]


def start(folder: Path, launcher: Sequence[str], *arguments: str) -> subprocess.Popen[str]:
    """Start train.py in `folder` with torchrun."""
    return subprocess.Popen(
        [*launcher, *command("train.py", *arguments)[1:]],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def losses(run_dir: Path) -> Losses:
    """Return the logged losses of a run by (epoch, images of the epoch)."""
    log = (run_dir / "loss_log.txt").read_text()
    lines = re.findall(r"^\(epoch: (\d+), iters: (\d+), .*?\) (.*)$", log, flags=re.MULTILINE)
    return {(int(epoch), int(iters)): [float(v) for v in re.findall(r": (\S+)", rest)] for epoch, iters, rest in lines}


def test_two_processes_are_stopped_and_one_goes_on_as_if_it_had_always_been_alone(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=12, n_B=6, size=(40, 32))
    launcher = [*TORCHRUN, "--nproc_per_node", "2"]
    with start(tmp_path, launcher, *CUT, "--name", "together", "--num_threads", "1", "--n_epochs", "1000") as training:
        assert training.stdout is not None
        assert any(line.startswith("(epoch: 1, iters: 8") for line in training.stdout)
        training.terminate()
        told, complained = training.communicate(timeout=250)
    assert training.returncode != 0
    assert told.count("saved: ") == 1
    assert complained.count("terminated\n") == 1

    # As long as the rate does not fall, steps do not depend on how many are to come.
    together = losses(tmp_path / "checkpoints" / "together")
    last_epoch = max(epoch for epoch, _ in together) + 1
    epochs = ["--n_epochs", str(last_epoch), "--n_epochs_decay", "0"]
    succeed(tmp_path, "train.py", *CUT, *epochs, "--name", "together", "--continue_train")
    succeed(tmp_path, "train.py", *CUT, *epochs, "--name", "alone")
    alone, resumed = (losses(tmp_path / "checkpoints" / name) for name in ("alone", "together"))
    assert resumed.keys() == alone.keys() > together.keys()
    for place, values in alone.items():
        assert resumed[place] == pytest.approx(values, abs=0.003), place


def test_what_one_process_cannot_do_is_said_once_and_ends_all(tmp_path: Path) -> None:
    data = two_domains(tmp_path / "data", n_A=8, n_B=8, size=(40, 40))
    (data / "trainA" / "05.png").unlink()
    noise(16, 16).save(data / "trainA" / "05.tif")  # of the second process; TIFFs are not measured beforehand
    with start(
        tmp_path, [sys.executable, "-c", AS_BY_GPU_IDS], *CUT, "--serial_batches", "--preprocess", "crop", "--name", "run"
    ) as training:
        told, complained = training.communicate(timeout=250)
    assert (training.returncode, complained.count("\n")) == (2, 1), complained
    assert re.match(r"error: .*05\.tif.* Lower --crop_size", complained)
    assert told.count("8 training images per epoch") == told.count("the CPU (1 thread), the first of 2 processes") == 1


def test_a_second_start_under_torchrun_is_refused(tmp_path: Path) -> None:
    """Only the main process locks the folder. Its error ends the other process too, and is printed once."""
    two_domains(tmp_path / "data", n_A=8, n_B=8, size=(40, 32))
    run_dir = tmp_path / "checkpoints" / "run"
    epochs = ["--n_epochs", "1", "--n_epochs_decay", "0"]
    with lock_dir(run_dir, "--name"):
        with start(tmp_path, [*TORCHRUN, "--nproc_per_node", "2"], *CUT, *epochs, "--name", "run") as training:
            _, complained = training.communicate(timeout=250)
        assert [path.name for path in run_dir.iterdir()] == [LOCK_FILE]
    assert training.returncode != 0
    assert complained.count(f"error: checkpoints/run: in use by process {os.getpid()} on ") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "complaint"),
    [
        (signal.SIGTERM, "terminated\n"),
        (signal.SIGHUP, "terminated by SIGHUP\n"),
        (signal.SIGUSR2, "terminated by SIGUSR2\n"),
    ],
)
def test_all_are_asked_at_once_to_stop_as_schedulers_do(tmp_path: Path, number: signal.Signals, complaint: str) -> None:
    two_domains(tmp_path / "data", n_A=8, n_B=8, size=(40, 40))
    with start(tmp_path, [sys.executable, "-c", AS_BY_GPU_IDS], *CUT, "--name", "run", "--num_threads", "1") as training:
        assert training.stdout is not None
        assert any(line.startswith("(epoch: 2") for line in training.stdout)
        for pid in [*children(training.pid), training.pid]:
            os.kill(pid, number)
        told, complained = training.communicate(timeout=100)
    assert (training.returncode, complained) == (128 + number, f"{STOPPING}\n{complaint}")
    assert told.count("saved: ") == 1


@pytest.mark.slow
def test_a_process_that_is_killed_takes_the_others_along(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=8, n_B=8, size=(40, 40))
    with start(tmp_path, [sys.executable, "-c", AS_BY_GPU_IDS], *CUT, "--name", "run") as training:
        assert training.stdout is not None
        assert any(line.startswith("(epoch: 2") for line in training.stdout)
        (second,) = [pid for pid in children(training.pid) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
        os.kill(second, signal.SIGKILL)
        _, complained = training.communicate(timeout=100)
    assert training.returncode == 1
    assert complained.endswith("error: process 1 of the run was killed by SIGKILL\n")
