"""Checkpoints of a run: the weights of its networks, and the training state that an exact resume needs.

`<run_dir>/<label>_net_<name>.pth` are plain state dicts, as published. `<run_dir>/training_state.pt` holds weights,
optimizer states and counters as plain values. Loading it never runs code.
"""

import re
from argparse import Namespace
from collections.abc import Collection, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from util.errors import UserError
from util.runtime.distributed import is_main_process
from util.runtime.ema import ModelEMA
from util.runtime.image_counter import ImageCounter, validate_count
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
from util.terminal import print_line

STATE_FILE = "training_state.pt"
LABEL = re.compile(r"\w{1,64}")
OPTIONAL_ITEMS = ("accumulation", "averages", "evaluation", "lecam")  # may be enabled when a run is resumed


class Stateful(Protocol):
    """Part of a run that a checkpoint contains. Its state consists of tensors, numbers, strings, lists and dicts."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned. Raise an exception if it does not fit."""


class CheckpointedModel(Protocol):
    """The part of a model that a checkpoint contains."""

    networks: dict[str, nn.Module]
    ema: ModelEMA | None
    checkpoint_items: dict[str, Stateful]
    steps_done: int
    images_done: int

    @property
    def generators(self) -> dict[str, nn.Module]:
        """The networks that translate."""

    @property
    def saved_networks(self) -> dict[str, nn.Module]:
        """All networks that have a weights file."""

    def load_networks(self, label: str, run: str | None = None) -> Collection[str]:
        """Load the weights of a run. Return the names of networks that another `run` has no weights for."""


class OptimizerState:
    """State of an optimizer without its learning rates, which follow from the options."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the moments of every parameter, by its number."""
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


class Checkpointer:
    """Save and resume a run. Every process reads; only rank 0 writes.

    Args:
        run_dir: directory of the run.
        model: its networks, optimizers and step counter.
        counter: position of the run in epochs and images.
        dataset: list of training images.
        validator: last and best metrics.
        keep: number of numbered checkpoints to keep; None keeps all.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        model: CheckpointedModel,
        counter: ImageCounter | None = None,
        dataset: Stateful | None = None,
        validator: Stateful | None = None,
        keep: int | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.state_path = run_dir / STATE_FILE
        self.model = model
        self.counter = counter or ImageCounter()
        self.keep = keep
        self.resumed = False  # True once `resume_or_load` has restored the training state
        self._items = {"images": counter, "pictures": dataset, "evaluation": validator}  # names in the state file

    def resume_or_load(self, opt: Namespace) -> ImageCounter:
        """Resume the run with --continue_train, or load weights, and return the position to start from.

        Without a training state, or with --epoch, --epoch_count or --pretrained_name, only weights are loaded, as published.
        Networks that --pretrained_name lacks start from scratch; with --pretrained_G, all but the first generator do.
        """
        if opt.pretrained_G is not None:
            (name, generator), *_ = self.model.generators.items()
            load_weights_file(generator, Path(opt.pretrained_G))
            print_line(f"loaded the weights of {name} from {opt.pretrained_G}")
            warn_from_scratch(opt.pretrained_G, self.model.networks.keys() - {name}, opt.warm_up_D)
            return self.counter
        if not opt.continue_train:
            return self.counter
        exact = opt.epoch == "latest" and opt.pretrained_name is None and "epoch_count" not in opt.explicit
        self.resumed = exact and self.resume()
        if self.resumed:
            counter = self.counter
            print_line(
                f"resumed in epoch {counter.epoch} after {counter.images_in_epoch} of its images "
                f"({counter.total_images} in total)"
            )
        else:
            missing = self.model.load_networks(opt.epoch, opt.pretrained_name)
            warn_from_scratch(opt.pretrained_name, missing, opt.warm_up_D)
            print_line(
                f"loaded the weights of {opt.pretrained_name or opt.name}, {opt.epoch}; the optimizers start from zero"
            )
        return self.counter

    def save(self, *labels: str) -> None:
        """Write the weights under each label, and the training state.

        All files are complete on the disk before the first one is renamed into place; the training state comes first.

        Raises DivergedError if a weight is not finite, and OSError if a file cannot be written. Existing files are then
        unchanged.
        """
        if not is_main_process():
            return
        networks = {name: cpu_state_dict(network) for name, network in self.model.networks.items()}
        weights = networks | {name: cpu_state_dict(network) for name, network in self._ema_networks().items()}
        check_finite(weights)
        state = {
            "labels": list(labels),
            "steps_done": self.model.steps_done,
            "images_done": self.model.images_done,
            "networks": networks,
            "stateful": {name: item.state_dict() for name, item in self._stateful().items()},
        }
        exports = {weights_path(self.run_dir, label, name): weights[name] for label in labels for name in weights}
        write_files({**exports, self.state_path: state})
        if self.keep is not None:
            for path in prunable_checkpoints(self.run_dir, self.keep):
                path.unlink(missing_ok=True)

    def resume(self) -> bool:
        """Restore the state of the last `save`. Return False if there is none.

        Raises UserError if it is damaged, belongs to other networks, or differs from the weights beside it.
        """
        state = read_training_state(self.state_path)
        if state is None:
            return False
        try:
            for name, network in self.model.networks.items():
                load_state(network, state["networks"][name], self.state_path)
            for name, item in self._stateful().items():
                if name in state["stateful"]:
                    item.load_state_dict(state["stateful"][name])
                elif name not in OPTIONAL_ITEMS:
                    raise _state_error(self.state_path, f"does not fit this run, because it has no {name}")
            self.model.steps_done = validate_count(state["steps_done"])
            # States of earlier releases have only the position of the run.
            self.model.images_done = validate_count(state.get("images_done", self.counter.total_images))
            weights = {name: state["networks"][name] for name in self.model.networks}
            if "averages" in state["stateful"]:
                weights |= {name: cpu_state_dict(network) for name, network in self._ema_networks().items()}
            exports = {
                weights_path(self.run_dir, validate_label(label), name): weights[name]
                for label in state["labels"]
                for name in weights
            }
        except UserError:
            raise
        except Exception as error:  # every item may raise its own kind of exception on damaged values
            raise state_mismatch(self.state_path, error) from None
        self._complete_interrupted_save(exports)
        return True

    def _stateful(self) -> dict[str, Stateful]:
        return self.model.checkpoint_items | {name: item for name, item in self._items.items() if item is not None}

    def _ema_networks(self) -> dict[str, nn.Module]:
        return self.model.ema.networks if self.model.ema else {}

    def _complete_interrupted_save(self, exports: Mapping[Path, Mapping[str, Tensor]]) -> None:
        """Complete a save that was interrupted after the training state was in place, and before all weights were.

        Raises UserError if the weights differ for another reason: somebody has replaced them.
        """
        if not is_main_process():
            return
        differing = [path for path, weights in exports.items() if path.exists() and not file_matches(path, weights)]
        if differing and not any(map(has_partial_file, exports)):
            raise UserError(
                f"{differing[0]}: not the file that the run saved together with {self.state_path}. Remove the latter "
                "to start from these weights with new optimizers, or the former to resume the run."
            )
        if differing:
            write_files(exports)


def weights_path(run_dir: Path, label: str, name: str) -> Path:
    """Return the path of a network's weights."""
    return run_dir / f"{label}_net_{name}.pth"


