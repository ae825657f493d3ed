"""Writing a file so that nobody ever finds half of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields where to write what takes its place at `path` when the body ends well; otherwise `path` is as it was.

    The name to write to is that of a hidden file which ends as `path` does, by which libraries choose a format. The folder
    is made where there is none. (Checkpoints, several files that belong together, are written by runtime/checkpoints.py.)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".part.{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
