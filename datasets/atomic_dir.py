"""A folder that is created completely or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from util.errors import UserError


@contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """Yield an empty folder. Rename it to `target` when the body succeeds, remove it when the body fails.

    Raises:
        UserError: `target` exists and is not an empty folder, or it cannot be written.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: already exists. Remove it, or use another folder.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as tmp_dir:
            draft = Path(tmp_dir, target.name)  # not `tmp_dir` itself, which only its owner may read
            draft.mkdir()
            yield draft
            draft.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be created ({error}). Use another folder.") from error
