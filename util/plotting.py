"""Drawings for people, with matplotlib, which is optional."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from util.errors import UserError


@contextmanager
def figure_to_file(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yields a figure of matplotlib, `width` by `height` inches, and writes to `path` what the body has drawn on it.

    Raises UserError where matplotlib is not installed, or does not know the ending of `path`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--plot draws with matplotlib, which is not installed: pip install matplotlib") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=80)
    except ValueError as error:  # an ending that matplotlib does not know
        raise UserError(f"--plot {path}: {error}") from None
