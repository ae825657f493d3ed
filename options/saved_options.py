"""Options of a run, saved next to its weights, and read again by test.py and by a resumed training."""

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
INTERNAL = ("explicit", "isTrain")  # attributes that are not options
# Options that may differ when a run resumes: they do not change what is computed, or say how to resume.
RUNTIME_ONLY = frozenset(
    [
        *("continue_train", "overwrite", "epoch", "epoch_count", "pretrained_name", "name", "suffix", "checkpoints_dir"),
        *("gpu_ids", "num_threads", "prefetch_factor", "cache", "verbose", "easy_label"),
        *("print_freq", "update_html_freq", "no_html", "use_tensorboard", "use_wandb"),
    ]
)


def describe_options(opt: Namespace) -> str:
    """Return one line per option, sorted by name. Options that the command line sets are marked."""
    lines = [
        f"{name:>45}: {value}{'    [given]' if name in opt.explicit else ''}"
        for name, value in sorted(_serializable(opt).items())
    ]
    return "\n".join(["----------------- Options ---------------", *lines, "----------------- End -------------------"])


def save_options(opt: Namespace, folder: Path) -> None:
    """Write the options to the run's folder, as text and as JSON."""
    with atomic_write(folder / TEXT) as partial:
        partial.write_text(describe_options(opt) + "\n", encoding="utf-8", errors="backslashreplace")
    with atomic_write(folder / MACHINE_READABLE) as partial:
        partial.write_text(json.dumps(_serializable(opt), indent=1, sort_keys=True) + "\n")


def check_no_existing_run(opt: Namespace, run_dir: Path) -> None:
    """Raise UserError if training would replace another run, unless --overwrite is set."""
    resumes = opt.continue_train and opt.pretrained_name is None
    if resumes or opt.overwrite or not any(run_dir.glob("*_net_*.pth")):
        return
    differences = "; ".join(diff_options(opt))
    with_others = f" with other options ({differences})" if differences else ""
    raise UserError(
        f"--name {opt.name}: {run_dir} already contains a run{with_others}. "
        "Add --continue_train (without --pretrained_name) to resume it, --overwrite to replace it, or use another --name."
    )


def saved_architecture_args(opt: Namespace) -> list[str]:
    """Return the arguments that rebuild the networks of the run `opt.name`, or none if it has no saved options.

    Put them before a test's own arguments, which then take precedence.

    Raises:
        UserError: the saved options are damaged.
    """
    saved = _load(opt)
    arguments: list[str] = []
    for action in _architecture_actions():
        value = saved.get(action.dest)
        if not _is_valid(action, value):
            raise _damaged(opt, f"{action.dest} is {value!r}")
        (flag,) = action.option_strings
        if action.nargs == 0:
            arguments += [flag] if value else []
        elif value is not None:
            arguments.append(f"{flag}={value}")
    return arguments


def parse_architecture_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse a command line of architecture options only. Return the options that it sets, by name.

    If the command line is wrong, print a one-line error and exit.

    Raises:
        UserError: an option does not belong to the architecture.
    """
    opt = TestOptions().parse(arguments)
    foreign = sorted(opt.explicit - {action.dest for action in _architecture_actions()})
    if foreign:
        raise UserError(f"--{foreign[0]} is not understood here")
    return {name: getattr(opt, name) for name in opt.explicit}


def architecture_conflicts(opt: Namespace) -> Sequence[str]:
    """Return a line for each architecture option that the command line and the run's training set differently."""
    saved = _load(opt)
    if opt.model == "test":
        saved.pop("model", None)  # --model test loads the generator of any run
    names = [action.dest for action in _architecture_actions()]
    return [
        f"--{name} is {getattr(opt, name)} here, but the run was trained with {saved[name]}"
        for name in names
        if name in opt.explicit and name in saved and getattr(opt, name) != saved[name]
    ]


def diff_options(opt: Namespace) -> list[str]:
    """Return a line for each option whose value differs from the saved one and changes what is computed."""
    saved, current = _load(opt), _serializable(opt)
    return [
        f"--{name} is {current[name]}, was {saved[name]}"
        for name in sorted(current.keys() & saved.keys() - RUNTIME_ONLY)
        if current[name] != saved[name] and not name.startswith("display_")
    ]


def _serializable(opt: Namespace) -> dict[str, Any]:
    """Return the options by name, with infinity as None."""
    options = {name: value for name, value in vars(opt).items() if name not in INTERNAL}
    return {name: None if value == math.inf else value for name, value in options.items()}


def _load(opt: Namespace) -> dict[str, Any]:
    """Return the saved options of the run `opt.name`, an empty dict if there are none."""
    try:
        saved = json.loads(_saved_path(opt).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(opt, str(error)) from None
    if not isinstance(saved, dict):
        raise _damaged(opt, "not a JSON object")
    return saved


def _saved_path(opt: Namespace) -> Path:
    return Path(opt.checkpoints_dir) / opt.name / MACHINE_READABLE


def _damaged(opt: Namespace, reason: str) -> UserError:
    return UserError(
        f"{_saved_path(opt)}: damaged ({shorten(reason, 200)}). Remove the file and set the architecture options explicitly."
    )


def _is_valid(action: Action, value: Any) -> bool:
    """Return True if the command line could have set the option to this saved value, or if it was not saved (None)."""
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
    """Return the options that a test must share with the training of its run."""
    groups = TestOptions().parser([])._action_groups
    return next(group for group in groups if group.title == ARCHITECTURE)._group_actions
