"""train.py and test.py as users start them: as processes of their own, here in a folder of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# ASCII, so that a folder's name may hold what the console cannot show.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT["PYTHONUNBUFFERED"] = ""  # as users have it, whatever the tests are run with
QUIET = ["--gpu_ids", "-1", "--display_id", "-1", "--num_threads", "0"]

Finished = subprocess.CompletedProcess[str]


def command(program: str, *arguments: str) -> list[str]:
    """The command line of `program`, without a live view, on the CPU; the arguments win."""
    shared = QUIET if program == "train.py" else QUIET[:2]
    return [sys.executable, str(ROOT / program), *shared, *arguments]


def run(folder: Path, program: str, *arguments: str) -> Finished:
    """Runs a program of the project in `folder` to its end, whatever that is."""
    return subprocess.run(
        command(program, *arguments), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=250
    )


def succeed(folder: Path, program: str, *arguments: str) -> str:
    """As `run`; fails unless the program ends well and has nothing to complain of. Returns what it printed."""
    finished = run(folder, program, *arguments)
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


def refuse(folder: Path, program: str, *arguments: str) -> str:
    """As `run`; fails unless the program refuses the command: in one line, with status 2. Returns that line."""
    finished = run(folder, program, *arguments)
    assert (finished.returncode, finished.stderr[:7]) == (2, "error: "), finished
    (line,) = finished.stderr.splitlines()
    return line
