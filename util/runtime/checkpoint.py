"""The files of a run: the weights of its networks under a label, and what the run needs to go on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from util.errors import UserError
from util.runtime.distributed import is_main_process
from util.runtime.monitor import check_finite
from util.runtime.weights import (
    SAFETENSORS,
    cpu_state_dict,
    file_matches,
    has_partial_file,
    load_state,
    load_weights,
    prunable_checkpoints,
    read_safetensors,
    read_values,
    write_files,
)

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


OPTIONAL_ITEMS = ("accumulation", "averages", "evaluation")  # what a run may be asked for only when it goes on


class Checkpointer:
    """Writes and reads the files in a run's folder. Of several processes all read, and the main one alone writes.

    Networks go by their names, which are those of their files; averages are networks as well, but what they were averaged
    to is part of what the run remembers (`stateful`).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_path = folder / FILE_NAME

    def weights_path(self, label: str, name: str) -> Path:
        """Where the weights of the network `name` lie."""
        return self.folder / f"{label}_net_{name}.pth"

    def save_networks(self, label: str, networks: Mapping[str, nn.Module]) -> None:
        """Writes the networks' weights. Raises DivergedError and OSError as `save_run`."""
        if not is_main_process():
            return
        weights = {name: cpu_state_dict(network) for name, network in networks.items()}
        check_finite(weights)
        write_files({self.weights_path(label, name): state for name, state in weights.items()})

    def load_networks(self, label: str, networks: Mapping[str, nn.Module]) -> None:
        """Reads the networks' weights; safetensors of the same name where they lie there in place of ours.

        Raises UserError where a file is missing or belongs to another architecture.
        """
        for name, network in networks.items():
            path = self.weights_path(label, name)
            safetensors = path.with_suffix(SAFETENSORS)
            if safetensors.exists() and not path.exists():
                load_state(network, read_safetensors(safetensors), safetensors)
            else:
                load_weights(network, path)

    def save_run(
        self,
        labels: Sequence[str],
        networks: Mapping[str, nn.Module],
        averages: Mapping[str, nn.Module],
        stateful: Mapping[str, Stateful],
        steps_done: int,
        kept: int | None,
    ) -> None:
        """Writes networks and averages under each label, and what `resume` needs. Of the numbered checkpoints the `kept`
        newest stay; None: all.

        All files are complete on the disk before the first takes its place, that of `resume` before the others.

        Raises DivergedError where a weight is not finite, and OSError where the files cannot be written; those of before
        are then as they were.
        """
        if not is_main_process():
            return
        weights = {name: cpu_state_dict(network) for name, network in networks.items()}
        state = {
            "labels": list(labels),
            "steps_done": steps_done,
            "networks": dict(weights),
            "stateful": {name: thing.state_dict() for name, thing in stateful.items()},
        }
        weights |= {name: cpu_state_dict(network) for name, network in averages.items()}
        check_finite(weights)
        exports = {self.weights_path(label, name): weights[name] for label in labels for name in weights}
        write_files({**exports, self.state_path: state})
        if kept is not None:
            for path in prunable_checkpoints(self.folder, kept):
                path.unlink(missing_ok=True)

    def resume(
        self, networks: Mapping[str, nn.Module], averages: Mapping[str, nn.Module], stateful: Mapping[str, Stateful]
    ) -> int | None:
        """Gives back to all of them what `save_run` was last called with, and returns its `steps_done`; None where it never
        was called.

        Raises UserError where what it left is damaged, belongs to other networks, or is not what lies there under the same
        label.
        """
        state = read_run_state(self.state_path)
        if state is None:
            return None
        try:
            for name, network in networks.items():
                load_state(network, state["networks"][name], self.state_path)
            for name, thing in stateful.items():
                if name in state["stateful"] or name not in OPTIONAL_ITEMS:
                    thing.load_state_dict(state["stateful"][name])
            steps_done = validate_count(state["steps_done"])
            weights = {name: state["networks"][name] for name in networks}
            if "averages" in state["stateful"]:
                weights |= {name: cpu_state_dict(network) for name, network in averages.items()}
            exports = {
                self.weights_path(validate_label(label), name): weights[name]
                for label in state["labels"]
                for name in weights
            }
        except UserError:
            raise
        except Exception as error:  # whatever takes its state back may trip over what is damaged, in ways of its own
            raise state_mismatch(self.state_path, error) from None
        self._complete_interrupted_save(exports)
        return steps_done

    def _complete_interrupted_save(self, exports: Mapping[Path, Mapping[str, Tensor]]) -> None:
        """Completes a save that was broken off after the state had taken its place, and before all weights had.

        Raises UserError where weights differ from the state's for another reason: somebody put them there.
        """
        if not is_main_process():
            return
        differing = [path for path, weights in exports.items() if path.exists() and not file_matches(path, weights)]
        if differing and not any(map(has_partial_file, exports)):
            raise UserError(
                f"{differing[0]} is not what the run saved there together with {self.state_path}. To start from it, with "
                "new optimizers, remove the latter; to go on with the run, remove the former"
            )
        if differing:
            write_files(exports)
