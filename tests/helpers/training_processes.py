"""train.py in real processes that can be killed, without waiting for torch to be imported by each.

`TrainingProcesses` is for tests. Run as a program, this is a parent that imports train.py once. For each line of JSON on its
standard input, {"folder", "arguments", "deadly"}, it forks a process that is `train.py arguments` in that folder, and
answers with its number, and with its status when it has ended. Of its workers, those die that open an image named `deadly`.
"""

import filecmp
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from programs import ENVIRONMENT, ROOT, command

STATE = "training_state.pt"
# Arguments of a small CUT run on the dataset "data", and of how long it trains.
NETWORKS = [
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
    "--netF_nc",
    "4",
]
RUN = ["--dataroot", "data", *NETWORKS, "--num_patches", "8", "--nce_layers", "0,4,8", "--print_freq", "1", "--no_html"]
TWO_EPOCHS = ["--n_epochs", "1", "--n_epochs_decay", "1"]
ENDLESS = ["--n_epochs", "100000"]


class Ended(NamedTuple):
    """How a training ended: its exit status, negative where a signal killed it, and what it printed."""

    status: int
    told: str
    complained: str


class TrainingProcesses:
    """The program's other end."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, __file__],
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        folder: Path,
        *arguments: str,
        meanwhile: Callable[[int, Path], None] | None = None,
        deadly: str | None = None,
    ) -> Ended:
        """`train.py arguments` in `folder`, quietly and on the CPU, to its end; `meanwhile` gets the number of the process
        and the file that it prints to. A worker process that opens an image named `deadly` is killed."""
        (folder / "stdout").unlink(missing_ok=True)  # of the process before
        _, _, *rest = command("train.py", *arguments)
        self.parent.stdin.write(json.dumps({"folder": str(folder), "arguments": rest, "deadly": deadly}) + "\n")
        self.parent.stdin.flush()
        pid = int(self.parent.stdout.readline())
        if meanwhile:
            meanwhile(pid, folder / "stdout")
        status = int(self.parent.stdout.readline())
        return Ended(status, (folder / "stdout").read_text(), (folder / "stderr").read_text())

    def close(self) -> None:
        """Ends the parent."""
        self.parent.stdin.close()
        self.parent.wait()
        self.parent.stdout.close()


def reported(steps: int, pid: int, output: Path) -> bool:
    """Waits until the training process has reported on so many steps with --print_freq 1; False where it ends before."""
    while not (output.exists() and output.read_text().count("\n(epoch: ") >= steps):
        if not Path(f"/proc/{pid}").exists():
            return False
        time.sleep(0.01)
    return True


def kill(number: int, after: int) -> Callable[[int, Path], None]:
    """For `TrainingProcesses.run`: sends the process the signal when it has reported on so many steps."""

    def wait_and_kill(pid: int, output: Path) -> None:
        if reported(after, pid, output):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    return wait_and_kill


def same_end(folder: Path, one: str, other: str) -> bool:
    """Whether two runs ended with the same weights, optimizers, pools and counters, byte for byte."""
    run_dir = folder / "checkpoints" / one
    files = [STATE, *sorted(path.name for path in run_dir.glob("latest_net_*.pth"))]
    assert len(files) > 1
    match, mismatch, errors = filecmp.cmpfiles(run_dir, folder / "checkpoints" / other, files, shallow=False)
    return (match, mismatch, errors) == (files, [], [])


def kill_workers_that_open(name: str) -> None:
    """Has every process but this one killed that opens an image of this name."""
    import data.image_io

    open_at_once, program = data.image_io._open_at_once, os.getpid()

    def open_or_die(path: str, flags: int) -> int:
        if Path(path).name == name and os.getpid() != program:
            os.kill(os.getpid(), signal.SIGKILL)
        return open_at_once(path, flags)

    data.image_io._open_at_once = open_or_die


def serve() -> None:
    import train

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(order["folder"])
            for name, stream in (("stdout", 1), ("stderr", 2)):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv[1:] = order["arguments"]
            if order["deadly"]:
                kill_workers_that_open(order["deadly"])
            train.main()
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
