"""Plots with matplotlib, which is an optional package."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from util.errors import UserError


@contextmanager
def figure_to_file(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yield a matplotlib figure of `width` by `height` inches, and save it to `path` after the body.

    Raise UserError if matplotlib is not installed, or does not support the file extension.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--plot: matplotlib is not installed. Install it with `pip install matplotlib`.") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    try:
        figure.savefig(path, dpi=80)
    except ValueError as error:  # an unsupported file extension
        raise UserError(f"--plot {path}: {error}. Use another file extension.") from None
