"""What ends a program with a sentence and without a traceback, and the exit statuses: docs/reliability.md lists them."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FAILURE_STATUS = 1
USAGE_STATUS = 2
DIVERGED_STATUS = 3
INTERRUPTED_STATUS = 130  # as shells say it: 128 + SIGINT
TERMINATED_STATUS = 143  # 128 + SIGTERM
REFUSED_BY_THE_FILE_SYSTEM = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.EFBIG),
)


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, where, and what to do."""

    status = USAGE_STATUS


class PictureSizeError(UserError, ValueError):
    """A picture of a size that a network cannot take."""


class MachineError(UserError):
    """The machine has failed the program: a full disk, a process that died."""

    status = FAILURE_STATUS


class DivergedError(UserError):
    """A run's losses or weights are no numbers any more."""

    status = DIVERGED_STATUS


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with `error: <message>` on stderr: with its status when the body raises a `UserError`, with 1 when
    the disk is full, or does not let us write, or is gone."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        if error.errno not in REFUSED_BY_THE_FILE_SYSTEM:
            raise
        print(f"error: cannot write {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        sys.exit(FAILURE_STATUS)
