"""What a live view of a run is: something to show losses and pictures in that training never waits for."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch


class LiveView(Protocol):
    """Each method returns at once, whatever has become of the other side, and none raises for its sake."""

    def start(self, say: Callable[[str], None]) -> None:
        """Begins to show. `say` prints a line for the user; it may be called from another thread."""

    def losses(self, epoch: float, losses: Mapping[str, float]) -> None:
        """Continues the loss curves at `epoch`, whose fraction tells how much of the epoch is done."""

    def pictures(self, visuals: Mapping[str, torch.Tensor]) -> None:
        """Shows the first picture of each tensor (N, C, H, W) in [-1, 1] in place of those before."""

    def close(self) -> None:
        """Ends the view; what it has been given last may still be shown."""


class NoLiveView:
    """Stands in for a live view that is switched off."""

    def start(self, say: Callable[[str], None]) -> None:
        """Does nothing."""

    def losses(self, epoch: float, losses: Mapping[str, float]) -> None:
        """Does nothing."""

    def pictures(self, visuals: Mapping[str, torch.Tensor]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
