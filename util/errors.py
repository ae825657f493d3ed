"""Mistakes that a user can make and mend: said in one sentence, with exit status 2 and without a traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FAILURE_STATUS = 1
USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
REFUSED_BY_THE_FILE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, where, and what to do."""


class PictureSizeError(UserError, ValueError):
    """A picture of a size that a network cannot take."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with `error: <message>` on stderr: with status 2 when the body raises a `UserError`, with 1 when the
    disk is full or does not let us write."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_STATUS)
    except OSError as error:
        if error.errno not in REFUSED_BY_THE_FILE_SYSTEM:
            raise
        print(f"error: cannot write {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        sys.exit(FAILURE_STATUS)
