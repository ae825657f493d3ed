"""From a path that someone has at hand to a generator ready for use."""

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from models.inference.checkpoint import resolve_architecture
from models.networks import GENERATORS
from models.networks.factory import dry_build_on_meta, generator_config
from util.errors import UserError, is_out_of_memory
from util.runtime.weights import SAFETENSORS, load_state, read_safetensors, read_state

WEIGHTS = (".pth", SAFETENSORS)  # a .pt is a program that export.py wrote
HUB_WEIGHTS, HUB_OPTIONS = "model.safetensors", "config.json"
OPTIONS_FILE = "train_opt.json"  # what train.py leaves beside the weights
DEFAULT_NETWORKS = ("G", "G_A")  # of a run's generators, when none is asked for


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator in evaluation mode, where it came from, and what it was built with."""

    network: nn.Module
    path: Path
    options: Namespace  # netG, ngf, input_nc …
    record: Mapping[str, Any]  # every option of the training, where it is known

    def describe(self) -> str:
        """For people: "checkpoints/cat/latest_net_G.pth (resnet_9blocks, ngf 64, 3 to 3 channels)"."""
        opt = self.options
        return f"{self.path} ({opt.netG}, ngf {opt.ngf}, {opt.input_nc} to {opt.output_nc} channels)"


def load_generator(
    path: Path, epoch: str = "latest", network: str | None = None, given: Mapping[str, Any] | None = None
) -> LoadedGenerator:
    """The generator in a weights file, in a run's folder, or in a folder of the Hugging Face hub's layout.

    Args:
        path: `…/latest_net_G.pth`, `checkpoints/horse2zebra`, or a folder with model.safetensors and config.json.
        epoch: which checkpoint of a run's folder.
        network: which generator of a run's folder: G, G_A, G_B, G_ema; by default G, or else G_A.
        given: architecture options that are known better than the weights tell, such as {"netG": "mine"}.
    Raises:
        UserError: there is no such file, or it is no generator that can be built.
    """
    file = find_weights(path, epoch, network)
    state = read_safetensors(file) if file.suffix == SAFETENSORS else read_state(file)
    record = _read_options(file.parent)
    options = resolve_architecture(state, record, given or {}, file)
    settings = generator_config(options, options.input_nc, options.output_nc)
    try:
        dry_build_on_meta(lambda: GENERATORS[options.netG](settings), "--ngf", options.ngf)
    except (ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{file}: {options.netG} cannot be built like this: {error}") from None
    generator = GENERATORS[options.netG](settings)
    load_state(generator, state, file)
    return LoadedGenerator(generator.eval().requires_grad_(False), file, options, record)


def find_weights(path: Path, epoch: str = "latest", network: str | None = None) -> Path:
    """The weights file that `path` means. Raises UserError where there is none, or one of several must be chosen."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"there is no {path}; give a file such as latest_net_G.pth, or the folder of a run")
    if network is None and (path / HUB_WEIGHTS).is_file():
        return path / HUB_WEIGHTS
    for name in DEFAULT_NETWORKS if network is None else (network,):
        for suffix in WEIGHTS:
            file = path / f"{epoch}_net_{name}{suffix}"
            if file.is_file():
                return file
    there = sorted(file.name for file in path.iterdir() if file.suffix in WEIGHTS)
    wanted = f"{epoch}_net_{network or 'G'}.pth"
    found = f"it holds {', '.join(there)}; name one of them" if there else "it holds no weights"
    raise UserError(f"{path} has no {wanted}: {found}")


def list_checkpoints(path: Path) -> list[Path]:
    """Every generator that `path` offers: itself, those of a run's folder, or those of all runs below a folder."""
    if path.is_file() or (path / HUB_WEIGHTS).is_file():
        return [find_weights(path)]
    files = [file for pattern in ("*_net_G*", "*/*_net_G*", f"*/{HUB_WEIGHTS}") for file in path.glob(pattern)]
    weights = sorted(file for file in files if file.suffix in WEIGHTS)
    return weights or [find_weights(path)]


def _read_options(folder: Path) -> Mapping[str, Any]:
    """The options beside the weights; empty where there are none. Raises UserError where the file is damaged."""
    for name in (HUB_OPTIONS, OPTIONS_FILE):
        try:
            options = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{folder / name} cannot be read ({error}); remove it, or fetch it again") from None
        if not isinstance(options, dict):
            raise UserError(f"{folder / name} is no table of options; remove it, or fetch it again")
        return options
    return {}
