"""From a path that someone has at hand to a generator ready for use."""

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.networks import GENERATORS
from models.networks.base import Generator
from models.networks.factory import dry_build_on_meta, generator_config
from models.networks.stylegan2 import num_generator_channels
from util.errors import UserError, is_out_of_memory
from util.runtime.weights import SAFETENSORS, load_state, read_safetensors, read_state

Options = dict[str, Any]  # netG, ngf, normG … by the names of the command line's options

# What any generator is built from, where nothing else is known.
DEFAULTS: Options = {
    "netG": "resnet_9blocks",
    "input_nc": 3,
    "output_nc": 3,
    "ngf": 64,
    "normG": "instance",
    "no_dropout": True,
    "no_antialias": False,
    "no_antialias_up": False,
    "stylegan2_G_num_downsampling": 1,
    "net_size": 256,
}

STYLEGAN2_BY_BLOCKS = {6: "stylegan2", 2: "smallstylegan2"}
STYLEGAN2_SIZES = tuple(2**power for power in range(2, 13))  # pixels that its layers may have been laid out for


def infer_architecture(state: Mapping[str, Tensor]) -> Options | None:
    """The options of the generator whose state dict this is; None where it is of no family known here.

    Shapes tell everything that evaluation needs. They do not tell a U-Net's dropout, which is off then.
    """
    try:
        for describe in (_resnet, _unet, _stylegan2):
            options = describe(state)
            if options is not None and options["netG"] in GENERATORS:
                return {**DEFAULTS, **options}
    except (KeyError, IndexError, ValueError):
        pass  # begins like a family's, and goes on unlike it
    return None


def resolve_architecture(
    state: Mapping[str, Tensor], record: Mapping[str, Any], given: Mapping[str, Any], path: object
) -> Namespace:
    """The options that build the generator of `state`: what is `given`, over what the shapes tell, over the `record` of
    the training. Raises UserError where the three together do not name a generator."""
    recorded = {name: value for name, value in record.items() if name in DEFAULTS and value is not None}
    inferred = infer_architecture(state)
    if inferred is None and "netG" not in {**recorded, **given}:
        raise UserError(
            f"{path} holds the weights of no generator known here, and no train_opt.json lies beside it; say what it was "
            "trained with (--netG, --ngf, --input_nc, --no_antialias ...)"
        )
    options = {**DEFAULTS, **(recorded if inferred is None else inferred), **given}
    if options["netG"] not in GENERATORS:
        raise UserError(f"{path}: there is no generator {options['netG']!r}; there are {', '.join(GENERATORS)}")
    return Namespace(**options)


def _resnet(state: Mapping[str, Tensor]) -> Options | None:
    first = state.get("model.1.weight")
    if first is None or first.ndim != 4:
        return None
    blocks = {int(key.split(".")[1]) for key in state if ".conv_block." in key}
    filters = [int(key.split(".")[1]) for key in state if key.endswith(".filt")]
    entries = [int(key.split(".")[1]) for key in state]
    return {
        "netG": f"resnet_{len(blocks)}blocks",
        "input_nc": first.shape[1],
        "output_nc": state[f"model.{max(entries)}.weight"].shape[0],
        "ngf": first.shape[0],
        "normG": _norm(state, "model.1", "model.2"),
        "no_dropout": not any(".conv_block.6." in key and value.ndim == 4 for key, value in state.items()),
        "no_antialias": not any(entry < min(blocks) for entry in filters),
        "no_antialias_up": not any(entry > max(blocks) for entry in filters),
    }


def _unet(state: Mapping[str, Tensor]) -> Options | None:
    first = state.get("model.model.0.weight")
    if first is None or first.ndim != 4:
        return None
    halvings = sum(value.ndim == 4 for value in state.values()) // 2  # each has its convolution and its transposed one
    return {
        "netG": f"unet_{2**halvings}",
        "input_nc": first.shape[1],
        "output_nc": state["model.model.3.weight"].shape[1],
        "ngf": first.shape[0],
        "normG": _norm(state, "model.model.0", "model.model.1.model.2"),
    }


def _stylegan2(state: Mapping[str, Tensor]) -> Options | None:
    first = state.get("encoder.convs.1.0.weight")
    if first is None or first.ndim != 4:
        return None
    halvings = [key for key in state if key.startswith("encoder.") and key.endswith(".skip.1.weight")]
    encoder = {int(key.split(".")[2]) for key in state if key.startswith("encoder.")}
    decoder = {int(key.split(".")[2]) for key in state if key.startswith("decoder.")}
    blocks = 2 * (len(encoder) - 1 - len(halvings))
    widths = [first.shape[0], *(state[key].shape[0] for key in sorted(halvings, key=lambda key: int(key.split(".")[2])))]
    ngf, size = _stylegan2_layout(widths)
    return {
        "netG": STYLEGAN2_BY_BLOCKS[blocks],
        "input_nc": first.shape[1],
        "output_nc": state[f"decoder.convs.{max(decoder)}.0.weight"].shape[0],
        "ngf": ngf,
        "net_size": size,
        "stylegan2_G_num_downsampling": len(halvings),
    }


def _stylegan2_layout(widths: list[int]) -> tuple[int, int]:
    """--ngf and --net_size that give these widths; where several do, they build the same network."""
    for size in STYLEGAN2_SIZES:
        middle = widths[0] * size // 512
        for ngf in range(max(1, middle - 1), middle + 3):
            if [num_generator_channels(ngf, size / 2**level) for level in range(len(widths))] == widths:
                return ngf, size
    raise ValueError(f"no StyleGAN2 generator has these widths: {widths}")


def _norm(state: Mapping[str, Tensor], convolution: str, norm: str) -> str:
    """--normG, from the keys of a convolution and of the norm behind it. In front of an instance norm alone, convolutions
    have biases; old checkpoints hold running statistics of instance norms as well."""
    if f"{convolution}.bias" in state:
        return "instance"
    return "batch" if f"{norm}.running_mean" in state else "none"


WEIGHTS = (".pth", SAFETENSORS)  # a .pt is a program that export.py wrote
HUB_WEIGHTS, HUB_OPTIONS = "model.safetensors", "config.json"
OPTIONS_FILE = "train_opt.json"  # what train.py leaves beside the weights
DEFAULT_NETWORKS = ("G", "G_A")  # of a run's generators, when none is asked for


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator in evaluation mode, where it came from, and what it was built with."""

    network: Generator
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
