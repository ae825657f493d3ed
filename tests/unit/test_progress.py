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
LOSSES = {"D_A": 0.25, "G_A": 0.312, "cycle_A": 1.24, "idt_A": 12.4, "D_B": 0.26, "G_B": 0.3, "cycle_B": 9.99, "idt_B": -0.6}
SHORT = "D .25/.26 G .31/.30 cyc 1.2/10 idt 12/-.60"
RUN = f"""
import time, warnings
from util.cli import configure_stdio
from util.progress import Progress
from util.terminal import print_line
configure_stdio()
progress = Progress(first_epoch=3, last_epoch=4, images_per_epoch=6)
for epoch, images in ((3, 5), (4, 6)):
    progress.start_epoch(epoch)
    for image in range(images):
        time.sleep(0.02)
        progress.log_losses(epoch, image, 0.02, 0.001, {LOSSES})
        progress.advance(1)
progress.close()
"""
POSITIONS = [(3, image) for image in range(5)] + [(4, image) for image in range(6)]
LINES = [f"epoch {epoch} image {image}  .02 s  {SHORT}" for epoch, image in POSITIONS]
LOG_LINES = [
    f"(epoch: {epoch}, iters: {image}, time: 0.020, data: 0.001) "
    + "".join(f"{name}: {value:.3f} " for name, value in LOSSES.items())
    for epoch, image in POSITIONS
]


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


def test_lines_and_the_bar_fit_80_columns() -> None:
    """Also warnings of Python, which are broken by their own newlines."""
    run = RUN.replace("progress.close()", "warnings.warn('careful')\nprogress.close()")
    rows = screen(on_terminal(columns=80, run=run))
    assert rows[: len(LINES)] == LINES
    assert rows[-2].endswith("UserWarning: careful") or rows[-3].endswith("UserWarning: careful"), rows
    assert re.fullmatch(rf"4/4 100% 00:00 left +\d+\.\d\d/s  {SHORT}", rows[-1]), rows[-1]
    assert max(map(len, rows)) <= 80


def test_a_wide_terminal_shows_a_bar() -> None:
    received = on_terminal(columns=110)
    assert re.search(r"4/4 \|.{16}\| \d+% \d\d:\d\d left ", received)
    assert screen(received)[:-1] == LINES


def test_a_short_epoch_does_not_shift_the_next() -> None:
    assert re.search(r"4/4 50% ", on_terminal(columns=80))


def test_images_before_a_resume_do_not_count_for_the_rate() -> None:
    run = RUN.replace("images_per_epoch=6", "images_per_epoch=2_000_006").replace(
        "progress.start_epoch(epoch)", "progress.start_epoch(epoch, images_done=2_000_000 if epoch == 3 else 0)"
    )
    run = run.replace("((3, 5), (4, 6))", "((3, 6),)")
    received = on_terminal(columns=80, run=run)
    assert re.search(r"3/4 50%", received)
    rates = [float(rate) for rate in re.findall(r"([\d.]+)/s", received)]
    assert rates and max(rates) < 1000


@pytest.mark.parametrize(
    "lines", [("one word after the other is", "printed"), ("馬馬馬馬馬馬馬 馬馬馬馬馬馬馬", "x")], ids=["words", "wide"]
)
def test_a_narrow_terminal_cuts_the_bar_instead_of_wrapping_it(lines: tuple[str, str]) -> None:
    """Lines are broken between words."""
    run = RUN.replace("progress.log_losses", f"print_line({' '.join(lines)!r}) #")
    assert screen(on_terminal(columns=30, run=run))[:-1] == [lines[0], f"  {lines[1]}"] * len(LINES)


def test_files_contain_plain_lines_only(tmp_path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as out_file, err.open("w") as err_file:
        subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, stdout=out_file, stderr=err_file, check=True)
    assert out.read_text().splitlines() == LOG_LINES
    assert err.read_text() == ""


def test_output_can_be_followed_during_the_run() -> None:
    run = RUN.replace("progress.close()", "import sys; sys.stdin.read()")  # runs until standard input is closed
    with subprocess.Popen(
        [sys.executable, "-c", run], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        hang_guard = threading.Timer(60, process.kill)
        hang_guard.start()
        assert [process.stdout.readline().rstrip("\n") for _ in LINES] == LOG_LINES
        hang_guard.cancel()
        process.stdin.close()
