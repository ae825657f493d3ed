"""Faults during training: real processes, signals and disks. In the end, a run has the weights of an undisturbed run."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from image_factory import two_domains
from programs import ENVIRONMENT, ROOT, command
from tiny_models import checkpointer
from training_processes import ENDLESS, RUN, STATE, TWO_EPOCHS, kill, reported, same_end

from models import create_model
from options import TrainOptions
from util.signals import STOPPING


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, train) -> Path:
    """Return a folder with a dataset and an undisturbed run of two epochs, "whole"."""
    folder = tmp_path_factory.mktemp("faults")
    two_domains(folder / "data", n_A=5, n_B=3, size=(40, 32))
    assert train(folder, *RUN, *TWO_EPOCHS, "--name", "whole").status == 0
    return folder


def contents(run_dir: Path) -> dict[str, bytes]:
    """Return the checkpoints of a run."""
    return {path.name: path.read_bytes() for path in [*run_dir.glob("*.pth"), run_dir / STATE]}


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB at the folder of the run "small"."""
    place = folder / "checkpoints" / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_keeps_the_checkpoint_of_before(folder: Path, train, small_disk: Path) -> None:
    run = [*RUN, "--name", "small", "--save_latest_freq", "2"]
    assert train(folder, *run, *TWO_EPOCHS, meanwhile=kill(signal.SIGKILL, after=3)).status in (-9, 0)
    before = contents(small_disk)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)

    ended = train(folder, *run, *ENDLESS, "--continue_train")
    assert ended.status == 1
    assert ended.complained.startswith("error: ")
    assert ended.complained.endswith(": cannot be written (No space left on device). Check the disk.\n")
    assert ended.complained.count("\n") == 1
    assert contents(small_disk) == before

    ballast.unlink()
    assert train(folder, *run, *TWO_EPOCHS, "--continue_train").status == 0
    assert same_end(folder, "whole", "small")


class KillPoint(NamedTuple):
    """A call in a save that is replaced by SIGKILL. `number` counts the calls of this function in one save, from 0."""

    module: object
    function: str
    number: int

    def __str__(self) -> str:
        return f"{self.function} {self.number}"

    def arm(self) -> None:
        """Make this process kill itself at this call."""
        original, calls = getattr(self.module, self.function), itertools.count()

        def call_or_die(*arguments: object) -> object:
            if next(calls) == self.number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(self.module, self.function, call_or_die)


FILES = 5  # four networks and the state
KILL_POINTS = [
    KillPoint(module, function, n) for module, function in ((os, "fsync"), (Path, "replace")) for n in range(FILES)
]


@pytest.mark.parametrize("kill_point", [*KILL_POINTS, KillPoint(os, "fsync", FILES)], ids=str)
def test_a_save_that_is_killed_leaves_one_state_whole(tmp_path: Path, kill_point: KillPoint) -> None:
    command = ["--model", "cycle_gan", "--netG", "resnet_4blocks", "--ngf", "1", "--ndf", "1", "--gpu_ids", "-1"]
    opt = TrainOptions().parse([*command, "--checkpoints_dir", str(tmp_path), "--name", "run"])
    model = create_model(opt)
    checkpointer(model).save("latest")
    first = [{key: tensor.clone() for key, tensor in network.state_dict().items()} for network in model.networks.values()]

    model.steps_done = 1
    with torch.no_grad():
        for network in model.networks.values():
            for parameter in network.parameters():
                parameter += 1
    pid = os.fork()
    if pid == 0:
        kill_point.arm()
        checkpointer(model).save("latest")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    resumed = create_model(opt)
    assert checkpointer(resumed).resume()
    renaming = (kill_point.function == "replace" and kill_point.number > 0) or kill_point.number == FILES
    assert resumed.steps_done == renaming
    expected = [network.state_dict() for network in model.networks.values()] if renaming else first
    exported = create_model(opt)
    exported.load_networks("latest")
    for found in (resumed, exported):
        for network, state in zip(found.networks.values(), expected, strict=True):
            assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


def test_a_folder_that_vanishes_is_made_anew_for_the_last_checkpoint(folder: Path, train) -> None:
    def take_away(pid: int, output: Path) -> None:
        assert reported(2, pid, output)
        (folder / "checkpoints" / "gone").rename(folder / "elsewhere")

    run = [*RUN, "--name", "gone"]
    ended = train(folder, *run, *ENDLESS, meanwhile=take_away)
    assert ended.status == 1
    assert (
        ended.complained
        == "error: checkpoints/gone/loss_log.txt: cannot be used (No such file or directory). Check the path and the disk.\n"
    )
    state = torch.load(folder / "checkpoints" / "gone" / STATE, weights_only=True)
    assert state["steps_done"] >= 3


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_checkpoint(folder: Path, train) -> None:
    run = [*RUN, "--name", "diverging"]
    assert train(folder, *run, "--n_epochs", "1", "--n_epochs_decay", "0").status == 0
    run_dir = folder / "checkpoints" / "diverging"
    before = contents(run_dir)
    ended = train(folder, *run, *ENDLESS, "--continue_train", "--lr", "1e30")
    assert ended.status == 3
    assert ended.complained.startswith("error: the run has diverged: loss ")
    assert " in epoch 2, after " in ended.complained
    assert "data/trainA/0" in ended.complained
    assert ended.complained.count("\n") == 1
    assert contents(run_dir) == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2])
