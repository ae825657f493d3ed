"""Two programs and one folder: the second one is refused, or neither disturbs the other. Real processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from generators import checkpoint
from image_factory import fill, two_domains
from programs import ENVIRONMENT, ROOT, command, refuse
from training_processes import ENDLESS, RUN, STATE, TWO_EPOCHS, TrainingProcesses, reported, same_end

from util.dir_lock import LOCK_FILE
from util.files import hidden_temp_path, remove_stale_temp_files, temp_path, temp_paths_of
from util.runtime.weights import has_partial_file, load_weights, save_weights

PYTHONPATH = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that can import the project."""
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(line, env=PYTHONPATH, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, train) -> Path:
    """Return a folder with a dataset and an undisturbed run of two epochs, "whole"."""
    folder = tmp_path_factory.mktemp("locks")
    two_domains(folder / "data", n_A=5, n_B=3, size=(40, 32))
    assert train(folder, *RUN, *TWO_EPOCHS, "--name", "whole").status == 0
    assert not (folder / "checkpoints" / "whole" / LOCK_FILE).exists()
    return folder


@pytest.fixture(scope="module")
def other() -> Iterator[TrainingProcesses]:
    """Run train.py while another one runs."""
    processes = TrainingProcesses()
    yield processes
    processes.close()


