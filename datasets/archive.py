"""Safe extraction of downloaded archives: check everything first, then unpack.

Zip and plain tar archives are reduced to a list of files and folders. Anything else in an archive is refused (links,
devices) or ignored (owners, permissions). Uses the standard library only.
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

MAX_MEMBERS = 200_000
CHUNK = 1 << 20  # bytes
TAR_MAGIC, TAR_MAGIC_OFFSET = b"ustar", 257
TAR_END_SIZE = 1024  # bytes; every tar ends with at least two zero blocks
MACOS_METADATA = "__MACOSX"  # a folder that macOS adds to a zip; its files ._NAME.jpg are not images


class ArchiveError(Exception):
    """The archive is damaged or unsafe. The message is a predicate that follows the archive's name."""


class ArchiveMember(NamedTuple):
    """A file or folder in an archive."""

    path: PurePosixPath  # relative to the folder that the archive is unpacked into
    size: int  # bytes, as declared
    is_dir: bool
    open: Callable[[], IO[bytes]]


@contextmanager
def open_archive(path: Path, size_limit: int) -> Iterator[list[ArchiveMember]]:
    """Open the zip or plain tar at `path`, verify all contents, and yield its members.

    Raises:
        ArchiveError: the archive is damaged or unsafe, or its members have more than `size_limit` bytes in total.
    """
    with path.open("rb") as file:
        try:
            members = tar_members(file) if is_tar(file) else zip_members(file)
            check_size(members, size_limit)
            verify_contents(members)
        except ArchiveError:
            raise
        except Exception as error:  # for damaged archives the readers raise many kinds of errors, down to struct.error
            raise ArchiveError(f"is damaged ({error})" if str(error) else "is damaged") from error
        yield members


def is_tar(file: IO[bytes]) -> bool:
    """Return True if the file has the signature of a tar."""
    file.seek(TAR_MAGIC_OFFSET)
    found = file.read(len(TAR_MAGIC))
    file.seek(0)
    return found == TAR_MAGIC


def zip_members(file: IO[bytes]) -> list[ArchiveMember]:
    """Return the members of a zip, without those added by macOS. Raise ArchiveError for an unsafe one."""
    archive = zipfile.ZipFile(file)
    members: list[ArchiveMember] = []
    for info in archive.infolist():
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"contains {info.filename!a}, which is a link or a device")
        path = safe_member_path(info.orig_filename)
        if MACOS_METADATA not in path.parts:
            members.append(ArchiveMember(path, info.file_size, info.is_dir(), partial(archive.open, info)))
    return members


def tar_members(file: IO[bytes]) -> list[ArchiveMember]:
    """Return the members of a plain tar. Raise ArchiveError for an unsafe one, or if the end of the tar is missing."""
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the caller closes `file`
    members: list[ArchiveMember] = []
    for info in archive:
        if info.size < 0 or len(members) > MAX_MEMBERS:  # tarfile would loop forever on a negative size
            raise ArchiveError("is damaged (its list of members is invalid)")
        if not info.isreg() and not info.isdir():
            raise ArchiveError(f"contains {info.name!a}, which is a link or a device")
        content = cast(
            Callable[[], IO[bytes]], partial(archive.extractfile, info)
        )  # None only for types that are refused above
        members.append(ArchiveMember(safe_member_path(info.name), info.size, info.isdir(), content))
    file.seek(-TAR_END_SIZE, 2)
    if any(file.read()):
        raise ArchiveError("is damaged (its end is missing)")
    return members


def safe_member_path(name: str) -> PurePosixPath:
    """Return the path of a member. Raise ArchiveError if the name is unsafe on any system, or has control characters."""
    path = PurePosixPath(name)
    is_outside = path.is_absolute() or ".." in path.parts or "\\" in name or re.match("[A-Za-z]:", name)
    if is_outside or any(ord(character) < ord(" ") for character in name):
        raise ArchiveError(f"contains {name!a}, an unsafe name")
    return path


def check_size(members: list[ArchiveMember], size_limit: int) -> None:
    """Raise ArchiveError if there is no file, or if there are too many members or bytes."""
    if not any(not member.is_dir for member in members):
        raise ArchiveError("contains no file")
    if len(members) > MAX_MEMBERS:
        raise ArchiveError(f"contains {len(members)} members, more than {MAX_MEMBERS}")
    size = sum(member.size for member in members)
    if size > size_limit:
        raise ArchiveError(f"unpacks to {size / 1e9:.3g} GB, above the limit of {size_limit / 1e9:g} (CUT_SIZE_LIMIT_GB)")


def verify_contents(members: list[ArchiveMember]) -> None:
    """Read every file to its end. Raise ArchiveError if a size is wrong; the readers raise on wrong checksums."""
    for member in members:
        if not member.is_dir:
            size = 0
            with member.open() as content:
                while chunk := content.read(CHUNK):  # the zip reader compares the checksum at the end
                    size += len(chunk)
            if size != member.size:
                raise ArchiveError(f"is damaged ({str(member.path)!a} does not have the declared size)")


def is_invalid_on_windows(part: str) -> bool:
    """Return True if Windows refuses this name of a file or folder, or changes it."""
    return PureWindowsPath(part).is_reserved() or part[-1] in ". " or any(character in '<>:"|?*' for character in part)


def unpack(members: list[ArchiveMember], folder: Path) -> None:
    """Write the members below `folder`, as new files of the user.

    Raises:
        ArchiveError: two members have one name, possibly only because the file system ignores case, or a name is invalid
            on Windows, on Windows.
    """
    for member in members:
        if sys.platform == "win32" and any(map(is_invalid_on_windows, member.path.parts)):
            raise ArchiveError(f"contains {str(member.path)!a}, a name that is invalid on Windows")
        path = folder / member.path
        try:
            (path if member.is_dir else path.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_dir:
                with member.open() as content, path.open("xb") as copy:
                    shutil.copyfileobj(content, copy)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError(f"contains {str(member.path)!a} twice") from None