def test_a_stop_signal_saves_the_run(folder: Path, train, number: signal.Signals) -> None:
    run = [*RUN, "--name", number.name, "--num_threads", "1"]

    def signal_all(pid: int, output: Path) -> None:
        assert reported(2, pid, output)
        for process in (*Path(f"/proc/{pid}/task/{pid}/children").read_text().split(), pid):
            os.kill(int(process), number)

    ended = train(folder, *run, *ENDLESS, meanwhile=signal_all)
    assert (ended.status, ended.complained) == (128 + number, f"{STOPPING}\nterminated by {number.name}\n")
    state = torch.load(folder / "checkpoints" / number.name / STATE, weights_only=True)
    assert state["steps_done"] == ended.told.count("\n(epoch: ")


def test_a_worker_that_is_killed_is_replaced(folder: Path, train) -> None:
    def kill_a_worker(pid: int, output: Path) -> None:
        assert reported(1, pid, output)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGKILL)

    run = [*RUN, *TWO_EPOCHS, "--name", "replaced", "--num_threads", "2", "--prefetch_factor", "1"]
    ended = train(folder, *run, meanwhile=kill_a_worker)
    assert (ended.status, ended.complained) == (
        0,
        "a data loader worker died; starting new workers\n",
    )
    assert same_end(folder, "whole", "replaced")


def test_a_run_whose_workers_keep_dying_is_saved_and_stops(folder: Path, train) -> None:
    # In order, the third image comes after two steps. Each worker that reads it dies, and so do those in its place.
    run = [*RUN, *ENDLESS, "--name", "dying", "--serial_batches", "--num_threads", "2", "--prefetch_factor", "1"]
    ended = train(folder, *run, deadly="02.png")
    assert ended.status == 1
    *replaced, last = ended.complained.splitlines()
    assert replaced == ["a data loader worker died; starting new workers"] * 3
    assert last == (
        "error: --num_threads 2: data loader workers died 4 times in a row, probably because memory ran out. "
        "Lower --num_threads (0: no workers) or --batch_size."
    )
    state = torch.load(folder / "checkpoints" / "dying" / STATE, weights_only=True)
    assert state["steps_done"] == ended.told.count("\n(epoch: 1, ") == 2


def test_a_worker_that_dies_while_the_cache_fills_ends_the_run(folder: Path, train) -> None:
    run = [*RUN, *ENDLESS, "--name", "uncached", "--num_threads", "2", "--cache", "0.5"]
    ended = train(folder, *run, deadly="02.png")
    assert (ended.status, ended.complained) == (
        1,
        "error: --cache: a worker process died while it read images, probably because memory ran out. Use less than 0.5 GB, "
        "or lower --num_threads.\n",
    )
    assert not list((folder / "checkpoints" / "uncached").glob("*.pth")), "there was no step to save"


# After the training, an operation whose result depends on timing.
WITH_AN_UNSTABLE_OPERATION = "import torch, train; train.main(); torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))"


def test_a_deterministic_run_is_one_and_names_what_is_not(folder: Path, train) -> None:
    run = [*RUN, *TWO_EPOCHS, "--deterministic"]
    assert train(folder, *run, "--name", "once")[::2] == (0, "")
    _, _, *arguments = command("train.py", *run, "--name", "again")
    again = subprocess.run(
        [sys.executable, "-c", WITH_AN_UNSTABLE_OPERATION, *arguments],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert again.returncode == 0
    assert "put_ does not have a deterministic implementation" in again.stderr
    assert same_end(folder, "once", "again")


def test_a_run_is_not_replaced_unasked(folder: Path, train) -> None:
    before = contents(folder / "checkpoints" / "whole")
    again = [*RUN, *TWO_EPOCHS, "--name", "whole"]
    for changes, told in (
        ([], "error: --name whole: checkpoints/whole already contains a run. Resume it with --continue_train, "),
        (
            ["--lr", "0.1", "--num_threads", "1", "--batch_size", "2"],
            "error: --name whole: checkpoints/whole already contains a run with other options (--batch_size is 2, was 1; "
            "--lr is 0.1, was 0.0002). Resume it with --continue_train, ",
        ),
        (
            ["--continue_train", "--pretrained_name", "whole"],
            "error: --name whole: checkpoints/whole already contains a run. Resume it with --continue_train without "
            "--pretrained_name, ",
        ),
    ):
        ended = train(folder, *again, *changes)
        assert ended.status == 2
        assert ended.complained.startswith(told)
        assert ended.complained.count("\n") == 1
    assert contents(folder / "checkpoints" / "whole") == before


def test_a_run_is_replaced_when_asked_to_be(folder: Path, train) -> None:
    assert train(folder, *RUN, *TWO_EPOCHS, "--name", "replaced_run", "--lr", "0.1").status == 0
    assert train(folder, *RUN, *TWO_EPOCHS, "--name", "replaced_run", "--overwrite").status == 0
    assert same_end(folder, "whole", "replaced_run")


def test_old_checkpoints_make_room(folder: Path, train) -> None:
    many = ["--name", "many", "--save_epoch_freq", "1", "--save_by_iter", "--save_latest_freq", "3", "--n_epochs", "3"]
    assert train(folder, *RUN, *many, "--n_epochs_decay", "0", "--keep_checkpoints", "2").status == 0
    labels = {path.name.partition("_net_")[0] for path in (folder / "checkpoints" / "many").glob("*_net_G.pth")}
    assert labels == {"latest", "3", "iter_15"}


def test_nothing_left_to_train_is_said(folder: Path, train) -> None:
    ended = train(folder, *RUN, *TWO_EPOCHS, "--name", "whole", "--continue_train")
    assert ended.status == 0
    assert ended.told.endswith("nothing left to train: the last epoch is 2. Raise --n_epochs or --n_epochs_decay.\n")
