"""What a run needs to go on as if it had never stopped, in one file of plain values that never runs code."""

import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch

from util.errors import UserError
from util.runtime.weights import read_values

FILE_NAME = "training_state.pt"
LABEL = re.compile(r"\w{1,64}")


class Stateful(Protocol):
    """Something that a run remembers: its state is made of tensors, numbers, strings, lists and dicts of them."""

    def state_dict(self) -> dict[str, Any]:
        """What it has gathered so far."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


class OptimizerState:
    """State of an optimizer, without its learning rates: these come from the options, also if a run is resumed."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """The moments of every parameter, by its number."""
        return self.optimizer.state_dict()["state"]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the moments to the device and the memory layout of their parameters.

        A run may be resumed with another layout, such as --channels_last. Fused Adam pairs the elements of a parameter and
        of its moments by their position in memory, so both need the same strides.

        Raises ValueError if the moments do not match the parameters, or are not finite.
        """
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        to_device: dict[Any, dict[str, torch.Tensor]] = {}
        for number, moments in state.items():
            parameter = parameters[int(number)]
            to_device[number] = {}
            for name, moment in moments.items():
                if name != "step" and moment.shape != parameter.shape:
                    raise ValueError(f"{name} of parameter {number} has another shape")
                if not torch.isfinite(moment).all():
                    raise ValueError(f"{name} of parameter {number} is not finite")
                to_device[number][name] = moment if name == "step" else torch.empty_like(parameter).copy_(moment)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": to_device})


def read_run_state(path: Path) -> Mapping[str, Any] | None:
    """What the run left at `path`; None where there is no such file. Raises UserError where it cannot be read."""
    try:
        state = read_values(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except Exception:  # torch's reader trips over damage in every way, and its messages advise to run what it refused
        state = None
    if not isinstance(state, Mapping):
        raise _refusal(path, "is cut short, damaged, or holds code, which is never run")
    return state


def validate_count(value: Any) -> int:
    """The value, where it is a whole number and not below 0. Raises ValueError where it is not."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def validate_label(value: Any) -> str:
    """The value, where it can begin the name of a file, and lead nowhere else. Raises ValueError where it cannot."""
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        raise ValueError(f"{value!r} is no label of a checkpoint")
    return value


def state_mismatch(path: Path, error: Exception) -> UserError:
    """What to say of a state that does not fit the run, because of the error that something raised that took it back."""
    return _refusal(path, f"does not fit this run ({shorten(f'{type(error).__name__}: {error}', 120)})")


def _refusal(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} {why}. Give the options that the run was started with; or remove the file, and --continue_train starts "
        "from the weights beside it, with new optimizers"
    )