def weights_file(run_dir: Path, label: str, name: str) -> Path:
    """Return the file that the weights are loaded from: a safetensors file if there is no .pth file."""
    path = weights_path(run_dir, label, name)
    safetensors = path.with_suffix(SAFETENSORS)
    return safetensors if safetensors.exists() and not path.exists() else path


def save_networks(run_dir: Path, label: str, networks: Mapping[str, nn.Module]) -> None:
    """Write the weights of the networks; only rank 0 does. Raise DivergedError and OSError as `Checkpointer.save`."""
    if not is_main_process():
        return
    weights = {name: cpu_state_dict(network) for name, network in networks.items()}
    check_finite(weights)
    write_files({weights_path(run_dir, label, name): state for name, state in weights.items()})


def load_networks(run_dir: Path, label: str, networks: Mapping[str, nn.Module]) -> None:
    """Load the weights of the networks. A safetensors file is read if there is no .pth file.

    Raises UserError if a file is missing or belongs to another architecture.
    """
    for name, network in networks.items():
        load_weights_file(network, weights_file(run_dir, label, name))


def load_weights_file(network: nn.Module, path: Path) -> None:
    """Load a .pth or safetensors file. Raise UserError as `load_networks`."""
    if path.suffix == SAFETENSORS:
        load_state(network, read_safetensors(path), path)
    else:
        load_weights(network, path)


def warn_from_scratch(source: str, names: Collection[str], warm_up_D: int) -> None:
    """Print that these networks have no pretrained weights, and how to protect the generator unless that is done."""
    if not names:
        return
    warning = f"warning: no weights of {', '.join(sorted(names))} in {source}: they start from scratch"
    if any(name.startswith("D") for name in names) and not warm_up_D:
        warning += ", beside a trained generator. --warm_up_D N trains the discriminator alone for the first N images"
    print_line(f"{warning}.")


def read_training_state(path: Path) -> Mapping[str, Any] | None:
    """Return the training state at `path`, or None if there is no file. Raise UserError if it cannot be read."""
    try:
        state = read_values(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from None
    except Exception:  # any type if the file is damaged; torch's messages advise running its code
        state = None
    if not isinstance(state, Mapping):
        raise _state_error(path, "is truncated, damaged, or contains code, which is never run")
    return state


def validate_label(value: Any) -> str:
    """Return the value if it is a valid label of a checkpoint. Raise ValueError if it is not."""
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        raise ValueError(f"{value!r} is not a label of a checkpoint")
    return value


def state_mismatch(path: Path, error: Exception) -> UserError:
    """Return the error for a training state that does not fit the run."""
    return _state_error(path, f"does not fit this run ({shorten(f'{type(error).__name__}: {error}', 120)})")


def _state_error(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: {reason}. Use the options that the run was started with. Or remove the file: --continue_train then starts "
        "from the weights beside it, with new optimizers."
    )
