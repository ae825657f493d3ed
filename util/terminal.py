"""Lines on a terminal: broken between words, and above a progress bar."""

import os
import sys
from textwrap import fill
from typing import TextIO

from tqdm import tqdm

DEFAULT_WIDTH = 80  # columns


def print_line(line: str, file: TextIO | None = None) -> None:
    """Print a line on `file`, by default standard output, above a progress bar. Can be called from any thread.

    On a terminal, a line that is too long is broken between words.
    """
    stream = sys.stdout if file is None else file
    tqdm.write(break_line(line, stream), file=stream)
    stream.flush()  # for `tail -f` on a file


def break_line(line: str, stream: TextIO) -> str:
    """Return the line, broken between words if `stream` is a terminal and narrower."""
    if not stream.isatty():
        return line
    width = _width(stream)
    return fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _width(terminal: TextIO) -> int:
    """Return the columns of a terminal; 80 on a serial console without a size, and if the terminal has gone."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or DEFAULT_WIDTH
    except OSError:  # a connection is broken, and nohup lets the run go on
        return DEFAULT_WIDTH
