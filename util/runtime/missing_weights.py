"""Advice for a weights file that does not exist: another checkpoint, another option, another run."""

import difflib
import shlex
from pathlib import Path

from util.runtime.ema import EMA_SUFFIX

MAX_LISTED = 8  # names that an error message lists
BEST = "best"
NO_WEIGHTS = "Check --name and --checkpoints_dir, or train first."


def suggest_weights(path: Path) -> str:
    """Return what to do if `path`, `<checkpoints_dir>/<run>/<label>_net_<network>.pth`, does not exist."""
    if not path.parent.is_dir():
        return suggest_run(path.parent.parent, path.parent.name)
    names = sorted(file.name for file in path.parent.glob("*.pth"))
    label, _, network = path.stem.partition("_net_")
    networks = {name.removesuffix(".pth").partition("_net_")[2] for name in names}
    if not names:
        return NO_WEIGHTS
    if label == BEST and not any(name.startswith(f"{BEST}_net_") for name in names):
        return "best is saved only by a training with metrics, such as --paired. Use --epoch latest."
    if network in networks or not network:
        files = [name for name in names if name.endswith(f"_net_{network}.pth") or not network]
        return f"{path.parent} has {_listed(files)}; select one with --epoch."
    if network.endswith(EMA_SUFFIX):
        return "The run was trained without --ema. Remove --ema, or train with --ema 0.999."
    if network == "G" and "G_A" in networks:
        return "The run has two generators, G_A and G_B. Use --model cycle_gan, or --model test --model_suffix _A."
    if network.startswith("G") and "G" in networks:
        return "The run has one generator, G. Use --model cut, or --model test without --model_suffix."
    return (
        f"{path.parent} has {_listed(names)}. Training loads {network} as well. "
        "To start from the generator alone, use --pretrained_G."
    )


def suggest_run(checkpoints_dir: Path, name: str) -> str:
    """Return what to do if there is no run `name`: the most similar run, or the runs that exist."""
    runs = list_runs(checkpoints_dir)
    if not runs:
        return f"{checkpoints_dir} has no runs. Check --checkpoints_dir, or train first."
    similar = difflib.get_close_matches(name, runs, n=1)
    question = f"Did you mean {shlex.quote(similar[0])}? " if similar else ""
    return f"{question}{checkpoints_dir} has the runs {_listed(runs)}."


def list_runs(checkpoints_dir: Path) -> list[str]:
    """Return the names of the folders of weights below `checkpoints_dir`, relative to it."""
    folders = {file.parent for pattern in ("*/*_net_*", "*/*/*_net_*") for file in checkpoints_dir.glob(pattern)}
    return sorted(folder.relative_to(checkpoints_dir).as_posix() for folder in folders)


def _listed(names: list[str]) -> str:
    """Return the first names, and the number of the others."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
