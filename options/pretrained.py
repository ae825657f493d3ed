"""Options of a training that starts from weights: --pretrained_name RUN and --pretrained_G FILE."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from options.base_options import explicit_options
from options.saved_options import saved_architecture_args
from options.train_options import TrainOptions
from util.errors import UserError

ONLY_STYLEGAN2 = ("net_size", "stylegan2_G_num_downsampling")  # options that other generators do not use


def parse_pretrained(arguments: Sequence[str]) -> Namespace | None:
    """Parse the command line of a training that starts from weights, so that its networks fit them.

    Return None if the command line names no weights, or if they do not exist in a run; loading them then fails.

    The architecture of the generator is read from the weights. With --pretrained_name, the method and the other
    architecture options are those saved with that run, except --direction. Every other option is that of the command line.

    Raises:
        UserError: there is no such file, or the command line sets another architecture.
    """
    requested = TrainOptions().parse(arguments, is_complete=False)
    if requested.pretrained_name is None and requested.pretrained_G is None:
        return None
    from models.inference.checkpoint import DEFAULT_NETWORKS, find_run_weights, find_weights, read_architecture

    defaults: list[str] = []
    if requested.pretrained_G is None:
        run = Namespace(checkpoints_dir=requested.checkpoints_dir, name=requested.pretrained_name)
        found = find_run_weights(Path(run.checkpoints_dir, run.name), requested.epoch, DEFAULT_NETWORKS)
        if found is None:
            return None
        file = found
        defaults = [text for text in saved_architecture_args(run) if not text.startswith("--direction")]
    else:
        file = find_weights(Path(requested.pretrained_G), requested.epoch)
    architecture = read_architecture(file)
    if "stylegan2" not in architecture["netG"]:
        architecture = {name: value for name, value in architecture.items() if name not in ONLY_STYLEGAN2}
    _check_no_conflict(requested, architecture, file)
    defaults += [text for name, value in architecture.items() for text in _as_arguments(name, value)]
    opt = TrainOptions().parse([*defaults, *arguments])
    if opt.pretrained_G is not None:
        opt.pretrained_G = str(file)  # a run's folder is accepted as well
    opt.explicit = explicit_options(TrainOptions().parser([*defaults, *arguments]), arguments)
    return opt


def _check_no_conflict(requested: Namespace, architecture: Mapping[str, Any], file: Path) -> None:
    """Raise UserError if the command line sets an option to another value than the weights have."""
    same_width = {"ngf", *ONLY_STYLEGAN2} if "stylegan2" in architecture["netG"] else set()  # several values fit
    for name in sorted(requested.explicit & architecture.keys() - same_width):
        if getattr(requested, name) != architecture[name]:
            raise UserError(
                f"--{name} {getattr(requested, name)}: the generator in {file} has {architecture[name]}. "
                f"Leave out --{name}: the architecture is read from the weights."
            )


def _as_arguments(name: str, value: Any) -> list[str]:
    """Return the arguments that set an architecture option."""
    if name in ("no_antialias", "no_antialias_up"):  # switches
        return [f"--{name}"] if value else []
    return [f"--{name}={value}"]
