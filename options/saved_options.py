"""Options of a run, saved next to its weights, and read again by test.py and by a resumed training."""

import json
import math
import re
from argparse import Action, ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from data.domain_folder import DATAROOT_FLAGS
from data.geometry import describe_geometry, geometry_for_test
from data.image_folder import DATAROOT_UNSET
from data.transforms import parse_preprocess
from data.value_range import is_percentile
from models.networks import GENERATORS
from options.base_options import ARCHITECTURE, explicit_options
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util.cli import CLIParser
from util.errors import UserError
from util.files import atomic_write
from util.loggers import logger_option_names
from util.runtime.ema import EMA_SUFFIX
from util.runtime.missing_weights import suggest_run
from util.version import program_version

TEXT, MACHINE_READABLE = "train_opt.txt", "train_opt.json"
GIVEN = "    [given]"  # marks an option that the command line sets
READING = ("tiff_pages", "max_megapixels", "show_channels")  # how files are read and shown
VALUE_RANGES = ("value_range", "value_range_A", "value_range_B")
INTERNAL = ("explicit", "isTrain", "training_side")  # attributes that are not options
PROGRAM = "program"  # version of the program that saved the options
GEOMETRY = ("preprocess", "load_size", "crop_size")
# Options that a resumed run does not take over: they say how to resume, or belong to the machine or to one command.
NOT_RESTORED = frozenset(
    [
        *("continue_train", "overwrite", "epoch", "epoch_count", "pretrained_name", "pretrained_G"),
        *("name", "suffix", "checkpoints_dir"),
        *("gpu_ids", "num_threads", "prefetch_factor", "cache", "verbose", "easy_label", "open"),
    ]
)
# Options that may differ when a run resumes: they do not change what is computed.
RUNTIME_ONLY = NOT_RESTORED | {"print_freq", "update_html_freq", "no_html"} | logger_option_names()


def describe_options(opt: Namespace) -> str:
    """Return one line per option, sorted by name. Options that the command line sets are marked."""
    lines = [
        f"{name:>45}: {value}{GIVEN if name in opt.explicit else ''}" for name, value in sorted(_serializable(opt).items())
    ]
    return "\n".join(["----------------- Options ---------------", *lines, "----------------- End -------------------"])


def save_options(opt: Namespace, folder: Path) -> None:
    """Write the options to the run's folder, as text and as JSON. The JSON also has the version of this program."""
    with atomic_write(folder / TEXT) as partial:
        partial.write_text(describe_options(opt) + "\n", encoding="utf-8", errors="backslashreplace")
    with atomic_write(folder / MACHINE_READABLE) as partial:
        saved = {**_serializable(opt), PROGRAM: program_version()}
        partial.write_text(json.dumps(saved, indent=1, sort_keys=True) + "\n")


def check_no_existing_run(opt: Namespace, run_dir: Path) -> None:
    """Raise UserError if training would replace another run, unless --overwrite is set."""
    resumes = opt.continue_train and opt.pretrained_name is None
    if resumes or opt.overwrite or not any(run_dir.glob("*_net_*.pth")):
        return
    differences = shorten("; ".join(diff_options(opt)), 200, placeholder=" ...")
    with_others = f" with other options ({differences})" if differences else ""
    alone = "" if opt.pretrained_name is None else " without --pretrained_name"
    raise UserError(
        f"--name {opt.name}: {run_dir} already contains a run{with_others}. "
        f"Resume it with --continue_train{alone}, replace it with --overwrite, or use another --name."
    )


def check_run_exists(opt: Namespace, arguments: Sequence[str]) -> None:
    """Raise UserError if there is no run `opt.name`."""
    if Path(opt.checkpoints_dir, opt.name).is_dir():
        return
    suggestion = suggest_run(Path(opt.checkpoints_dir), opt.name)
    if "name" in opt.explicit:
        raise UserError(f"--name {opt.name}: no such run. {suggestion}")
    (TrainOptions() if opt.isTrain else TestOptions()).parse(arguments)  # exits if --name is misspelled
    raise UserError(f"--name: missing, and no run has the default name {opt.name}. {suggestion}")


def saved_architecture_args(opt: Namespace) -> list[str]:
    """Return the arguments that rebuild the networks of the run `opt.name`, or none if it has no saved options.

    Put them before a test's own arguments, which then take precedence.

    Raises:
        UserError: the saved options are damaged.
    """
    return _saved_args(opt, _architecture_actions(), _load(opt))


