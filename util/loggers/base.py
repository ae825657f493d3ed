"""What a live view of a run is: something to show curves and images in that training never waits for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class TrainingPosition:
    """A point in the life of a run.

    Attributes:
        epoch: the current one, counted from 1.
        epochs_done: with its fraction: 2.4 is two fifths into epoch 3.
        images: trained on so far, each earlier epoch counted as the whole dataset.
    """

    epoch: int
    epochs_done: float
    images: int


class Logger(Protocol):
    """Each method returns at once, whatever has become of the other side, and none raises for its sake."""

    def start(self, say: Callable[[str], None]) -> None:
        """Begins to show. `say` prints a line for the user; it may be called from another thread."""

    def plot(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        """Continues the curves of a chart, such as "losses", each under its name."""

    def images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        """Shows the first image of each tensor (N, C, H, W) in [-1, 1]."""

    def close(self) -> None:
        """Ends the view; what it has been given last may still be shown."""


class LoggerGroup:
    """Several live views at once, or none."""

    def __init__(self, views: Sequence[Logger]) -> None:
        self.views = views

    def start(self, say: Callable[[str], None]) -> None:
        for view in self.views:
            view.start(say)

    def plot(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        for view in self.views:
            view.plot(chart, position, values)

    def images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        for view in self.views:
            view.images(position, visuals)

    def close(self) -> None:
        for view in self.views:
            view.close()
