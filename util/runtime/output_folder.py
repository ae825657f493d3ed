"""Where a run writes to, made before any work is done for it."""

from pathlib import Path
from tempfile import TemporaryFile

from util.errors import UserError


def prepare_output_dir(folder: Path, flags: str) -> None:
    """Makes `folder` with its parents, and tries whether a file can be made in it.

    Raises UserError, with the `flags` that chose the folder, where either fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"nothing can be written to {folder} ({error.strerror}); check {flags}") from None
