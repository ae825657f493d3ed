"""Learning-rate schedules: the factor on --lr as a pure function of the epoch, stepped once per epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from util.runtime.checkpoint import validate_count


@dataclass(frozen=True)
class EpochPlan:
    """The epochs of a run, counted from 1: full rate up to `constant`, then `decay` epochs more; `step` is the length of
    one stair of the step policy. `first` is the epoch that the run begins with. `cosine_restarts` asks for the published
    cosine, which is back at full rate after twice `constant` epochs."""

    first: int
    constant: int
    decay: int
    step: int
    cosine_restarts: bool = False


def linear(epoch: int, run: EpochPlan) -> float:
    """1 up to epoch `constant`, then down in equal steps; the last epoch has 1 / (decay + 1), never 0."""
    return 1.0 - max(0, epoch - run.constant) / (run.decay + 1)


def step(epoch: int, run: EpochPlan) -> float:
    """A tenth after every `step` epochs of the run."""
    return 0.1 ** ((epoch - run.first) // run.step)


def cosine(epoch: int, run: EpochPlan) -> float:
    """Half a cosine, from 1 in the first epoch down towards 0, once over the whole run."""
    if run.cosine_restarts:
        done, half_period = epoch - run.first, run.constant
    else:
        done, half_period = epoch - 1, run.constant + run.decay
    return 0.5 * (1.0 + math.cos(math.pi * done / max(1, half_period)))


SCHEDULES: dict[str, Callable[[int, EpochPlan], float]] = {"linear": linear, "step": step, "cosine": cosine}


class LRScheduler:
    """The learning rate of a run's optimizers, from epoch to epoch.

    What it remembers of a run is the epoch; the rates themselves are the options'.
    """

    def __init__(self, rate: float, policy: str, run: EpochPlan) -> None:
        """Args: rate is the full one; policy one of `SCHEDULES`."""
        self.full_rate = rate
        self.factor = SCHEDULES[policy]
        self.run = run
        self.epoch = run.first
        self._optimizers: list[Optimizer] = []

    @property
    def value(self) -> float:
        """The rate of the current epoch."""
        return self.full_rate * self.factor(self.epoch, self.run)

    def rule(self, optimizer: Optimizer) -> None:
        """Gives the optimizer the rate of the current epoch, and of those to come."""
        self._optimizers.append(optimizer)
        self._set()

    def end_epoch(self) -> None:
        """Goes to the next epoch."""
        self.epoch += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and the one that the run began with, which the step policy counts from."""
        return {"epoch": self.epoch, "first": self.run.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the epoch of `state`."""
        self.epoch = validate_count(state["epoch"])
        self.run = replace(self.run, first=validate_count(state["first"]))
        self._set()

    def _set(self) -> None:
        for group in (group for optimizer in self._optimizers for group in optimizer.param_groups):
            if isinstance(group["lr"], Tensor):  # a recorded step reads it from its place on the device
                group["lr"].fill_(self.value)
            else:
                group["lr"] = self.value
