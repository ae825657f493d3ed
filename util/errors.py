"""What ends a program with a sentence and without a traceback, and the exit statuses: docs/fault_tolerance.md lists them."""

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

from util.signals import STOP_SIGNALS, Terminated, is_free, raise_terminated

FAILURE_STATUS = 1
USAGE_STATUS = 2
DIVERGED_STATUS = 3
SIGNALLED = 128  # added to the signal's number, as shells do
SIGPIPE_STATUS = 141  # 128 + SIGPIPE
FILESYSTEM_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.EFBIG),
)
# How PyTorch says it, on the CPU and on GPUs, and of more bytes than can be counted; the last one is how the system says it,
# to who starts a process.
OUT_OF_MEMORY = (
    *("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed"),
    os.strerror(errno.ENOMEM),
)


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, where, and what to do."""

    status = USAGE_STATUS


class ImageSizeError(UserError, ValueError):
    """An image of a size that a network cannot take."""


class EnvironmentFailure(UserError):  # noqa: N818
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
    - Ctrl-C, with 130; another stop signal, with 128 and its number
    - a reader of its output that has gone, such as `head`, with 141 and without a word, as it ends other programs
    """
    restore_sigint()
    try:
        try:
            yield
        except SystemExit:
            _flush(sys.stdout)
            raise
        _flush(sys.stdout)  # what cannot be printed is known now, not when Python ends
    except UserError as error:
        _end(error.status, f"error: {error}")
    except BrokenPipeError:
        if not _stdout_closed():
            raise
        sys.exit(SIGPIPE_STATUS)
    except (OSError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
            more = f", when {asked[1]} more were asked for" if asked else ""
            _end(FAILURE_STATUS, f"error: memory has run out{more}: give smaller images, batches or networks")
        if not isinstance(error, OSError) or error.errno not in FILESYSTEM_ERRNOS:
            raise
        _end(FAILURE_STATUS, f"error: cannot write {error.filename or 'a file'}: {error.strerror}")
    except Terminated as error:
        _end(stop_status(error), "terminated" if error.number == signal.SIGTERM else f"terminated by {error}")
    except KeyboardInterrupt as error:
        _end(stop_status(error), "interrupted")
    finally:
        _discard_broken_streams()


def stop_status(interruption: KeyboardInterrupt) -> int:
    """Return the exit status after a stop signal."""
    return SIGNALLED + (interruption.number if isinstance(interruption, Terminated) else signal.SIGINT)


def _end(status: int, sentence: str) -> NoReturn:
    with suppress(OSError):  # the status tells it to those who do not read
        print(sentence, file=sys.stderr)
    sys.exit(status)


def _stdout_closed() -> bool:
    """Whether an output's reader has gone, by an empty line: what could not be printed may have been forgotten."""
    try:
        for stream in (sys.stdout, sys.stderr):
            print(file=stream, flush=True)
    except BrokenPipeError:
        return True
    return False


def _discard_broken_streams() -> None:
    """Has what Python still prints when it ends go nowhere, where it cannot be printed: Python would end with a status of
    its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            _flush(stream)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _flush(stream: TextIO | None) -> None:
    if stream is not None:  # it is where the program was started without
        stream.flush()


def restore_sigint() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, after `util.start`, and the other stop signals raise Terminated, unless
    they are ignored or handled."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if number != signal.SIGINT and is_free(number):
                signal.signal(number, raise_terminated)
