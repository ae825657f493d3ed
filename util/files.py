"""Atomic writes: a reader finds a complete file or the previous one. Temporary files and their removal."""

import errno
import hashlib
import os
import platform
import re
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

import psutil

from util.errors import EnvironmentFailure, UserError

OWNER = r"(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}"
HIDDEN = re.compile(rf"\.part\.{OWNER}.*", re.DOTALL)
# The owner is missing from the names that earlier releases wrote.
CHECKPOINT = re.compile(rf"(?:.+_net_.+\.pth|training_state\.pt)(?:\.{OWNER})?\.part", re.DOTALL)
REPLACE_TRIES = 5
REPLACE_PAUSE = 0.1  # seconds between two tries


def hidden_temp_path(path: Path) -> Path:
    """Return a new hidden path beside `path` with the suffix of `path`, by which libraries choose a format."""
    return path.with_name(f".part.{_owner()}{path.suffix}")


def temp_path(path: Path) -> Path:
    """Return a new path beside `path` that starts with the name of `path`, so that `temp_paths_of` finds it."""
    return path.with_name(f"{path.name}.{_owner()}.part")


def temp_paths_of(path: Path) -> list[Path]:
    """Return the temporary files of `temp_path` for `path`, including those of releases that named no owner."""
    pattern = re.compile(rf"{re.escape(path.name)}(?:\.{OWNER})?\.part")
    return [file for file in path.parent.glob("*.part") if pattern.fullmatch(file.name)]


def stale_temp_files(files: Iterable[Path], alone: bool) -> Iterator[Path]:
    """Yield the temporary files and folders among `files` whose process has ended.

    Args:
        files: paths to check.
        alone: no other process writes to this folder (it is locked), so every temporary file is a leftover. Otherwise a
            file is a leftover only if its process ran on this machine and has ended, or if its name has no process.
    """
    for file in files:
        found = HIDDEN.fullmatch(file.name) or CHECKPOINT.fullmatch(file.name)
        if found and (alone or _has_ended(found["machine"], found["pid"])):
            yield file


def remove_stale_temp_files(files: Iterable[Path], alone: bool) -> None:
    """Remove the files that `stale_temp_files` yields. Other files are left alone."""
    for file in stale_temp_files(files, alone):
        with suppress(FileNotFoundError):  # another process removes leftovers as well
            file.unlink()


def replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`. Raise OSError.

    Windows refuses this while another program, such as a virus scanner, has `target` open. Try again for half a second.
    """
    for _ in range(REPLACE_TRIES - 1):
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(REPLACE_PAUSE)
    source.replace(target)


def _owner() -> str:
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def _machine() -> str:
    """Return 8 hex digits for the set of processes among which a process number is unique: the host, or a container."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not the path of a file
    except OSError:  # only Linux has them
        namespace = ""
    return f"{zlib.crc32(os.fsencode(platform.node() + namespace)):08x}"


def _has_ended(machine: str | None, pid: str | None) -> bool:
    if machine is None or pid is None:
        return True
    # A file with the number of this process is from an earlier process with this number, or from a failed write.
    return machine == _machine() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid)))


BAD_NAME_ERRNOS = (errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)  # about this name, not the disk


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` after the body. If the body fails, `path` stays unchanged.

    The temporary file is hidden, has the suffix of `path`, by which libraries choose a format, and a name that no other
    process uses. The folder is created if needed. Checkpoints, which consist of several files, use `weights.write_files`.

    Raises:
        EnvironmentFailure: no file can have this name.
        OSError: the disk fails.
    """
    tmp_path = hidden_temp_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield tmp_path
            replace(tmp_path, path)
        finally:
            tmp_path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in BAD_NAME_ERRNOS:
            raise
        raise EnvironmentFailure(f"{path}: cannot be written ({error.strerror}). Change its name.") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare_output_dir(folder: Path, flags: str) -> None:
    """Create `folder` with its parents, and check that a file can be created in it.

    Raises UserError, with the `flags` that choose the folder, if either fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: no file can be created ({error.strerror}). Check {flags}.") from None


def prepare_output_file(path: Path, flag: str) -> None:
    """Create the folder of a file to write, and check that the file can be created. Call it before a long computation.

    Raises UserError, with the `flag` that names the file, if either fails.
    """
    if path.is_dir():
        raise UserError(f"{flag} {path}: a folder. Give the name of a file.")
    prepare_output_dir(path.parent, flag)
