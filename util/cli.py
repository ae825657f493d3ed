"""Command-line parsing and output shared by all programs."""

import errno
import math
import os
import re
import sys
import warnings
from argparse import (
    SUPPRESS,
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentParser,
    ArgumentTypeError,
    HelpFormatter,
    Namespace,
)
from collections.abc import Callable, Sequence
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

from util.cli_suggestions import suggest_options
from util.errors import USAGE_STATUS
from util.startup import clear_notice
from util.terminal import print_line
from util.version import format_version, program_version


class OptionFormatter(ArgumentDefaultsHelpFormatter):
    """Help formatter that prints the value of an option once, as Python 3.13 does: `-h, --help [WORD]`."""

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        return "YES/NO" if action.type is boolean else super()._get_default_metavar_for_optional(action)


class ConciseDefaultsFormatter(OptionFormatter):
    """Help formatter that prints the defaults of options, but not those of switches or of options without one."""

    def _get_help_string(self, action: Action) -> str | None:
        has_none = action.default is None or action.default is False or action.default == ""
        return action.help if has_none else super()._get_help_string(action)


class HelpAction(Action):
    """`--help` prints all options, `--help WORD` those whose name or help contains the word. Both exit."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        help = "show this message and exit; with WORD: only the options whose name or help contains it"
        super().__init__(option_strings, dest, default=SUPPRESS, nargs="?", metavar="WORD", help=help)

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None) -> None:
        if values is None:
            parser.print_help()
            parser.exit()
        print(format_matching_options(parser, values) or f"no option contains {values!r}\n", end="")
        parser.exit()


def format_matching_options(parser: ArgumentParser, word: str) -> str:
    """Return the help of the options whose name or help contains `word`, in any case; empty if there are none."""
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        texts = {action: " ".join([*action.option_strings, action.help or ""]) for action in group._group_actions}
        matching = [action for action, text in texts.items() if word.lower() in text.lower()]
        if matching:
            formatter.start_section(group.title)
            formatter.add_arguments(matching)
            formatter.end_section()
    return formatter.format_help()


class CLIParser(ArgumentParser):
    """Parser that reports an error in one line, without the usage, and takes no abbreviations.

    Options are parsed in stages, so an abbreviation could match another option in a later stage.
    """

    def __init__(
        self,
        formatter_class: type[HelpFormatter] = ConciseDefaultsFormatter,
        add_help: bool = True,
        find_elsewhere: Callable[[str], str | None] = lambda flag: None,
        **settings: Any,
    ) -> None:
        """Args: find_elsewhere returns a command that has an unknown option, such as "--model sincut", or None."""
        super().__init__(allow_abbrev=False, formatter_class=formatter_class, add_help=False, **settings)
        self.find_elsewhere = find_elsewhere
        version_help = "print the version and the commit, and exit"
        self.add_argument("--version", action=_VersionAction, nargs=0, default=SUPPRESS, help=version_help)
        # Values such as -1000,400 start with a dash, too. argparse asks this attribute what is a number.
        self._negative_number_matcher = re.compile(r"-\.?\d[\d.,e+-]*$")
        if add_help:
            self.add_help_option()

    def add_help_option(self) -> None:
        """Add -h and --help [WORD]."""
        self.add_argument("-h", "--help", action=HelpAction)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the arguments. If one is unknown, suggest another and exit with status 2."""
        parsed, unknown = self.parse_known_args(args, namespace)
        self.refuse_unknown(unknown)
        return parsed

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the known arguments. If a required one is missing, report unknown ones first: one may be its misspelling."""
        self._arguments = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def refuse_unknown(self, arguments: Sequence[str]) -> None:
        """Print an error with a suggestion and exit with status 2, unless there are no arguments."""
        if arguments:
            suggestion = suggest_options(arguments, self._option_string_actions, self.find_elsewhere)
            self.error(". ".join(filter(None, [f"unrecognized arguments: {' '.join(arguments)}", suggestion])))

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            flags = (argument.partition("=")[0] for argument in self._arguments if argument.startswith("--"))
            suggestion = suggest_options(
                [f for f in flags if f not in self._option_string_actions], self._option_string_actions
            )
            message = ". ".join(filter(None, [message, suggestion]))
        print_line(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        self.exit(USAGE_STATUS)


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
    if a stream was closed before the program started, or once its terminal has gone. Python's warnings appear above a
    progress bar.
    """
    clear_notice()
    sys.stdout = _robust(sys.stdout)
    sys.stderr = _robust(sys.stderr)
    if isinstance(sys.stdout, TextIOWrapper):  # pytest and notebooks replace it by other types
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of Python as usual, but above a progress bar."""
    tqdm.write(warnings.formatwarning(message, category, filename, lineno, line), file or sys.stderr, end="")


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
