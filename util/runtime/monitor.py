"""Notices that a run has diverged, before what it has become is saved."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from util.errors import DivergedError

# Steps between looks at the losses of a GPU, which has to be waited for: one wait in so many steps costs nothing.
CHECK_INTERVAL_GPU = 16


class _Step(NamedTuple):
    values: Tensor
    names: Sequence[str]
    place: str
    paths: Sequence[str]


class DivergenceMonitor:
    """Looks whether losses are finite: on the CPU after each step, on a GPU after every sixteenth, for all of them."""

    def __init__(self, device: torch.device) -> None:
        self.check_interval = 1 if device.type == "cpu" else CHECK_INTERVAL_GPU
        self.steps: list[_Step] = []

    def note(self, losses: Mapping[str, Tensor], place: str, paths: Sequence[str]) -> None:
        """Takes note of the losses of a step, of where in the run it was taken, and of the images it was taken on.

        Raises DivergedError where it is time to look, and a loss is infinite or no number.
        """
        if not losses:  # the batch waits for others of its step
            return
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self.steps.append(_Step(values, tuple(losses), place, paths))
        if len(self.steps) >= self.check_interval:
            self.look()

    def look(self) -> None:
        """Looks at what was noted since the last look. Raises DivergedError for the first loss that is not finite, and
        again whenever it is asked to look."""
        if not self.steps:
            return
        for step, values in zip(self.steps, torch.stack([step.values for step in self.steps]).tolist(), strict=True):
            for name, value in zip(step.names, values, strict=True):
                if not math.isfinite(value):
                    raise DivergedError(
                        f"the loss {name} is {value} {step.place}, on {', '.join(map(repr, step.paths))}: the run has "
                        "diverged. Its last checkpoint is kept; lower --lr, or look at these images, and go on from it "
                        "with --continue_train"
                    )
        self.steps.clear()


def check_finite(weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raises DivergedError where one of the networks' state dicts holds what is no number."""
    for name, state in weights.items():
        for key, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise DivergedError(
                    f"{key} of network {name} is not finite any more: the run has diverged, and is not saved. Its last "
                    "checkpoint is kept; lower --lr, and go on from it with --continue_train"
                )
