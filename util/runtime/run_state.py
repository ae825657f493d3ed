"""What a run needs to go on as if it had never stopped, in one file of plain values that never runs code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from util.errors import UserError

FILE_NAME = "training_state.pt"


class Stateful(Protocol):
    """Something that a run remembers: its state is made of tensors, numbers, strings, lists and dicts of them."""

    def state_dict(self) -> dict[str, Any]:
        """What it has gathered so far."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


class Moments:
    """What an optimiser has gathered. Its rates are left out: they are the options', also where a run goes on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """The moments of every parameter, by its number."""
        return self.optimizer.state_dict()["state"]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes moments back, onto the parameters' device."""
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})


def read_run_state(path: Path) -> Mapping[str, Any] | None:
    """What the run left at `path`; None where there is no such file. Raises UserError where it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except Exception:  # torch's reader trips over damage in every way, and its messages advise to run what it refused
        state = None
    if not isinstance(state, Mapping):
        raise UserError(
            f"{path} is not the state of a run: it is cut short, damaged, or holds code, which is never run; remove it, and "
            "--continue_train starts from the weights beside it, with new optimisers"
        )
    return state
