"""Load a generator from a weights file or a folder, with its architecture inferred from the weights."""

import difflib
import json
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data.value_range import ValueRange
from models.networks import GENERATORS
from models.networks.base import Generator
from models.networks.factory import dry_build_on_meta, generator_config
from models.networks.stylegan2 import num_generator_channels
from util.errors import UserError, is_out_of_memory
from util.runtime.missing_weights import list_runs
from util.runtime.weights import SAFETENSORS, check_is_generator, load_state, read_safetensors, read_state

Options = dict[str, Any]  # netG, ngf, normG …, by the names of the command-line options

WEIGHTS = (".pth", SAFETENSORS)  # .pt is excluded: that is a TorchScript program written by export.py
HUB_WEIGHTS, HUB_OPTIONS = "model.safetensors", "config.json"
HUB_INPUT_RANGE, HUB_OUTPUT_RANGE = "input_value_range", "output_value_range"  # of the exported generator
OPTIONS_FILE = "train_opt.json"  # written by train.py beside the weights
DEFAULT_NETWORKS = ("G", "G_A")  # generators to look for in a run's folder, in this order

# Architecture options that neither the weights nor the user define.
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
STYLEGAN2_SIZES = tuple(2**power for power in range(2, 13))  # values of --net_size to try, in pixels


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator in evaluation mode, its file and its options."""

    network: Generator
    path: Path
    options: Namespace  # the architecture: netG, ngf, input_nc …
    saved_options: Mapping[str, Any]  # all options of the training run; empty if unknown
    input_range: ValueRange | None = None  # sample values that map to -1 and 1; None: the full range of uint8 or uint16
    output_range: ValueRange | None = None

    def describe(self) -> str:
        """Return text such as "checkpoints/cat/latest_net_G.pth (resnet_9blocks, ngf 64, 3 to 3 channels)"."""
        opt = self.options
        return f"{self.path} ({opt.netG}, ngf {opt.ngf}, {opt.input_nc} to {opt.output_nc} channels)"


def load_generator(
    path: Path, epoch: str = "latest", network: str | None = None, overrides: Mapping[str, Any] | None = None
) -> LoadedGenerator:
    """Load the generator of a weights file, a run's folder, or a folder in the layout of the Hugging Face Hub.

    Args:
        path: `…/latest_net_G.pth`, `checkpoints/horse2zebra`, or a folder with model.safetensors and config.json.
        epoch: checkpoint of a run's folder.
        network: generator of a run's folder: G, G_A, G_B or G_ema; None: G, or else G_A.
        overrides: architecture options that replace the inferred ones, such as {"netG": "mine"}.
    Raises:
        UserError: there is no such file, or no generator can be built from it.
    """
    file = find_weights(path, epoch, network)
    state = read_generator_state(file)
    saved_options = _read_options(file.parent)
    options = resolve_architecture(state, saved_options, overrides or {}, file)
    config = generator_config(options, options.input_nc, options.output_nc)
    try:
        dry_build_on_meta(lambda: GENERATORS[options.netG](config), "--ngf", options.ngf)
    except (ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{file}: cannot build {options.netG} with these options: {error}. Check --netG, --ngf and --net_size."
        ) from None
    generator = GENERATORS[options.netG](config)
    load_state(generator, state, file)
    ranges = value_ranges(saved_options, overrides or {}, file)
    return LoadedGenerator(generator.eval().requires_grad_(False), file, options, saved_options, *ranges)


def value_ranges(
    saved_options: Mapping[str, Any], overrides: Mapping[str, Any], file: Path
) -> tuple[ValueRange | None, ValueRange | None]:
    """Return the value ranges of a generator's input and output, from the options of its training run and `overrides`.

    Raises:
        UserError: a range is damaged.
    """
    is_overridden = any(name.startswith("value_range") for name in overrides)
    options = {**({"direction": saved_options.get("direction")} if is_overridden else saved_options), **overrides}
    by_domain = [options.get(f"value_range_{domain}") or options.get("value_range") for domain in "AB"]
    # The second generator of CycleGAN translates back.
    translates_back = "_net_G_B" in file.name
    texts = by_domain if (options.get("direction") != "BtoA") != translates_back else by_domain[::-1]
    texts = [options.get(name, text) for name, text in zip((HUB_INPUT_RANGE, HUB_OUTPUT_RANGE), texts, strict=True)]
    try:
        ranges = [None if text is None else ValueRange.parse(str(text)) for text in texts]
    except ValueError as error:
        raise UserError(f"{file}: the value range of its options is damaged: {error}. Set --value_range.") from None
    return ranges[0], ranges[1]


def read_architecture(file: Path) -> Options:
    """Return the options that build the generator of a weights file. Raise UserError as `resolve_architecture`."""
    return vars(resolve_architecture(read_generator_state(file), _read_options(file.parent), {}, file))


def find_weights(path: Path, epoch: str = "latest", network: str | None = None) -> Path:
    """Return the weights file at or in `path`. Raise UserError if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        similar = difflib.get_close_matches(path.name, list_runs(path.parent), n=1)
        question = f"Did you mean {path.with_name(similar[0])}? " if similar else ""
        raise UserError(f"{path}: no such file or folder. {question}Use a file such as latest_net_G.pth, or a run's folder.")
    if network is None and (path / HUB_WEIGHTS).is_file():
        return path / HUB_WEIGHTS
    file = find_run_weights(path, epoch, DEFAULT_NETWORKS if network is None else (network,))
    if file is not None:
        return file
    available = sorted(file.name for file in path.iterdir() if file.suffix in WEIGHTS)
    advice = f"Use one of its weights files: {', '.join(available)}." if available else "The folder has no weights files."
    if not available and (runs := list_runs(path)):
        advice = f"Give a run's folder, such as {path / runs[0]}."
    raise UserError(f"{path}: {epoch}_net_{network or 'G'}.pth not found. {advice}")


