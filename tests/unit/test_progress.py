"""The progress bar on a real pseudo-terminal, and plain lines in files and pipes."""

import os
import re
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

termios = pytest.importorskip("termios")
fcntl = pytest.importorskip("fcntl")

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import time
from util.progress import Progress
progress = Progress(first_epoch=3, last_epoch=4, images_per_epoch=6)
for epoch, images in ((3, 5), (4, 6)):
    progress.start_epoch(epoch)
    for image in range(images):
        time.sleep(0.02)
        progress.show_losses({"G_GAN": 0.5})
        progress.print(f"line {epoch}.{image}")
        progress.advance(1)
progress.close()
"""
LINES = [f"line 3.{image}" for image in range(5)] + [f"line 4.{image}" for image in range(6)]


def on_terminal(columns: int, run: str = RUN) -> str:
    """Return the output on a terminal that is both standard output and standard error of the run."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen([sys.executable, "-c", run], cwd=ROOT, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        received = b""
        while True:
            try:
                received += os.read(master, 65536)
            except OSError:  # the process has exited
                break
    os.close(master)
    assert process.returncode == 0, received
    return received.decode()


def screen(received: str) -> list[str]:
    """Return the final rows of a terminal that supports carriage return, newline and cursor up."""
    rows: dict[int, dict[int, str]] = defaultdict(dict)
    row = column = 0
    for token in re.findall(r"\x1b\[A|.", received, flags=re.DOTALL):
        if token == "\x1b[A":
            row -= 1
        elif token == "\n":
            row += 1
        elif token == "\r":
            column = 0
        else:
            rows[row][column] = token
            column += 1
    return ["".join(rows[row].get(at, " ") for at in range(120)).rstrip() for row in sorted(rows)]


def test_lines_appear_above_the_bar() -> None:
    rows = screen(on_terminal(columns=110))
    assert rows[:-1] == LINES
    assert re.fullmatch(r"epoch 4/4 \|\S{16}\| 100% \[00:00 left, +\d+\.\d\d images/s\], G_GAN 0\.500", rows[-1]), rows[-1]


def test_the_bar_shows_the_remaining_time() -> None:
    bars = re.findall(r"epoch 4/4 \|.{16}\| +\d+% \[\d\d:\d\d left, ", on_terminal(columns=110))
    assert bars, "no bar with the remaining time"


def test_a_short_epoch_does_not_shift_the_next() -> None:
    assert re.search(r"epoch 4/4 \|.{16}\|  50%", on_terminal(columns=110))


def test_images_before_a_resume_do_not_count_for_the_rate() -> None:
    run = RUN.replace("images_per_epoch=6", "images_per_epoch=2_000_006").replace(
        "progress.start_epoch(epoch)", "progress.start_epoch(epoch, images_done=2_000_000 if epoch == 3 else 0)"
    )
    run = run.replace("((3, 5), (4, 6))", "((3, 6),)")
    received = on_terminal(columns=110, run=run)
    assert re.search(r"epoch 3/4 \|.{16}\|  50%", received)
    rates = [float(rate) for rate in re.findall(r"([\d.]+) images/s", received)]
    assert rates and max(rates) < 1000


def test_a_narrow_terminal_shows_the_remaining_time_instead_of_the_bar() -> None:
    assert re.search(r"epoch 4/4  50% \[\d\d:\d\d left, ", on_terminal(columns=40))


def test_a_narrow_terminal_cuts_the_bar_instead_of_wrapping_it() -> None:
    assert screen(on_terminal(columns=30))[:-1] == LINES


def test_files_contain_plain_lines_only(tmp_path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as out_file, err.open("w") as err_file:
        subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, stdout=out_file, stderr=err_file, check=True)
    assert out.read_text().splitlines() == LINES
    assert err.read_text() == ""


def test_output_can_be_followed_during_the_run() -> None:
    run = RUN.replace("progress.close()", "import sys; sys.stdin.read()")  # runs until standard input is closed
    with subprocess.Popen(
        [sys.executable, "-c", run], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        hang_guard = threading.Timer(60, process.kill)
        hang_guard.start()
        assert [process.stdout.readline().strip() for _ in LINES] == LINES
        hang_guard.cancel()
        process.stdin.close()