def test_a_run_has_one_process_and_a_killed_one_does_not_block(folder: Path, train, other: TrainingProcesses) -> None:
    (folder / "other").mkdir()
    shared = [*RUN, "--name", "busy"]
    elsewhere = [*shared, "--dataroot", "../data", "--checkpoints_dir", "../checkpoints"]
    refused, workers = [], []

    def start_others_and_kill(pid: int, output: Path) -> None:
        assert reported(2, pid, output)
        refused.extend(other.run(folder / "other", *elsewhere, *more) for more in ([], ["--continue_train"]))
        workers.extend(int(worker) for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        expected = rf"error: \.\./checkpoints/busy: in use by process {pid} on \S+ since 20\d\d-\d\d-\d\d [\d:+-]+\. Wait "
        for ended in refused:
            assert ended.status == 2
            assert re.match(expected, ended.complained)
            assert ended.complained.count("\n") == 1

    # The stopped workers outlive the killed process, and must not keep its lock.
    busy = ["--save_latest_freq", "1", "--num_threads", "2"]
    assert train(folder, *shared, *ENDLESS, *busy, meanwhile=start_others_and_kill).status == -9
    assert len(refused) == 2
    run_dir = folder / "checkpoints" / "busy"
    (run_dir / "latest_net_G.pth.01234567-1-01234567.part").touch()  # of another machine
    (run_dir / f"{STATE}.part").touch()  # of an earlier release
    restarted = train(folder, *shared, *TWO_EPOCHS, "--overwrite")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert (restarted.status, len(workers)) == (0, 2)
    assert not [*run_dir.rglob("*.part"), *run_dir.rglob(".*")]
    assert same_end(folder, "whole", "busy")


def test_a_refused_start_leaves_no_folder(folder: Path, train) -> None:
    assert train(folder, *RUN, "--continue_train", "--name", "typo", "--checkpoints_dir", "no/such").status == 2
    assert not (folder / "no").exists()


HOLD = """
import sys
from pathlib import Path
from util.dir_lock import lock_dir
with lock_dir(Path(sys.argv[1]), "--name"):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_results_folder_has_one_process(folder: Path) -> None:
    with start(HOLD, folder / "results" / "whole" / "train_latest") as holder:
        holder.stdout.readline()
        arguments = ["--dataroot", "data", "--name", "whole", "--phase", "train"]
        line = refuse(folder, "test.py", *arguments)
        assert f"results/whole/train_latest: in use by process {holder.pid} on " in line
        holder.stdin.close()
    assert not (folder / "results").exists()


COUNT = """
import os, sys, time
from pathlib import Path
from util.errors import UserError
from util.dir_lock import lock_dir
folder = Path(sys.argv[1])
for _ in range(30):
    while True:
        try:
            with lock_dir(folder / "contended", "--name"):
                os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails if another process is inside
                (folder / "inside").unlink()
            break
        except UserError:
            time.sleep(0.001)
"""


def test_processes_that_contend_for_a_folder_are_in_it_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "contended").mkdir()
    processes = [start(COUNT, tmp_path) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


@pytest.mark.parametrize("error", ["ENOLCK", "ENOTSUP", "EINVAL", "ENOSYS"])
def test_a_file_system_without_locks_is_noted(tmp_path: Path, error: str) -> None:
    code = f"import errno, fcntl\ndef lockf(*_): raise OSError(errno.{error}, '')\nfcntl.lockf = lockf\n"
    code += "from pathlib import Path\nfrom util.dir_lock import lock_dir\nwith lock_dir(Path('run'), ''): print('on')"
    told = subprocess.run([sys.executable, "-c", code], env=PYTHONPATH, cwd=tmp_path, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    assert re.fullmatch("note: run: this file system has no locks.*\non\n", told.stdout)


SAVE = """
import sys, torch
from pathlib import Path
from util.runtime.weights import save_weights
from util.files import atomic_write
for _ in range(50):
    save_weights(torch.nn.Linear(30, 30), Path(sys.argv[1], "latest_net_G.pth"))
    with atomic_write(Path(sys.argv[1], "page.html")) as tmp_file:
        tmp_file.write_text("a page")
"""


def test_processes_that_write_the_same_files_do_not_disturb_each_other(tmp_path: Path) -> None:
    processes = [start(SAVE, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    load_weights(torch.nn.Linear(30, 30), tmp_path / "latest_net_G.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest_net_G.pth", "page.html"]


LEAVE = """
import sys
from pathlib import Path
from util.files import hidden_temp_path, temp_path
for part in (hidden_temp_path(Path(sys.argv[1], "page.html")), temp_path(Path(sys.argv[1], "latest_net_G.pth"))):
    part.touch()
print(flush=True)
sys.stdin.read()
"""


def test_leftovers_of_ended_processes_alone_are_removed(tmp_path: Path) -> None:
    weights = tmp_path / "latest_net_G.pth"
    mine = [tmp_path / name for name in ("thesis.part", ".part.page.html", "part.txt")]
    for path in mine:
        path.touch()
    with start(LEAVE, tmp_path) as living:
        living.stdout.readline()
        remove_stale_temp_files(tmp_path.iterdir(), alone=False)
        assert len(list(tmp_path.iterdir())) == len(mine) + 2
        assert len(temp_paths_of(weights)) == 1
        assert has_partial_file(weights)
        living.kill()
    save_weights(torch.nn.Linear(1, 1), weights)
    assert not has_partial_file(weights)
    remove_stale_temp_files(tmp_path.iterdir(), alone=False)
    assert sorted(tmp_path.iterdir()) == sorted([*mine, weights])


def test_a_leftover_of_another_machine_is_removed_only_from_a_locked_folder(tmp_path: Path) -> None:
    for name in (".part.01234567-1-01234567.html", "latest_net_G.pth.01234567-1-01234567.part"):
        (tmp_path / name).touch()
    remove_stale_temp_files(tmp_path.iterdir(), alone=False)
    assert len(list(tmp_path.iterdir())) == 2
    remove_stale_temp_files(tmp_path.iterdir(), alone=True)
    assert not list(tmp_path.iterdir())


def test_names_of_temporary_files_end_as_their_targets_and_are_never_too_long() -> None:
    target = Path("a" * 251 + ".png")
    part = hidden_temp_path(target)
    assert part.suffix == ".png"
    assert len(part.name) < 100
    assert part != hidden_temp_path(target)
    assert temp_path(target) != temp_path(target)


def test_several_translations_resume_in_one_folder(tmp_path: Path) -> None:
    fill(tmp_path / "in", 30)
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "run")), "--input", "in", "--output", "out", "--resume"]
    line = command("scripts/translate.py", *arguments)
    (tmp_path / "out").mkdir()
    with start(LEAVE, tmp_path / "out") as ended:
        ended.stdout.readline()
        ended.kill()
    processes = [subprocess.Popen(line, cwd=tmp_path, env=ENVIRONMENT) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    results = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("latest_net_G"))
    assert results == [f"{number:02}.png" for number in range(30)]
