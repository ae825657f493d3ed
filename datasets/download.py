"""Download, check and unpack an archive. The download scripts call this program.

    python3 datasets/download.py URL FOLDER            the content of the archive becomes FOLDER
    python3 datasets/download.py --runs URL FOLDER     each run of the archive becomes FOLDER/<run>

The result is created completely or not at all. A partial download is kept in a hidden folder next to it, under a lock, so
that an interrupted download resumes and two commands do not disturb each other. Uses the standard library only.
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

from archive import ArchiveError, open_archive, unpack
from http_download import DownloadConfig, DownloadError, discard, download, log

fcntl: ModuleType | None
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

LOCK_POLL_INTERVAL = 0.5  # seconds between two attempts to lock
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130  # exit statuses


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(
        description="Download, check and unpack an archive.",
        epilog="`bash datasets/download_cut_dataset.sh --help` lists the environment variables.",
    )
    parser.add_argument("--runs", action="store_true", help="unpack each run of the archive to a folder of its own")
    parser.add_argument("url", help="address of a .zip or .tar")
    parser.add_argument("folder", type=Path, help="folder for its content")
    arguments = parser.parse_args()
    try:
        config = DownloadConfig(
            stall_timeout=positive_number("CUT_DOWNLOAD_STALL_SECONDS", default=30),
            max_tries=int(positive_number("CUT_DOWNLOAD_TRIES", default=4)),
            size_limit=int(1e9 * positive_number("CUT_SIZE_LIMIT_GB", default=20)),
        )
    except ValueError as error:
        log(f"error: {error}")
        return WRONG_USAGE
    try:
        (fetch_runs if arguments.runs else fetch_folder)(arguments.url, arguments.folder.absolute(), config)
    except (DownloadError, ArchiveError) as error:
        log(f"error: {error}")
        return FAILED
    except OSError as error:
        log(f"error: {error.strerror or error}: {error.filename or arguments.folder}")
        return FAILED
    except KeyboardInterrupt:
        log("interrupted; the partial download is kept, run the same command again to resume it")
        return INTERRUPTED
    return 0


def positive_number(variable: str, default: float) -> float:
    """Return the number in an environment variable. Raise ValueError with a message if it is not a positive number."""
    text = os.environ.get(variable, str(default))
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise ValueError(f"{variable}: expected a number above 0, got {text!a}.")
    return number


def fetch_folder(url: str, folder: Path, config: DownloadConfig) -> None:
    """Create `folder` from an archive that contains the files directly, or one folder with them."""
    with staging_dir(folder.parent, folder.name) as staging:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            print(f"{folder} already exists; remove it to download it again")
            return
        unpacked = fetch_unpacked(url, staging, config)
        entries = list(unpacked.iterdir())
        content = entries[0] if len(entries) == 1 and entries[0].is_dir() else unpacked
        content.rename(folder)
        print(f"{folder} is ready")


def fetch_runs(url: str, folder: Path, config: DownloadConfig) -> None:
    """Create a folder below `folder` for each run of the archive, unless it exists.

    The runs may be in a folder `checkpoints`, as in the published archive.
    """
    with staging_dir(folder, "released_weights") as staging:
        names_file = staging / "runs"
        names = names_file.read_text().splitlines() if names_file.exists() else []
        if names and all((folder / name).is_dir() for name in names):
            print(f"{folder} already has all runs: {', '.join(names)}")
            return
        unpacked = fetch_unpacked(url, staging, config)
        top = unpacked / "checkpoints"
        runs = sorted(path for path in (top if top.is_dir() else unpacked).iterdir() if path.is_dir())
        if not runs:
            raise ArchiveError(f"archive from {url} contains no folder of a run")
        for run in runs:
            target = folder / run.name
            if target.exists():
                print(f"{target} already exists and is kept")
            else:
                run.rename(target)
                print(f"{target} is ready")
        names_file.write_text("".join(f"{run.name}\n" for run in runs))


@contextmanager
def staging_dir(folder: Path, name: str) -> Iterator[Path]:
    """Yield a hidden folder in `folder`, on its file system, that no other command uses until the body ends.

    It remains after the body, with a partial download. Unpacked files that were not moved are removed.
    """
    staging = folder / ".downloads" / name
    staging.mkdir(parents=True, exist_ok=True)
    with (staging / "lock").open("w") as lock:
        try:
            if not try_lock(lock):
                log(f"another command is downloading {name}; waiting for it")
                while not try_lock(lock):
                    time.sleep(LOCK_POLL_INTERVAL)
        except OSError:  # some network file systems
            log(f"this file system has no locks: do not download {name} twice at the same time")
        try:
            yield staging
        finally:
            shutil.rmtree(staging / "unpacked", ignore_errors=True)


def try_lock(file: IO[str]) -> bool:
    """Lock the file. Return False if another process has locked it. Raise OSError if there are no locks."""
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


def fetch_unpacked(url: str, staging: Path, config: DownloadConfig) -> Path:
    """Download the archive to `staging`, check and unpack it. Return the folder with its content."""
    archive, unpacked = staging / "archive", staging / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # of a command that was killed
    log(f"downloading {url}")
    download(url, archive, config)
    try:
        log("checking the archive")
        with open_archive(archive, config.size_limit) as members:
            log(f"unpacking {sum(not member.is_dir for member in members)} files")
            unpack(members, unpacked)
    except ArchiveError as error:
        discard(archive)
        raise ArchiveError(f"archive from {url} {error}; it was removed") from None
    discard(archive)
    return unpacked


if __name__ == "__main__":
    sys.exit(main())
