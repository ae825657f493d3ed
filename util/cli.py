"""Command-line parsing and output shared by all programs."""

import errno
import math
import os
import re
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, HelpFormatter
from collections.abc import Callable
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO

from util.errors import USAGE_STATUS
from util.version import format_version, program_version


class ConciseDefaultsFormatter(ArgumentDefaultsHelpFormatter):
    """Help formatter that prints the defaults of options, but not those of switches or of options without one."""

    def _get_help_string(self, action: Action) -> str | None:
        has_none = action.default is None or action.default is False or action.default == ""
        return action.help if has_none else super()._get_help_string(action)


class CLIParser(ArgumentParser):
    """Parser that reports an error in one line, without the usage, and takes no abbreviations.

    Options are parsed in stages, so an abbreviation could match another option in a later stage.
    """

    def __init__(self, formatter_class: type[HelpFormatter] = ConciseDefaultsFormatter, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=formatter_class, **settings)
        self.add_argument("--version", action=_VersionAction, nargs=0, help="print the version and the commit, and exit")
        # Values such as -1000,400 start with a dash, too. argparse asks this attribute what is a number.
        self._negative_number_matcher = re.compile(r"-\.?\d[\d.,e+-]*$")

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_STATUS, f"error: {message} (see {self.prog} --help)\n")


class _VersionAction(Action):
    """Print the version. It is read when it is asked for, because git takes a moment."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> NoReturn:
        print(format_version(program_version()))
        parser.exit()


TRUE_WORDS = ("yes", "true", "t", "y", "1")
FALSE_WORDS = ("no", "false", "f", "n", "0")
# PyTorch counts with 64 bits: a larger value would fail later, in a place that does not name the option.
MAX_VALUE: dict[Callable[[str], Any], float] = {int: 10**15, float: 1e100}


def boolean(text: str) -> bool:
    """Parse yes/true/t/y/1 or no/false/f/n/0, in upper or lower case."""
    if text.lower() in TRUE_WORDS:
        return True
    if text.lower() in FALSE_WORDS:
        return False
    raise ArgumentTypeError(f"{text!r} is neither {'/'.join(TRUE_WORDS)} nor {'/'.join(FALSE_WORDS)}")


def _bounded(
    convert: Callable[[str], Any], accepts: Callable[[Any], bool], expected: str, max_value: float | None = None
) -> Callable[[str], Any]:
    """Return an argparse type that converts a text, and refuses values that are too large or not accepted."""
    limit = MAX_VALUE[convert] if max_value is None else max_value

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise ArgumentTypeError(f"{text!r} is not {expected}")
        if value > limit:
            raise ArgumentTypeError(f"{text!r} is too large, the maximum is {limit:g}")
        return value

    return parse


positive_int = _bounded(int, lambda value: value >= 1, "an integer of at least 1")
non_negative_int = _bounded(int, lambda value: value >= 0, "an integer of at least 0")
seed = _bounded(int, lambda value: value >= 0, "an integer of at least 0", 2**64 - 1)  # the range of torch.manual_seed
num_downsampling = _bounded(
    int, lambda value: 1 <= value <= 16, "an integer from 1 to 16"
)  # no image is large enough for more
image_size = _bounded(int, lambda value: 1 <= value <= 65535, "a number of pixels from 1 to 65535")
port = _bounded(int, lambda value: 0 <= value <= 65535, "an integer from 0 to 65535")
positive_float = _bounded(float, lambda value: 0 < value < math.inf, "a number above 0")
non_negative_float = _bounded(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
unit_interval = _bounded(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
decay_rate = _bounded(float, lambda value: 0 <= value < 1, "a number of at least 0 and less than 1")
float_ge_1 = _bounded(float, lambda value: 1 <= value < math.inf, "a number of at least 1")


def layer_list(text: str) -> str:
    """Parse integers separated by commas. They stay a text, as published."""
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a list of layers such as 0,4,8,12,16") from None
    return ",".join(map(str, numbers))


def set_declared_defaults(parser: ArgumentParser, **defaults: Any) -> None:
    """Set the defaults of options, without those that the parser does not declare: testing has fewer than training."""
    declared = {action.dest for action in parser._actions}
    parser.set_defaults(**{name: value for name, value in defaults.items() if name in declared})


def configure_stdio() -> None:
    """Make printing fail less often.

    stdout escapes characters that it cannot encode, such as those of a file name that is not valid text. Output is dropped
    if a stream was closed before the program started, or once its terminal has gone.
    """
    sys.stdout = _robust(sys.stdout)
    sys.stderr = _robust(sys.stderr)
    if isinstance(sys.stdout, TextIOWrapper):  # pytest and notebooks replace it by other types
        sys.stdout.reconfigure(errors="backslashreplace")


class _TerminalOutput(FileIO):
    """Terminal whose output is dropped after it has gone, as with a broken ssh connection."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return super().write(data)


def _robust(stream: TextIO | None) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w")
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
