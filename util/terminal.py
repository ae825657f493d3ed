"""Lines on a terminal: broken between words, and above a progress bar."""

import os
import re
import sys
from typing import TextIO

from tqdm import tqdm
from tqdm.utils import disp_len

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
    return "\n  ".join(wrap_words(line, _width(stream), indent=2))


def wrap_words(text: str, width: int, indent: int = 0) -> list[str]:
    """Return lines of at most `width` columns. Words are not broken, so that paths can be copied.

    Unlike textwrap, it counts two columns for a Chinese character.

    Args:
        text: the words; spaces inside a line are kept.
        width: columns of a terminal.
        indent: columns that the caller adds before all lines but the first.
    """
    lines = [""]
    for word in re.findall(r"\s*\S+", text.expandtabs()):
        before = indent if len(lines) > 1 else 0
        if lines[-1] and before + disp_len(lines[-1] + word) > width:
            lines.append(word.lstrip())
        else:
            lines[-1] += word
    return lines


def _width(terminal: TextIO) -> int:
    """Return the columns of a terminal; 80 on a serial console without a size, and if the terminal has gone."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or DEFAULT_WIDTH
    except OSError:  # a connection is broken, and nohup lets the run go on
        return DEFAULT_WIDTH
