"""Standard output that can print every file name there is."""

import os
import sys
from io import TextIOWrapper
from pathlib import Path


def print_any_name() -> None:
    """Escapes what standard output cannot encode, such as a file name that is not valid text, instead of failing there.
    Where it, or standard error, was closed before the program began, what is printed goes nowhere."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    if isinstance(sys.stdout, TextIOWrapper):  # pytest and notebooks put other things in its place
        sys.stdout.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIOWrapper:
    return Path(os.devnull).open("w")
