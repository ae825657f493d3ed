"""Run train.py, test.py and the scripts as users do: in their own process and working directory."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# ASCII, so that folder names can contain characters that the console cannot show.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT["PYTHONUNBUFFERED"] = ""  # the default for users, whatever it is for the tests
QUIET = ["--gpu_ids", "-1", "--display_id", "-1", "--num_threads", "0"]

Finished = subprocess.CompletedProcess[str]


def command(program: str, *arguments: str) -> list[str]:
    """Return the command line of `program` on the CPU without visdom; `arguments` override this."""
    shared = QUIET if program == "train.py" else QUIET[:2]
    return [sys.executable, str(ROOT / program), *shared, *arguments]


def run(folder: Path, program: str, *arguments: str) -> Finished:
    """Run a program of the project in `folder` until it ends, with any exit status."""
    return subprocess.run(
        command(program, *arguments), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=250
    )


def succeed(folder: Path, program: str, *arguments: str) -> str:
    """Run a program and return its output. Fail if its exit status is not 0, or it prints to stderr."""
    finished = run(folder, program, *arguments)
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


def refuse(folder: Path, program: str, *arguments: str) -> str:
    """Run a program that must end with status 2 and an error message of one line. Return that line."""
    finished = run(folder, program, *arguments)
    assert (finished.returncode, finished.stderr[:7]) == (2, "error: "), finished
    (line,) = finished.stderr.splitlines()
    return line


def recording_browser(folder: Path) -> dict[str, str]:
    """Return the environment of a browser that writes the addresses it opens to a file in `folder`."""
    program = folder / "browser.py"
    program.write_text(
        "import sys; from pathlib import Path\n"
        "with Path(__file__).with_name('opened').open('a') as file: file.write(sys.argv[1] + '\\n')"
    )
    return {"BROWSER": f"{sys.executable} {program} %s"}


def opened_pages(folder: Path) -> list[str]:
    """Return the addresses that the browser of `recording_browser` has opened."""
    file = folder / "opened"
    return file.read_text().splitlines() if file.exists() else []
