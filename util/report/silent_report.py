"""A report on nothing: for processes that train along with the one that reports."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

import torch


class SilentVisualizer:
    """Stands in for a `Visualizer`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Does nothing."""

    def epoch(self, epoch: int, batches: Iterable[Mapping[str, Any]], images_done: int = 0) -> Iterator[Mapping[str, Any]]:
        """Hands on the batches."""
        yield from batches

    def losses(self, losses: Mapping[str, float], learning_rate: float) -> None:
        """Does nothing."""

    def aside(self) -> AbstractContextManager[None]:
        """Measures no time."""
        return nullcontext()

    def evaluation(self, figures: Mapping[str, float], taken_with: Sequence[Mapping[str, Any]] = ()) -> None:
        """Does nothing."""

    def visuals(self, visuals: Mapping[str, torch.Tensor], to_page: bool) -> None:
        """Does nothing."""

    def say(self, line: str) -> None:
        """Does nothing."""
