"""Data loader workers: no shared memory, errors and deaths, and no effect on the end of the program."""

import os
import select
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from image_factory import fill, noise, ramp, two_domains
from programs import ENVIRONMENT, Finished, command
from torch.utils.data import Dataset
from training_processes import ENDLESS, RUN, STATE, reported

from data.workers import WorkerDiedError, WorkerError, Workers

# Containers: one with Docker's default of 64 MB shared memory, and one whose shared memory is full.
SMALL_SHM = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
FULL_SHM = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && { cat /dev/zero > /dev/shm/full 2>/dev/null; exec "$@"; }'


class Squares(Dataset[dict[str, torch.Tensor]]):
    """Tensors of a megabyte. Keys below 0 raise, key 1000 kills the worker."""

    def __getitem__(self, key: int) -> dict[str, torch.Tensor]:
        if key < 0:
            raise (MemoryError if key == -1 else ValueError)("cannot be read")
        if key == 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": torch.full((512, 512), key**2, dtype=torch.float32)}


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_items_come_in_order(num_workers: int) -> None:
    workers = Workers(Squares(), num_workers)
    for count in (7, 2, 0, 5):
        items = [item["square"] for item in workers.read(range(count))]
        assert [item[0, 0].item() for item in items] == [key**2 for key in range(count)]
        assert all(item.shape == (512, 512) for item in items)
        for item in items:
            item += 1  # not read-only
    workers.close()


def test_exceptions_of_a_worker_are_raised() -> None:
    workers = Workers(Squares(), 2)
    for key, kind in ((-1, MemoryError), (-2, WorkerError)):
        items = workers.read([0, key])
        next(items)
        with pytest.raises(kind, match="cannot be read"):
            next(items)


def test_a_dead_worker_is_reported_and_replaced() -> None:
    workers = Workers(Squares(), 2)
    items = workers.read([3, 1000, 4])
    next(items)
    with pytest.raises(WorkerDiedError):
        next(items)
    assert len(list(workers.read(range(3)))) == 3
    workers.close()


def test_new_workers_outlive_the_pipes_of_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def close_slowly(self: Connection) -> None:  # as when another thread takes over between two instructions
        os.close(self._handle)
        time.sleep(0.003)

    monkeypatch.setattr(Connection, "_close", close_slowly)
    for _ in range(60):
        workers = Workers(Squares(), 2)
        items = workers.read(range(3))
        next(items)
        items.close()
        assert len(list(workers.read(range(2)))) == 2
        workers.close()


def test_workers_end_with_a_program_that_is_killed() -> None:
    reader, writer = os.pipe()  # closes when all processes that can write have ended
    program = os.fork()
    if program == 0:
        readers = [Workers(Squares(), 3).read(range(9)) for _ in range(2)]
        for items in readers:
            next(items)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(program, 0)
    os.close(writer)
    assert select.select([reader], [], [], 60)[0], "a worker is still alive"
    os.close(reader)


def run_with_shm(shm: str, folder: Path, program: str, *arguments: str) -> Finished:
    """Run a program with another /dev/shm, which the script `shm` mounts."""
    launcher = ["unshare", "-m", "sh", "-c", shm, "sh"]
    probe = subprocess.run([*launcher, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"/dev/shm cannot be replaced here: {probe.stdout}{probe.stderr}")
    line = [*launcher, *command(program, *arguments)]
    return subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="mounts another /dev/shm")


@needs_linux
def test_no_shared_memory_is_needed(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=32, n_B=16, size=(40, 32))
    run = [*RUN, "--name", "run", "--num_threads", "2", "--batch_size", "16"]
    trained = run_with_shm(FULL_SHM, tmp_path, "train.py", *run, "--n_epochs", "1", "--n_epochs_decay", "0")
    assert (trained.returncode, trained.stderr) == (0, "")
    assert "End of epoch 1 / 1" in trained.stdout

    for domain in "AB":
        (tmp_path / "large" / f"test{domain}").mkdir(parents=True)
        noise(300, 200).save(tmp_path / "large" / f"test{domain}" / "0.png")
    tested = run_with_shm(
        FULL_SHM, tmp_path, "test.py", "--dataroot", "large", "--name", "run", "--preprocess", "none", "--num_threads", "2"
    )
    assert (tested.returncode, tested.stderr) == (0, "")
    assert "results: " in tested.stdout


@needs_linux
def test_shared_memory_of_a_container_is_enough_for_large_batches_and_images(tmp_path: Path) -> None:
    """Two prefetched batches of 16 images of 256 px have 100 MB as float32, an image of 3000x2400 px 86 MB."""
    two_domains(tmp_path / "data", n_A=32, n_B=32)
    tiny = ["--name", "run", "--netG", "resnet_4blocks", "--ngf", "1"]
    run = [
        *RUN,
        *tiny,
        "--ndf",
        "1",
        "--nce_layers",
        "0,8",
        "--batch_size",
        "16",
        "--load_size",
        "256",
        "--crop_size",
        "256",
    ]
    epochs = ["--n_epochs", "1", "--n_epochs_decay", "0", "--num_threads", "2"]
    trained = run_with_shm(SMALL_SHM, tmp_path, "train.py", *run, *epochs)
    assert (trained.returncode, trained.stderr) == (0, "")
    assert "End of epoch 1 / 1" in trained.stdout

    (tmp_path / "large" / "testA").mkdir(parents=True)
    ramp(3000, 2400).save(tmp_path / "large" / "testA" / "0.bmp")
    fill(tmp_path / "large" / "testB", 1)
    single = ["--dataroot", "large", "--preprocess", "none", "--num_threads", "2", *tiny]
    tested = run_with_shm(SMALL_SHM, tmp_path, "test.py", *single)
    assert (tested.returncode, tested.stderr) == (0, "")
    assert "results: " in tested.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_whose_workers_hang_can_be_stopped(tmp_path: Path, train, number: signal.Signals) -> None:
    two_domains(tmp_path / "data", n_A=5, n_B=3, size=(40, 32))

    def stop_workers(pid: int, output: Path) -> None:
        assert reported(2, pid, output)
        for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(worker), signal.SIGSTOP)
        os.kill(pid, number)

    ended = train(tmp_path, *RUN, *ENDLESS, "--name", "hanging", "--num_threads", "2", meanwhile=stop_workers)
    assert ended.status == 128 + number
    assert torch.load(tmp_path / "checkpoints" / "hanging" / STATE, weights_only=True)["steps_done"] >= 2
