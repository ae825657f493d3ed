"""Learning-rate schedules: the factor on --lr is a pure function of the epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from util.runtime.image_counter import validate_count


@dataclass(frozen=True)
class EpochPlan:
    """Epochs of a run, counted from 1.

    Attributes:
        first: epoch that the run starts with.
        constant: number of epochs at the initial rate (--n_epochs).
        decay: number of epochs after them (--n_epochs_decay).
        step: epochs per stair of the step policy.
        cosine_restarts: the published cosine, which is back at the initial rate after twice `constant` epochs.
    """

    first: int
    constant: int
    decay: int
    step: int
    cosine_restarts: bool = False


def linear(epoch: int, plan: EpochPlan) -> float:
    """Return 1 up to epoch `constant`, then a linear decay. The last epoch has 1 / (decay + 1), never 0."""
    return 1.0 - max(0, epoch - plan.constant) / (plan.decay + 1)


def step(epoch: int, plan: EpochPlan) -> float:
    """Return a tenth of the factor after every `step` epochs."""
    return 0.1 ** ((epoch - plan.first) // plan.step)


def cosine(epoch: int, plan: EpochPlan) -> float:
    """Return half a cosine: from 1 in the first epoch towards 0 at the end of the run."""
    if plan.cosine_restarts:
        done, half_period = epoch - plan.first, plan.constant
    else:
        done, half_period = epoch - 1, plan.constant + plan.decay
    return 0.5 * (1.0 + math.cos(math.pi * done / max(1, half_period)))


SCHEDULES: dict[str, Callable[[int, EpochPlan], float]] = {"linear": linear, "step": step, "cosine": cosine}


class LRScheduler:
    """Learning rate of all optimizers of a run, changed once per epoch, and in every step of a warm-up.

    Its state is the epoch alone: the rates follow from the options, and the warm-up from the number of the step.
    """

    def __init__(self, lr: float, policy: str, plan: EpochPlan) -> None:
        """Args: lr is the initial rate; policy is a key of `SCHEDULES`."""
        self.initial_lr = lr
        self.factor = SCHEDULES[policy]
        self.plan = plan
        self.epoch = plan.first
        self.warm_up = 1.0  # factor in [0, 1]
        self._optimizers: list[Optimizer] = []

    @property
    def lr(self) -> float:
        """The learning rate of the current epoch and step."""
        return self.initial_lr * self.factor(self.epoch, self.plan) * self.warm_up

    def attach(self, optimizer: Optimizer) -> None:
        """Set the learning rate of this optimizer, now and in later epochs."""
        self._optimizers.append(optimizer)
        self._apply()

    def set_warm_up(self, factor: float) -> None:
        """Multiply the learning rate by a factor in [0, 1] from now on."""
        if factor != self.warm_up:
            self.warm_up = factor
            self._apply()

    def end_epoch(self) -> None:
        """Advance to the next epoch."""
        self.epoch += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and the first epoch of the run, from which the step policy counts."""
        return {"epoch": self.epoch, "first": self.plan.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Advance to the epoch of `state`."""
        self.epoch = validate_count(state["epoch"])
        self.plan = replace(self.plan, first=validate_count(state["first"]))
        self._apply()

    def _apply(self) -> None:
        for group in (group for optimizer in self._optimizers for group in optimizer.param_groups):
            if isinstance(group["lr"], Tensor):  # a captured step reads it from this tensor
                group["lr"].fill_(self.lr)
            else:
                group["lr"] = self.lr
