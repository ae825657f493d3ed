"""What ends a program with a sentence and without a traceback, and the exit statuses: docs/reliability.md lists them."""

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FAILURE_STATUS = 1
USAGE_STATUS = 2
DIVERGED_STATUS = 3
INTERRUPTED_STATUS = 130  # as shells say it: 128 + SIGINT
TERMINATED_STATUS = 143  # 128 + SIGTERM
UNREAD_STATUS = 141  # 128 + SIGPIPE
REFUSED_BY_THE_FILE_SYSTEM = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.EFBIG),
)
# How PyTorch says it, on the CPU and on GPUs; the last one of more bytes than can be counted.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")


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


def is_out_of_memory(error: Exception) -> bool:
    """Whether it was raised for want of memory, on whatever device."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """What a program does is done in here. Whatever ends it, it ends with an exit status and a sentence on stderr:

    - a `UserError`, with the error's status
    - a disk that is full, does not let us write, or is gone, with 1; memory that does not do, likewise
    - Ctrl-C, with 130
    - a reader of its output that has gone, such as `head`, with 141 and without a word, as it ends other programs
    """
    heed_interrupts()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what cannot be printed is known now, not when Python ends
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still has to print when it ends
        sys.exit(UNREAD_STATUS)
    except OSError as error:
        if error.errno not in REFUSED_BY_THE_FILE_SYSTEM:
            raise
        print(f"error: cannot write {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        sys.exit(FAILURE_STATUS)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        more = f", when {asked[1]} more were asked for" if asked else ""
        print(f"error: memory has run out{more}: give smaller pictures, batches or networks", file=sys.stderr)
        sys.exit(FAILURE_STATUS)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)


def heed_interrupts() -> None:
    """Has Ctrl-C raise KeyboardInterrupt again, after `util.start`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
