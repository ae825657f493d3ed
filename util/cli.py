"""What every program's command line has in common."""

import errno
import math
import os
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, HelpFormatter
from collections.abc import Callable
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO

from util.errors import USAGE_STATUS


class ConciseDefaultsFormatter(ArgumentDefaultsHelpFormatter):
    """Help with the defaults of options, but not of those that have none, nor of switches."""

    def _get_help_string(self, action: Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default == ""
        return action.help if nothing else super()._get_help_string(action)


class CLIParser(ArgumentParser):
    """Says what is wrong in one sentence instead of after a page of usage, and takes no abbreviations: an abbreviation
    could come to mean another option in a later stage of parsing."""

    def __init__(self, formatter_class: type[HelpFormatter] = ConciseDefaultsFormatter, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=formatter_class, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_STATUS, f"error: {message} (see {self.prog} --help)\n")


TRUE_WORDS = ("yes", "true", "t", "y", "1")
FALSE_WORDS = ("no", "false", "f", "n", "0")
# Nobody means more, and PyTorch, which counts with 64 bits, would fail far from the option.
MAX_VALUE: dict[Callable[[str], Any], float] = {int: 10**15, float: 1e100}


def boolean(text: str) -> bool:
    """yes/true/t/y/1 or no/false/f/n/0, in any case."""
    if text.lower() in TRUE_WORDS:
        return True
    if text.lower() in FALSE_WORDS:
        return False
    raise ArgumentTypeError(f"{text!r} is neither {'/'.join(TRUE_WORDS)} nor {'/'.join(FALSE_WORDS)}")


def _bounded(
    convert: Callable[[str], Any], accepts: Callable[[Any], bool], expected: str, largest: float | None = None
) -> Callable[[str], Any]:
    most = MAX_VALUE[convert] if largest is None else largest

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise ArgumentTypeError(f"{text!r} is not {expected}")
        if value > most:
            raise ArgumentTypeError(f"{text!r} is too large: it may be {most:g} at most")
        return value

    return parse


positive_int = _bounded(int, lambda value: value >= 1, "a whole number of at least 1")
non_negative_int = _bounded(int, lambda value: value >= 0, "a whole number of at least 0")
seed = _bounded(int, lambda value: value >= 0, "a whole number of at least 0", 2**64 - 1)  # as PyTorch takes it
num_downsampling = _bounded(int, lambda value: 1 <= value <= 16, "a whole number from 1 to 16")  # more, no image can take
image_size = _bounded(int, lambda value: 1 <= value <= 65535, "a number of pixels from 1 to 65535")
port = _bounded(int, lambda value: 0 <= value <= 65535, "a whole number from 0 to 65535")
positive_float = _bounded(float, lambda value: 0 < value < math.inf, "a number above 0")
non_negative_float = _bounded(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
unit_interval = _bounded(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
decay_rate = _bounded(float, lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")
float_ge_1 = _bounded(float, lambda value: 1 <= value < math.inf, "a number of at least 1")


def layer_list(text: str) -> str:
    """Whole numbers separated by commas; kept as text, as published."""
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a list of layers such as 0,4,8,12,16") from None
    return ",".join(map(str, numbers))


def set_declared_defaults(parser: ArgumentParser, **defaults: Any) -> None:
    """Sets the defaults of those options that the parser declares; a test has fewer than a training run."""
    declared = {action.dest for action in parser._actions}
    parser.set_defaults(**{name: value for name, value in defaults.items() if name in declared})


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