def find_run_weights(run_dir: Path, epoch: str, networks: Iterable[str]) -> Path | None:
    """Return the weights file of the first of these networks that has one in a run's folder, or None."""
    files = (run_dir / f"{epoch}_net_{name}{suffix}" for name in networks for suffix in WEIGHTS)
    return next((file for file in files if file.is_file()), None)


def read_generator_state(file: Path) -> Mapping[str, Tensor]:
    """Return the state dict in a weights file. Raise UserError if it is damaged."""
    return read_safetensors(file) if file.suffix == SAFETENSORS else read_state(file)


def list_checkpoints(path: Path) -> list[Path]:
    """Return all generators at `path`: a file, the generators of a run's folder, or those of all runs below a folder."""
    if path.is_file() or (path / HUB_WEIGHTS).is_file():
        return [find_weights(path)]
    files = [file for pattern in ("*_net_G*", "*/*_net_G*", f"*/{HUB_WEIGHTS}") for file in path.glob(pattern)]
    weights = sorted(file for file in files if file.suffix in WEIGHTS)
    return weights or [find_weights(path)]


def _read_options(folder: Path) -> Mapping[str, Any]:
    """Return the options saved beside the weights, or {} if there are none. Raise UserError if the file is damaged."""
    for name in (HUB_OPTIONS, OPTIONS_FILE):
        try:
            options = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{folder / name}: cannot be read ({error}). Remove it, or download it again.") from None
        if not isinstance(options, dict):
            raise UserError(f"{folder / name}: expected a JSON object of options. Remove it, or download it again.")
        return options
    return {}


def resolve_architecture(
    state: Mapping[str, Tensor], saved_options: Mapping[str, Any], overrides: Mapping[str, Any], path: Path
) -> Namespace:
    """Return the options to build the generator of a state dict.

    `overrides` come first, then what the weights imply. `saved_options` of the training run are used only if the weights
    belong to no published architecture, and for --net_size and --ngf if they build the same network. Raise UserError, with
    the `path`, if the architecture remains unknown.
    """
    inferred = infer_architecture(state)
    saved = {name: value for name, value in saved_options.items() if name in DEFAULTS and value is not None}
    if inferred is not None and _has_same_width(inferred, {**inferred, **saved}):
        inferred |= {name: saved[name] for name in ("ngf", "net_size") if name in saved}
    if inferred is None and "netG" not in {**saved, **overrides}:
        check_is_generator(state, path)
        raise UserError(
            f"{path}: unknown architecture, and there is no train_opt.json beside it. Give the options of the training run: "
            "--netG, --ngf, --input_nc, --no_antialias ..."
        )
    options = {**DEFAULTS, **(saved if inferred is None else inferred), **overrides}
    if options["netG"] not in GENERATORS:
        raise UserError(
            f"{path}: no generator is named {options['netG']!r}. Use --netG with one of {', '.join(GENERATORS)}."
        )
    return Namespace(**options)


