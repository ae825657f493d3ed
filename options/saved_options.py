"""The options of a run, written beside its weights, and read back when it is tested."""

import json
import math
from argparse import Action, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from options.base_options import ARCHITECTURE
from options.test_options import TestOptions
from util.errors import UserError
from util.files import atomic_write

TEXT, MACHINE_READABLE = "train_opt.txt", "train_opt.json"
INTERNAL = ("explicit", "isTrain")
# What may differ between two starts of one run: how to go about it, and where and how it is shown.
RUNTIME_ONLY = frozenset(
    [
        *("continue_train", "overwrite", "epoch", "epoch_count", "pretrained_name", "name", "suffix", "checkpoints_dir"),
        *("gpu_ids", "num_threads", "prefetch_factor", "cache", "verbose", "easy_label"),
        *("print_freq", "update_html_freq", "no_html", "use_tensorboard", "use_wandb"),
    ]
)


def describe_options(opt: Namespace) -> str:
    """One line per option, by name; those that the command line sets are marked."""
    lines = [
        f"{name:>45}: {value}{'    [given]' if name in opt.explicit else ''}"
        for name, value in sorted(_recorded(opt).items())
    ]
    return "\n".join(["----------------- Options ---------------", *lines, "----------------- End -------------------"])


def save_options(opt: Namespace, folder: Path) -> None:
    """Writes the options for people and for programs into the run's folder."""
    with atomic_write(folder / TEXT) as unfinished:
        unfinished.write_text(describe_options(opt) + "\n", encoding="utf-8", errors="backslashreplace")
    with atomic_write(folder / MACHINE_READABLE) as unfinished:
        unfinished.write_text(json.dumps(_recorded(opt), indent=1, sort_keys=True) + "\n")


def saved_architecture_args(opt: Namespace) -> list[str]:
    """The arguments that build the networks the run `opt.name` was trained with; none where it left no record.

    To be put in front of a test's own arguments, which then win. Raises UserError where the record is damaged.
    """
    recorded = _read_record(opt)
    arguments: list[str] = []
    for action in _architecture_actions():
        value = recorded.get(action.dest)
        if not _is_valid(action, value):
            raise _damaged(opt, f"{action.dest} is {value!r}")
        (flag,) = action.option_strings
        if action.nargs == 0:
            arguments += [flag] if value else []
        elif value is not None:
            arguments.append(f"{flag}={value}")
    return arguments


def parse_architecture_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """The architecture options that a command line of nothing else sets, by name.

    Ends the program with one sentence where something else is among them.
    """
    opt = TestOptions().parse(arguments)
    names = {action.dest for action in _architecture_actions()}
    foreign = sorted(opt.explicit - names)
    if foreign:
        raise UserError(f"--{foreign[0]} is not understood here")
    return {name: getattr(opt, name) for name in opt.explicit}


def architecture_conflicts(opt: Namespace) -> Sequence[str]:
    """A line for each option that the command line sets otherwise than the run was trained with."""
    recorded = _read_record(opt)
    if opt.model == "test":
        recorded.pop("model", None)  # any run may be tested one-sidedly
    names = [action.dest for action in _architecture_actions()]
    return [
        f"--{name} is {getattr(opt, name)} here, but the run was trained with {recorded[name]}"
        for name in names
        if name in opt.explicit and name in recorded and getattr(opt, name) != recorded[name]
    ]


def diff_options(opt: Namespace) -> list[str]:
    """A line for each option that makes this another run than the one that left its record in the run's folder."""
    recorded, current = _read_record(opt), _recorded(opt)
    return [
        f"--{name} is {current[name]}, was {recorded[name]}"
        for name in sorted(current.keys() & recorded.keys() - RUNTIME_ONLY)
        if current[name] != recorded[name] and not name.startswith("display_")
    ]


def _recorded(opt: Namespace) -> dict[str, Any]:
    options = {name: value for name, value in vars(opt).items() if name not in INTERNAL}
    return {name: None if value == math.inf else value for name, value in options.items()}


def _read_record(opt: Namespace) -> dict[str, Any]:
    try:
        recorded = json.loads(_record_path(opt).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(opt, str(error)) from None
    if not isinstance(recorded, dict):
        raise _damaged(opt, "no table of options")
    return recorded


def _record_path(opt: Namespace) -> Path:
    return Path(opt.checkpoints_dir) / opt.name / MACHINE_READABLE


def _damaged(opt: Namespace, why: str) -> UserError:
    return UserError(
        f"{_record_path(opt)} is damaged ({shorten(why, 200)}); remove it, and give the architecture options by hand"
    )


def _is_valid(action: Action, value: Any) -> bool:
    """Whether a recorded value is one that the option could have been given; None stands for an option not recorded."""
    if value is None:
        return True
    if action.nargs == 0:
        return isinstance(value, bool)
    try:
        parsed = action.type(str(value)) if callable(action.type) else value
    except ArgumentTypeError:
        return False
    return action.choices is None or parsed in action.choices


def _architecture_actions() -> list[Action]:
    """The options that a trained run dictates."""
    groups = TestOptions().parser([])._action_groups
    return next(group for group in groups if group.title == ARCHITECTURE)._group_actions