def inferred_architecture_args(opt: Namespace) -> list[str]:
    """Return the arguments that rebuild the generator from its weights, for a run without saved options.

    There are none if the run has saved options or no weights, or if its architecture is not a published one.
    """
    from models.inference.checkpoint import DEFAULT_NETWORKS, find_run_weights, infer_architecture, read_generator_state

    if _load(opt):
        return []
    networks = (f"G{opt.model_suffix}",) if "model_suffix" in opt.explicit else DEFAULT_NETWORKS
    names = [name + EMA_SUFFIX if opt.ema else name for name in networks]
    file = find_run_weights(_saved_path(opt).parent, opt.epoch, names)
    return (
        []
        if file is None
        else _saved_args(opt, _architecture_actions(), infer_architecture(read_generator_state(file)) or {})
    )


def parse_training(arguments: Sequence[str]) -> Namespace:
    """Parse the command line of train.py. With --continue_train, options that it lacks are those saved with the run.

    Options in NOT_RESTORED are not restored, and with --pretrained_name none is. `explicit` in the result contains the
    options that were set when the run started, or are set now.

    Raises:
        UserError: the saved options are damaged.
    """
    requested = TrainOptions().parse(arguments, is_complete=False)
    if not requested.continue_train or requested.pretrained_name is not None:
        return TrainOptions().parse(arguments)
    check_run_exists(requested, arguments)
    if not (saved := _load(requested)):
        return TrainOptions().parse([*inferred_architecture_args(requested), *arguments])
    # The saved method and dataset mode declare further options.
    methods = [action for action in TrainOptions().parser([])._actions if action.dest in ("model", "dataset_mode")]
    method_args = _saved_args(requested, methods, saved)
    parser = TrainOptions().parser([*method_args, *arguments])
    typed = explicit_options(parser, arguments)
    kept = NOT_RESTORED | {"help"} | (set() if typed.isdisjoint(DATAROOT_FLAGS) else set(DATAROOT_FLAGS))
    restored = [action for action in parser._actions if action.dest not in kept]
    opt = TrainOptions().parse([*_saved_args(requested, restored, saved), *arguments])
    opt.explicit = typed | _saved_explicit(requested) & {action.dest for action in restored}
    for name in VALUE_RANGES:
        if is_percentile(getattr(opt, name)) and saved.get(name) is not None:
            setattr(opt, name, saved[name])  # percentiles are computed once
    return opt


def saved_data_args(opt: Namespace) -> list[str]:
    """Return the arguments that read images as the training of the run `opt.name` did.

    These are --preprocess, --load_size and --crop_size (see `geometry_for_test`), the options READING and --to_srgb, and
    --dataroot with its --dataset_mode unless `opt` has another one.
    Put them before a test's own arguments, which then take precedence.

    Raises:
        UserError: the saved options are damaged.
    """
    saved, given = _load(opt), opt.explicit
    arguments: list[str] = []
    geometry = _saved_geometry(opt)
    if geometry is not None:
        arguments = [f"--preprocess={geometry.preprocess}", f"--crop_size={geometry.crop_size}"]
        ops = parse_preprocess(opt.preprocess if "preprocess" in given else geometry.preprocess)
        if "crop_size" not in given and not {"resize", "crop"} <= set(ops):  # else --load_size follows --crop_size
            arguments.append(f"--load_size={geometry.load_size}")
    for name in READING:
        if name not in given and saved.get(name) is not None:
            arguments.append(f"--{name}={_checked(opt, name, saved[name])}")
    if saved.get("to_srgb"):
        arguments.append("--to_srgb")
    roots = {name: saved[name] for name in DATAROOT_FLAGS if saved.get(name) not in (None, DATAROOT_UNSET)}
    if roots and given.isdisjoint(DATAROOT_FLAGS):
        arguments += [f"--{name}={_checked(opt, name, root)}" for name, root in roots.items()]
        if "model" not in given and saved.get("dataset_mode") is not None:
            arguments.append(f"--dataset_mode={_checked(opt, 'dataset_mode', saved['dataset_mode'])}")
    return arguments


def describe_test_geometry(opt: Namespace) -> str:
    """Return a line such as "tested at 64 px, as trained"."""
    tested = f"tested {describe_geometry(opt.preprocess, opt.load_size, opt.crop_size)}"
    if (geometry := _saved_geometry(opt)) is None:
        return tested
    as_trained = describe_geometry(geometry.preprocess, geometry.load_size, geometry.crop_size)
    if tested != f"tested {as_trained}":
        return f"{tested}, not {as_trained} as trained"
    return (
        f"{tested}, trained on crops of {geometry.crop_size} px" if geometry.crops_in_training else f"{tested}, as trained"
    )