def infer_architecture(state: Mapping[str, Tensor]) -> Options | None:
    """Return the options of the generator with this state dict, or None if it is not a published architecture.

    The shapes define everything but the dropout of a U-Net, which is off at inference.
    """
    try:
        for infer in (_infer_resnet, _infer_unet, _infer_stylegan2):
            options = infer(state)
            if options is not None and options["netG"] in GENERATORS:
                return {**DEFAULTS, **options}
    except (KeyError, IndexError, ValueError):
        pass  # some keys match an architecture, others do not
    return None


def _infer_resnet(state: Mapping[str, Tensor]) -> Options | None:
    first = state.get("model.1.weight")
    if first is None or first.ndim != 4:
        return None
    blocks = {int(key.split(".")[1]) for key in state if ".conv_block." in key}
    blurs = [int(key.split(".")[1]) for key in state if key.endswith(".filt")]
    layers = [int(key.split(".")[1]) for key in state]
    return {
        "netG": f"resnet_{len(blocks)}blocks",
        "input_nc": first.shape[1],
        "output_nc": state[f"model.{max(layers)}.weight"].shape[0],
        "ngf": first.shape[0],
        "normG": _infer_norm(state, "model.1", "model.2"),
        "no_dropout": not any(".conv_block.6." in key and value.ndim == 4 for key, value in state.items()),
        "no_antialias": not any(layer < min(blocks) for layer in blurs),
        "no_antialias_up": not any(layer > max(blocks) for layer in blurs),
    }


def _infer_unet(state: Mapping[str, Tensor]) -> Options | None:
    first = state.get("model.model.0.weight")
    if first is None or first.ndim != 4:
        return None
    num_downs = sum(value.ndim == 4 for value in state.values()) // 2  # a convolution and a transposed convolution each
    return {
        "netG": f"unet_{2**num_downs}",
        "input_nc": first.shape[1],
        "output_nc": state["model.model.3.weight"].shape[1],
        "ngf": first.shape[0],
        "normG": _infer_norm(state, "model.model.0", "model.model.1.model.2"),
    }


def _infer_stylegan2(state: Mapping[str, Tensor]) -> Options | None:
    first = state.get("encoder.convs.1.0.weight")
    if first is None or first.ndim != 4:
        return None
    downsamplings = [key for key in state if key.startswith("encoder.") and key.endswith(".skip.1.weight")]
    downsamplings.sort(key=lambda key: int(key.split(".")[2]))
    encoder = {int(key.split(".")[2]) for key in state if key.startswith("encoder.")}
    decoder = {int(key.split(".")[2]) for key in state if key.startswith("decoder.")}
    blocks = 2 * (len(encoder) - 1 - len(downsamplings))
    ngf, size = _infer_stylegan2_width([first.shape[0], *(state[key].shape[0] for key in downsamplings)])
    return {
        "netG": STYLEGAN2_BY_BLOCKS[blocks],
        "input_nc": first.shape[1],
        "output_nc": state[f"decoder.convs.{max(decoder)}.0.weight"].shape[0],
        "ngf": ngf,
        "net_size": size,
        "stylegan2_G_num_downsampling": len(downsamplings),
    }


def _infer_stylegan2_width(channels: list[int]) -> tuple[int, int]:
    """Return an --ngf and a --net_size that give these channels per level. All such pairs build the same network."""
    for size in STYLEGAN2_SIZES:
        estimate = channels[0] * size // 512
        for ngf in range(max(1, estimate - 1), estimate + 3):
            if [num_generator_channels(ngf, size / 2**level) for level in range(len(channels))] == channels:
                return ngf, size
    raise ValueError(f"no StyleGAN2 generator has these channels: {channels}")


def _has_same_width(one: Options, other: Options) -> bool:
    """Return True if --ngf and --net_size of both options build networks of the same width."""
    if not all(isinstance(o[name], int) and o[name] > 0 for o in (one, other) for name in ("ngf", "net_size")):
        return False
    if "stylegan2" not in one["netG"]:
        return one["ngf"] == other["ngf"]
    levels = range(one["stylegan2_G_num_downsampling"] + 1)
    widths = [[num_generator_channels(o["ngf"], o["net_size"] / 2**level) for level in levels] for o in (one, other)]
    return widths[0] == widths[1]


def _infer_norm(state: Mapping[str, Tensor], convolution: str, norm: str) -> str:
    """Return --normG, from the keys of a convolution and of the norm after it.

    A convolution has a bias only if an instance norm follows. Running statistics alone do not imply batch norm: old
    checkpoints have them for instance norms too.
    """
    if f"{convolution}.bias" in state:
        return "instance"
    return "batch" if f"{norm}.running_mean" in state else "none"
