"""A long haul with faults at random: the run ends with the very weights of one that nothing happened to."""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from image_factory import two_domains
from training_processes import Ended, kill, reported, same_end

TINY = ["--netG", "resnet_4blocks", "--ngf", "1", "--ndf", "1", "--load_size", "36", "--crop_size", "32", "--netF_nc", "2"]
RUN = [*TINY, "--num_patches", "4", "--nce_layers", "0,4", "--print_freq", "1", "--no_html", "--num_threads", "2"]
RUN += ["--save_epoch_freq", "10", "--keep_checkpoints", "2"]
IMAGES = 10  # in an epoch

Fault = Callable[[int, Path], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system for the disturbed run. Use an ordinary folder if nothing can be mounted."""
    place = tmp_path / "checkpoints" / "disturbed"
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True).returncode == 0
    yield place
    if mounted:
        subprocess.run(["umount", place], check=True)


def full_disk(place: Path, after: int) -> Fault:
    def fill(pid: int, output: Path) -> None:
        if not os.path.ismount(place):
            kill(signal.SIGTERM, after)(pid, output)
        elif reported(after, pid, output):
            with (place / "ballast").open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(b"x" * 4096)

    return fill


def dead_worker(after: int) -> Fault:
    """Kill a worker, and later the run itself."""

    def kill_one(pid: int, output: Path) -> None:
        if reported(after, pid, output):
            with suppress(OSError, IndexError):  # the run may end meanwhile
                os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]), signal.SIGKILL)
        kill(signal.SIGKILL, after + 6)(pid, output)

    return kill_one


def corrupt_image(data: Path, name: str, after: int) -> Fault:
    """Add a file that is not an image, and stop the run, so that it reads the file when it resumes."""

    def appear(pid: int, output: Path) -> None:
        (data / "trainA" / name).write_bytes(b"no image")
        kill(signal.SIGTERM, after)(pid, output)

    return appear


@pytest.mark.parametrize(("epochs", "steps_between"), [(4, 6), pytest.param(300, 150, marks=pytest.mark.slow)])
def test_a_disturbed_run_ends_as_an_undisturbed_one(
    tmp_path: Path, train: Callable[..., Ended], small_disk: Path, epochs: int, steps_between: int
) -> None:
    data = two_domains(tmp_path / "data", n_A=IMAGES, n_B=7, size=(40, 32))
    run = [*RUN, "--dataroot", "data", "--n_epochs", str(epochs // 2), "--n_epochs_decay", str(epochs - epochs // 2)]
    assert train(tmp_path, *run, "--name", "undisturbed").status == 0

    disturbed = [*run, "--name", "disturbed", "--save_latest_freq", "5"]
    rng, statuses = random.Random(0), []
    while 0 not in statuses:
        after = rng.randrange(1, steps_between)
        faults = [
            kill(signal.SIGTERM, after),  # first, so that the run has begun before there is a corrupt image
            full_disk(small_disk, after),
            corrupt_image(data, f"zz_{len(statuses)}.png", after),
            dead_worker(after),
            kill(signal.SIGKILL, after),
        ]
        begun = ["--continue_train"] if any(small_disk.glob("*_net_*")) else []
        ended = train(tmp_path, *disturbed, *begun, meanwhile=faults[len(statuses) % len(faults)])
        statuses.append(ended.status)
        assert ended.status in (0, 1, -signal.SIGKILL, 143), ended
        (small_disk / "ballast").unlink(missing_ok=True)
    assert len(statuses) > 5, "hardly anything has happened to the run"
    assert same_end(tmp_path, "undisturbed", "disturbed")


@pytest.mark.slow
def test_memory_and_open_files_stay_what_they_are(tmp_path: Path, train: Callable[..., Ended]) -> None:
    two_domains(tmp_path / "data", n_A=IMAGES, n_B=7, size=(40, 32))
    used: list[tuple[int, int]] = []

    def look(pid: int, output: Path) -> None:
        for steps in (1000, 4000):
            assert reported(steps, pid, output)
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            used.append((pages * os.sysconf("SC_PAGE_SIZE"), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())))

    run = [*RUN, "--dataroot", "data", "--name", "long", "--save_latest_freq", "50"]
    assert train(tmp_path, *run, "--n_epochs", "450", "--n_epochs_decay", "0", meanwhile=look).status == 0
    (early_memory, early_files), (late_memory, late_files) = used
    assert late_memory - early_memory < 20_000_000
    assert abs(late_files - early_files) <= 4  # what is open at the moment
    shutil.rmtree(tmp_path / "checkpoints")
