"""Run train.py in real processes that can be killed, without importing torch for each of them.

`TrainingProcesses` is for tests. As a program, this file is the parent process: it imports train.py once. Each line of its
standard input is JSON, {"folder", "arguments", "deadly"}. For each line it forks a process that runs `train.py arguments`
in that folder, and prints its process id, then its exit status. Data loader workers that open an image named `deadly` are
killed.
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
# Arguments of a small CUT run on the dataset "data", and of its length.
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
    """The end of a training run: exit status (negative: killed by this signal), stdout and stderr."""

    status: int
    told: str
    complained: str


class TrainingProcesses:
    """Starts the parent process, and runs train.py in its children."""

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
        """Run `train.py arguments` in `folder` on the CPU until it ends.

        `meanwhile` is called with the process id and the file of its output. Data loader workers that open an image named
        `deadly` are killed.
        """
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
        """End the parent process."""
        self.parent.stdin.close()
        self.parent.wait()
        self.parent.stdout.close()


def reported(steps: int, pid: int, output: Path) -> bool:
    """Wait until --print_freq 1 has printed this many steps. Return False if the process ends before."""
    while not (output.exists() and output.read_text().count("\n(epoch: ") >= steps):
        if not Path(f"/proc/{pid}").exists():
            return False
        time.sleep(0.01)
    return True


def kill(number: int, after: int) -> Callable[[int, Path], None]:
    """Return a function for `meanwhile` that sends the signal after this many steps."""

    def wait_and_kill(pid: int, output: Path) -> None:
        if reported(after, pid, output):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    return wait_and_kill


def same_end(folder: Path, one: str, other: str) -> bool:
    """Return True if the weights and training states of two runs are equal, byte for byte."""
    run_dir = folder / "checkpoints" / one
    files = [STATE, *sorted(path.name for path in run_dir.glob("latest_net_*.pth"))]
    assert len(files) > 1
    match, mismatch, errors = filecmp.cmpfiles(run_dir, folder / "checkpoints" / other, files, shallow=False)
    return (match, mismatch, errors) == (files, [], [])


def kill_workers_that_open(name: str) -> None:
    """Kill every process except this one that opens an image of this name."""
    import data.image_io

    open_at_once, program = data.image_io._open_nonblocking, os.getpid()

    def open_or_die(path: str, flags: int) -> int:
        if Path(path).name == name and os.getpid() != program:
            os.kill(os.getpid(), signal.SIGKILL)
        return open_at_once(path, flags)

    data.image_io._open_nonblocking = open_or_die


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
