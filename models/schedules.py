"""Learning-rate schedules: the factor on --lr as a pure function of the epoch, stepped once per epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Epochs:
    """The epochs of a run, counted from 1: full rate up to `constant`, then `decay` epochs more; `step` is the length of
    one stair of the step policy. `first` is the epoch that the run begins with. `cosine_climbs` asks for the published
    cosine, which is back at full rate after twice `constant` epochs."""

    first: int
    constant: int
    decay: int
    step: int
    cosine_climbs: bool = False


def linear(epoch: int, run: Epochs) -> float:
    """1 up to epoch `constant`, then down in equal steps; the last epoch has 1 / (decay + 1), never 0."""
    return 1.0 - max(0, epoch - run.constant) / (run.decay + 1)


def step(epoch: int, run: Epochs) -> float:
    """A tenth after every `step` epochs of the run."""
    return 0.1 ** ((epoch - run.first) // run.step)


def cosine(epoch: int, run: Epochs) -> float:
    """Half a cosine, from 1 in the first epoch down towards 0, once over the whole run."""
    if run.cosine_climbs:
        done, half_period = epoch - run.first, run.constant
    else:
        done, half_period = epoch - 1, run.constant + run.decay
    return 0.5 * (1.0 + math.cos(math.pi * done / max(1, half_period)))


SCHEDULES: dict[str, Callable[[int, Epochs], float]] = {"linear": linear, "step": step, "cosine": cosine}