def parse_architecture_overrides(arguments: Sequence[str], program: CLIParser) -> dict[str, Any]:
    """Parse the arguments that a program's parser has left over. Return the architecture options that they set, by name.

    If the command line is wrong, print a one-line error and exit.

    Raises:
        UserError: an option does not belong to the architecture.
    """
    program.refuse_unknown(TestOptions().parser(arguments).parse_known_args(arguments)[1])
    opt = TestOptions().parse(arguments)
    foreign = sorted(opt.explicit - {action.dest for action in _architecture_actions()})
    if foreign:
        raise UserError(f"--{foreign[0]}: not an option of the architecture. Remove it.")
    return {name: getattr(opt, name) for name in opt.explicit}


def conflicts_with_training(opt: Namespace) -> Sequence[str]:
    """Return a line for each option of architecture or image size that the command line sets differently from the run."""
    saved = _load(opt)
    if opt.model == "test":
        saved.pop("model", None)  # --model test loads the generator of any run
    names = [action.dest for action in _architecture_actions()]
    geometry = _saved_geometry(opt)
    return [
        *(
            f"--{name} is {getattr(opt, name)} here, but the run was trained with {saved[name]}"
            for name in names
            if name in opt.explicit and name in saved and getattr(opt, name) != saved[name]
        ),
        *(
            f"--{name} is {getattr(opt, name)} here, but a test of this run has {getattr(geometry, name)} by default"
            for name in GEOMETRY
            if geometry and name in opt.explicit and getattr(opt, name) != getattr(geometry, name)
        ),
    ]


def diff_options(opt: Namespace) -> list[str]:
    """Return a line for each option whose value differs from the saved one and changes what is computed."""
    saved, current = _load(opt), _serializable(opt)
    return [
        f"--{name} is {current[name]}, was {saved[name]}"
        for name in sorted(current.keys() & saved.keys() - RUNTIME_ONLY)
        if current[name] != saved[name] and not name.startswith("display_")
    ]


@dataclass(frozen=True)
class _Geometry:
    """Values that a test takes over from a run."""

    preprocess: str
    load_size: int
    crop_size: int
    crops_in_training: bool  # the training cuts images that the test translates whole


def _saved_geometry(opt: Namespace) -> _Geometry | None:
    """Return the geometry for a test of the run `opt.name`, or None if it has not been saved."""
    saved = _load(opt)
    if any(saved.get(name) is None for name in GEOMETRY):
        return None
    preprocess = _checked(opt, "preprocess", saved["preprocess"])
    load_size, crop_size = (int(_checked(opt, name, saved[name])) for name in ("load_size", "crop_size"))
    netG = opt.netG if "netG" in opt.explicit else saved.get("netG", opt.netG)
    any_size = netG not in GENERATORS or GENERATORS[netG].network.accepts_any_size
    tested, load_size = geometry_for_test(preprocess, load_size, crop_size, any_size=any_size)
    return _Geometry(tested, load_size, crop_size, crops_in_training=tested != preprocess)


def _checked(opt: Namespace, name: str, value: Any) -> Any:
    """Return the saved `value` of an option. Raise UserError if the command line could not have set it."""
    action = next(action for action in TestOptions().parser([])._actions if action.dest == name)
    valid = _is_valid(action, value)
    if valid and name == "preprocess":
        try:
            parse_preprocess(value)
        except UserError:
            valid = False
    if not valid:
        raise _damaged(opt, f"{name} is {value!r}")
    return value


def _saved_args(opt: Namespace, actions: Sequence[Action], saved: Mapping[str, Any]) -> list[str]:
    """Return the arguments that set these options as in `saved`. Raise UserError if a value is not valid."""
    arguments: list[str] = []
    for action in actions:
        value = saved.get(action.dest)
        if not _is_valid(action, value):
            raise _damaged(opt, f"{action.dest} is {value!r}")
        (flag,) = action.option_strings
        if action.nargs == 0:
            arguments += [flag] if value else []
        elif value is not None:
            arguments.append(f"{flag}={value}")
    return arguments


def _saved_explicit(opt: Namespace) -> set[str]:
    """Return the names of the options that the text of the saved options marks as given."""
    try:
        text = (_saved_path(opt).parent / TEXT).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    return set(re.findall(rf"^ *(\w+): .*{re.escape(GIVEN)}$", text, re.MULTILINE))


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
    if action.type is None and action.choices is None:
        return isinstance(value, str)
    try:
        parsed = action.type(str(value)) if callable(action.type) else value
    except ArgumentTypeError:
        return False
    return action.choices is None or parsed in action.choices


def _architecture_actions() -> list[Action]:
    """Return the options that a test must share with the training of its run."""
    groups = TestOptions().parser([])._action_groups
    return next(group for group in groups if group.title == ARCHITECTURE)._group_actions
