"""A folder that appears when it is complete, or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from util.errors import UserError


@contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `target` when the body ends well, and goes when it does not.

    Raises UserError where `target` holds something already, or where it cannot be written.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already: remove it, or name another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            draft = Path(scratch, target.name)  # not `scratch` itself, which nobody else may read
            draft.mkdir()
            yield draft
            draft.rename(target)
    except OSError as error:
        raise UserError(f"{target} could not be made: {error}") from error
