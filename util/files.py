"""Writing a file so that nobody ever finds half of it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from util.errors import EnvironmentFailure
from util.files import hidden_temp_path, replace

BAD_NAME_ERRNOS = (errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)  # this file's place alone, not the disk


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields where to write what takes its place at `path` when the body ends well; otherwise `path` is as it was.

    The name to write to is that of a hidden file of this process alone. It ends as `path` does, by which libraries choose a
    format; no other process that writes to `path` at the same time is disturbed. The folder
    is made where there is none. (Checkpoints, several files that belong together, are written by runtime/checkpoints.py.)

    Raises EnvironmentFailure where nothing can be written by this name, and OSError where the disk refuses.
    """
    unfinished = hidden_temp_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in BAD_NAME_ERRNOS:
            raise
        raise EnvironmentFailure(f"cannot write {path}: {error.strerror}") from None
