"""Checks an archive from the network before anything of it is written, and unpacks it without trusting it.

Both kinds, zip and plain tar, are reduced to a list of members that are files or folders; whatever else an archive can
hold (links, devices, owners, permissions) is refused or left out. Standard library only.
"""

import re
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple, cast

MOST_MEMBERS = 200_000
CHUNK = 1 << 20  # bytes
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
TAR_END = 1024  # bytes; every tar ends with at least two blocks of zeros
MAC_METADATA = "__MACOSX"  # a folder that macOS adds to a zip; its ._NAME.jpg are no images


class ArchiveError(Exception):
    """The archive is damaged or not to be trusted. The message is the reason, to follow the archive's name."""


class Member(NamedTuple):
    path: PurePosixPath  # relative, inside the folder that it is unpacked into
    size: int  # bytes, as declared
    is_folder: bool
    open: Callable[[], IO[bytes]]


@contextmanager
def opened_archive(path: Path, size_limit: int) -> Iterator[list[Member]]:
    """Yields the members of the zip or plain tar at `path`, which have been read to their end once and are at most
    `size_limit` bytes altogether. Raises ArchiveError where that cannot be."""
    with path.open("rb") as file:
        try:
            members = tar_members(file) if is_tar(file) else zip_members(file)
            check_size(members, size_limit)
            read_through(members)
        except ArchiveError:
            raise
        except Exception as error:  # the readers answer to damage with a dozen kinds, down to struct.error
            raise ArchiveError(f"is damaged ({error})" if str(error) else "is damaged") from error
        yield members


def is_tar(file: IO[bytes]) -> bool:
    file.seek(TAR_MAGIC_AT)
    found = file.read(len(TAR_MAGIC))
    file.seek(0)
    return found == TAR_MAGIC


def zip_members(file: IO[bytes]) -> list[Member]:
    archive = zipfile.ZipFile(file)
    members: list[Member] = []
    for info in archive.infolist():
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"holds {info.filename!a}, which is a link or a device")
        path = path_inside(info.orig_filename)
        if MAC_METADATA not in path.parts:
            members.append(Member(path, info.file_size, info.is_dir(), partial(archive.open, info)))
    return members


def tar_members(file: IO[bytes]) -> list[Member]:
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - `file` is closed by who opened it
    members: list[Member] = []
    for info in archive:
        if info.size < 0 or len(members) > MOST_MEMBERS:  # tarfile would follow a negative size in a circle
            raise ArchiveError("is damaged (its list of members leads nowhere)")
        if not info.isreg() and not info.isdir():
            raise ArchiveError(f"holds {info.name!a}, which is a link or a device")
        content = cast(Callable[[], IO[bytes]], partial(archive.extractfile, info))  # None is for what was refused above
        members.append(Member(path_inside(info.name), info.size, info.isdir(), content))
    file.seek(-TAR_END, 2)
    if any(file.read()):
        raise ArchiveError("is damaged (its end is missing)")
    return members


def path_inside(name: str) -> PurePosixPath:
    """The member's path. Raises ArchiveError for a name that leaves the folder, on any system, or no image has."""
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in name or re.match("[A-Za-z]:", name)
    if leaves or any(ord(letter) < ord(" ") for letter in name):
        raise ArchiveError(f"holds {name!a}, a name that may not be unpacked")
    return path


def check_size(members: list[Member], size_limit: int) -> None:
    if not any(not member.is_folder for member in members):
        raise ArchiveError("holds no file")
    if len(members) > MOST_MEMBERS:
        raise ArchiveError(f"holds {len(members)} members, more than {MOST_MEMBERS}")
    size = sum(member.size for member in members)
    if size > size_limit:
        raise ArchiveError(
            f"unpacks to {size / 1e9:.3g} GB, above the limit of {size_limit / 1e9:g}; CUT_SIZE_LIMIT_GB raises it"
        )


def read_through(members: list[Member]) -> None:
    for member in members:
        if not member.is_folder:
            size = 0
            with member.open() as content:
                while chunk := content.read(CHUNK):  # a zip's reader compares the checksum at the end
                    size += len(chunk)
            if size != member.size:
                raise ArchiveError(f"is damaged ({str(member.path)!a} has not the size that is stated)")


def is_no_windows_name(part: str) -> bool:
    """Return whether Windows refuses this name of a file or folder, or makes another one of it."""
    return PureWindowsPath(part).is_reserved() or part[-1] in ". " or any(letter in '<>:"|?*' for letter in part)


def unpack(members: list[Member], folder: Path) -> None:
    """Writes the members below `folder`, as the user's own new files. Raises ArchiveError for two of one name, also
    where it is the file system that holds two names for one, and for names that Windows does not have, on Windows."""
    for member in members:
        if sys.platform == "win32" and any(map(is_no_windows_name, member.path.parts)):
            raise ArchiveError(f"holds {str(member.path)!a}, a name that Windows does not allow")
        path = folder / member.path
        try:
            (path if member.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_folder:
                with member.open() as content, path.open("xb") as copy:
                    shutil.copyfileobj(content, copy)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError(f"holds {str(member.path)!a} twice") from None
