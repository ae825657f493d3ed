"""Mistakes that a user can make and mend: said in one sentence, with exit status 2 and without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, where, and what to do."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with `error: <message>` on stderr and status 2 when the body raises a `UserError`."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_STATUS)
