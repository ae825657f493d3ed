"""What every program's command line has in common."""

from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser, HelpFormatter
from typing import Any, NoReturn

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
