"""Lock of an output folder for one process at a time. The operating system releases it when the process ends.

It uses `fcntl.lockf`. A lock of `fcntl.flock`, which the package filelock uses, is inherited by forked data loader workers,
so it would be held for seconds after a training process was killed.
"""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType

from util.errors import UserError
from util.files import prepare_output_dir
from util.terminal import print_line

fcntl: ModuleType | None
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = ".cut_lock"
LOCKED_BYTE = 1 << 20  # Windows does not let others read locked bytes: lock one behind the text
HELD = (errno.EACCES, errno.EAGAIN)
TEXT_BYTES = 1000


@contextmanager
def lock_dir(folder: Path, flags: str) -> Iterator[bool]:
    """Create `folder` and lock it within the body. Yield False if the file system, such as a network share, has no locks.

    Folders that were created here are removed afterwards if they are still empty.

    Args:
        folder: output folder of a run or of a test.
        flags: command-line flags that choose the folder, for messages.

    Raises:
        UserError: another process has the lock, or no file can be written to the folder.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        prepare_output_dir(folder, flags)
        descriptor = _open_locked(folder / LOCK_FILE, flags)
        if descriptor is None:
            print_line(f"note: {folder}: this file system has no locks. Do not run two programs with this folder at a time.")
            yield False
            return
        try:
            _write_owner(descriptor)
            yield True
        finally:
            _remove(folder / LOCK_FILE, descriptor)
            os.close(descriptor)
    finally:
        for path in created:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def _open_locked(path: Path, flags: str) -> int | None:
    """Return the descriptor of the locked file, None if the file system has no locks. Raise UserError."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror}). Remove it, or change {flags}.") from None
        try:
            _lock(descriptor)
        except OSError as error:
            owner = _owner(descriptor) if error.errno in HELD else None
            os.close(descriptor)
            if owner is None:
                return None
            raise UserError(
                f"{path.parent}: in use by {owner or 'another process'}. Wait until it has ended, or change {flags}."
            ) from None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # its owner has removed it in between


def _owner(descriptor: int) -> str:
    """Return what the owner has written into the file."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, TEXT_BYTES).decode(errors="replace")


def _lock(descriptor: int) -> None:
    """Lock the file without waiting. Raise OSError."""
    if fcntl is not None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt = import_module("msvcrt")
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)


def _write_owner(descriptor: int) -> None:
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()} since {now}".encode())


def _is_at(path: Path, descriptor: int) -> bool:
    """Return True if `path` is still the file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path, descriptor: int) -> None:
    """Remove the lock file while it is locked. Windows does not remove open files; it stays there, without a lock."""
    with suppress(OSError):
        if _is_at(path, descriptor):
            path.unlink()
