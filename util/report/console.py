"""Standard output that can print every file name there is."""

import sys
from io import TextIOWrapper


def print_any_name() -> None:
    """Escapes what standard output cannot encode, such as a file name that is not valid text, instead of failing there."""
    if isinstance(sys.stdout, TextIOWrapper):  # pytest and notebooks put other things in its place
        sys.stdout.reconfigure(errors="backslashreplace")
