"""Fetches an archive, checks it, and puts what it holds in place: the worker behind the download scripts.

    python3 datasets/download.py URL FOLDER            the archive's content becomes FOLDER
    python3 datasets/download.py --runs URL FOLDER     each run of the archive becomes FOLDER/<run>

What is put in place appears whole or not at all. What is under way lies in a hidden folder beside it, under a lock, so
that an interrupted download is continued and two commands at a time do not disturb each other. Standard library only.
"""

import argparse
import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO

from archive import ArchiveError, opened_archive, unpack
from http_download import DownloadConfig, DownloadError, discard, download, say

fcntl: ModuleType | None
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

WAIT_SECONDS = 0.5  # between two looks at the lock of another command
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Fetches an archive, checks it, and puts what it holds in place.",
        epilog="`bash datasets/download_cut_dataset.sh --help` lists the environment's variables.",
    )
    parser.add_argument("--runs", action="store_true", help="the archive holds the folders of several runs")
    parser.add_argument("url", help="address of a .zip or .tar")
    parser.add_argument("folder", type=Path, help="where its content goes")
    arguments = parser.parse_args()
    try:
        limits = DownloadConfig(
            stall_seconds=positive_number("CUT_DOWNLOAD_STALL_SECONDS", default=30),
            tries=int(positive_number("CUT_DOWNLOAD_TRIES", default=4)),
            size=int(1e9 * positive_number("CUT_SIZE_LIMIT_GB", default=20)),
        )
    except ValueError as error:
        say(f"error: {error}")
        return WRONG_USAGE
    try:
        (fetch_runs if arguments.runs else fetch_folder)(arguments.url, arguments.folder.absolute(), limits)
    except (DownloadError, ArchiveError) as error:
        say(f"error: {error}")
        return FAILED
    except OSError as error:
        say(f"error: {error.strerror or error}: {error.filename or arguments.folder}")
        return FAILED
    except KeyboardInterrupt:
        say("interrupted; what was fetched is kept, and the same command goes on from there")
        return INTERRUPTED
    return 0


def positive_number(variable: str, default: float) -> float:
    """The number in an environment variable. Raises ValueError with a sentence for anything else."""
    text = os.environ.get(variable, str(default))
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise ValueError(f"{variable} is {text!a}; it takes a number above 0")
    return number


def fetch_folder(url: str, folder: Path, limits: DownloadConfig) -> None:
    """Makes the archive's content `folder`. An archive may hold the content itself, or one folder with it."""
    with staging_dir(folder.parent, folder.name) as shop:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            print(f"{folder} is there already; remove it to fetch it again")
            return
        unpacked = fetch_unpacked(url, shop, limits)
        entries = list(unpacked.iterdir())
        content = entries[0] if len(entries) == 1 and entries[0].is_dir() else unpacked
        content.rename(folder)
        print(f"{folder} is ready")


def fetch_runs(url: str, folder: Path, limits: DownloadConfig) -> None:
    """Puts each run of the archive below `folder`, leaving alone what is there. The archive may hold the runs in a
    folder `checkpoints`, as the published one does."""
    with staging_dir(folder, "released_weights") as shop:
        note = shop / "runs"
        known = note.read_text().splitlines() if note.exists() else []
        if known and all((folder / name).is_dir() for name in known):
            print(f"{folder} has all of them already: {', '.join(known)}")
            return
        unpacked = fetch_unpacked(url, shop, limits)
        top = unpacked / "checkpoints"
        runs = sorted(path for path in (top if top.is_dir() else unpacked).iterdir() if path.is_dir())
        if not runs:
            raise ArchiveError(f"what came from {url} holds no folder of a run")
        for run in runs:
            place = folder / run.name
            if place.exists():
                print(f"{place} is there already and stays as it is")
            else:
                run.rename(place)
                print(f"{place} is ready")
        note.write_text("".join(f"{run.name}\n" for run in runs))


@contextmanager
def staging_dir(folder: Path, name: str) -> Iterator[Path]:
    """A hidden place in `folder`, on its file system, for what is on its way there; ours alone until the body ends.

    It outlives the body: it keeps a download that was begun. What was unpacked and not put in place goes.
    """
    shop = folder / ".downloads" / name
    shop.mkdir(parents=True, exist_ok=True)
    with (shop / "lock").open("w") as lock:
        try:
            if not try_lock(lock):
                say(f"another command is fetching {name}; waiting for it")
                while not try_lock(lock):
                    time.sleep(WAIT_SECONDS)
        except OSError:  # some network file systems; most people who fetch there are alone
            say(f"this file system has no locks: do not fetch {name} twice at a time")
        try:
            yield shop
        finally:
            shutil.rmtree(shop / "unpacked", ignore_errors=True)


def try_lock(file: IO[str]) -> bool:
    """Return whether the file could be locked; False if another process has it. Raise OSError if there are no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt = import_module("msvcrt")
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def fetch_unpacked(url: str, shop: Path, limits: DownloadConfig) -> Path:
    """Fetches the archive into `shop`, checks it and unpacks it; returns the folder with its content."""
    archive, unpacked = shop / "archive", shop / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # left by a command that was killed
    say(f"fetching {url}")
    download(url, archive, limits)
    try:
        say("checking the archive")
        with opened_archive(archive, limits.size) as members:
            say(f"unpacking {sum(not member.is_folder for member in members)} files")
            unpack(members, unpacked)
    except ArchiveError as error:
        discard(archive)
        raise ArchiveError(f"what came from {url} {error}; it was removed") from None
    discard(archive)
    return unpacked


if __name__ == "__main__":
    sys.exit(main())
