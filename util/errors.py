"""Errors that end a program with a message and without a traceback, and the exit statuses (docs/fault_tolerance.md)."""

import atexit
import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

from util.signals import Terminated, end_quietly, restore_sigint
from util.terminal import print_line

FAILURE_STATUS = 1
USAGE_STATUS = 2
DIVERGED_STATUS = 3
SIGNALLED = 128  # added to the signal's number, as shells do
SIGPIPE_STATUS = 141  # 128 + SIGPIPE
WRITE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
FILESYSTEM_ERRNOS = (*WRITE_ERRNOS, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE)
# PyTorch's messages on the CPU, on GPUs, and for a size that overflows; the last one is the system's, if a process cannot be
# started.
OUT_OF_MEMORY = (
    *("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed"),
    os.strerror(errno.ENOMEM),
)


class UserError(Exception):
    """An error that the user can fix. The message says what is wrong, where, and what to do."""

    status = USAGE_STATUS


class ImageSizeError(UserError, ValueError):
    """An image size that a network cannot process."""


class EnvironmentFailure(UserError):  # noqa: N818
    """A failure outside the program: a full disk, a process that died."""

    status = FAILURE_STATUS


class DivergedError(UserError):
    """Losses or weights of a run are not finite."""

    status = DIVERGED_STATUS


def is_out_of_memory(error: Exception) -> bool:
    """Return True if the error means that memory ran out, on any device."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Run the body of a program, and turn whatever ends it into an exit status and one line on stderr.

    - a `UserError`: the error's status
    - a full, read-only or missing disk, or too little memory: 1
    - Ctrl-C: 130; another stop signal: 128 plus its number
    - a closed reader of the output, such as `head`: 141 without a message, like other programs
    """
    restore_sigint()
    try:
        try:
            yield
        except SystemExit:
            _flush(sys.stdout)
            raise
        _flush(sys.stdout)  # raises here what would otherwise be raised at Python's exit
    except UserError as error:
        _end(error.status, f"error: {error}")
    except BrokenPipeError:
        if not _stdout_closed():
            raise
        sys.exit(SIGPIPE_STATUS)
    except (OSError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            wanted = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
            size = f" allocating {wanted[1]}" if wanted else ""
            _end(FAILURE_STATUS, f"error: out of memory{size}. Use smaller images, batches or networks.")
        if not isinstance(error, OSError) or error.errno not in FILESYSTEM_ERRNOS:
            raise
        _end(FAILURE_STATUS, f"error: {_file_problem(error)}")
    except Terminated as error:
        _end(stop_status(error), "terminated" if error.number == signal.SIGTERM else f"terminated by {error}")
    except KeyboardInterrupt as error:
        _end(stop_status(error), "interrupted")
    finally:
        atexit.register(end_quietly)  # first of all callbacks, and not before: a program that calls this one may go on
        _discard_broken_streams()


def _file_problem(error: OSError) -> str:
    if error.errno in WRITE_ERRNOS:
        return f"{error.filename or 'output'}: cannot be written ({error.strerror}). Check the disk."
    return f"{error.filename or 'a file'}: cannot be used ({error.strerror}). Check the path and the disk."


def stop_status(interruption: KeyboardInterrupt) -> int:
    """Return the exit status after a stop signal."""
    return SIGNALLED + (interruption.number if isinstance(interruption, Terminated) else signal.SIGINT)


def _end(status: int, message: str) -> NoReturn:
    with suppress(OSError):  # stderr may be closed; the status remains
        print_line(message, file=sys.stderr)
    sys.exit(status)


def _stdout_closed() -> bool:
    """Return True if the reader of stdout or stderr has gone. Print an empty line to each: a buffer may be empty by now."""
    try:
        for stream in (sys.stdout, sys.stderr):
            print(file=stream, flush=True)
    except BrokenPipeError:
        return True
    return False


def _discard_broken_streams() -> None:
    """Redirect a stream that cannot be flushed to the null device: Python's own flush at exit would change the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            _flush(stream)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _flush(stream: TextIO | None) -> None:
    if stream is not None:  # None if the program was started without the stream
        stream.flush()
