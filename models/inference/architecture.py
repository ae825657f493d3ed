"""Which generator weights belong to, told from the names and shapes in the state dict, as the options that build it."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from models.networks import GENERATORS
from models.networks.stylegan2 import generator_width
from util.errors import UserError

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
            if [generator_width(ngf, size / 2**level) for level in range(len(widths))] == widths:
                return ngf, size
    raise ValueError(f"no StyleGAN2 generator has these widths: {widths}")


def _norm(state: Mapping[str, Tensor], convolution: str, norm: str) -> str:
    """--normG, from the keys of a convolution and of the norm behind it. In front of an instance norm alone, convolutions
    have biases; old checkpoints hold running statistics of instance norms as well."""
    if f"{convolution}.bias" in state:
        return "instance"
    return "batch" if f"{norm}.running_mean" in state else "none"
