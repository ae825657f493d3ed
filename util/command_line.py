"""What every program's command line has in common."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from typing import Any, NoReturn

from util.errors import USAGE_STATUS


class OneSentenceParser(ArgumentParser):
    """Says what is wrong in one sentence instead of after a page of usage, and takes no abbreviations: an abbreviation
    could come to mean another option in a later stage of parsing."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=ArgumentDefaultsHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_STATUS, f"error: {message} (see {self.prog} --help)\n")
