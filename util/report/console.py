"""Standard output that can print every file name there is."""

import errno
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO


def configure_stdio() -> None:
    """Escapes what standard output cannot encode, such as a file name that is not valid text, instead of failing there.
    Where it, or standard error, was closed before the program began, what is printed goes nowhere; likewise once its
    terminal has gone."""
    sys.stdout = _lasting(sys.stdout)
    sys.stderr = _lasting(sys.stderr)
    if isinstance(sys.stdout, TextIOWrapper):  # pytest and notebooks put other things in its place
        sys.stdout.reconfigure(errors="backslashreplace")


class _TerminalOutput(FileIO):
    """A terminal. After it has gone (a broken ssh connection), output is dropped instead of failing."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return super().write(data)


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:
        return _nowhere()
    if not isinstance(stream, TextIOWrapper) or not stream.isatty():
        return stream
    stream.flush()
    return TextIOWrapper(
        BufferedWriter(_TerminalOutput(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
        write_through=stream.write_through,
    )


def _nowhere() -> TextIOWrapper:
    return Path(os.devnull).open("w")
