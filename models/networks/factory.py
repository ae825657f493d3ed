"""Build networks from options: `define_G`, `define_D` and `define_F`."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from models.networks import DISCRIMINATORS, FEATURE_HEADS, GENERATORS, DiscriminatorConfig, GeneratorConfig
from models.networks.base import Generator
from models.networks.layers import init_weights
from models.networks.patch_sampler import PatchSampler
from util.errors import UserError, is_out_of_memory
from util.runtime.device import format_gib, free_memory

Network = TypeVar("Network", bound=nn.Module)


def define_G(opt: Namespace, input_nc: int, output_nc: int) -> Generator:
    """Build the generator --netG with initialized weights, from `input_nc` to `output_nc` channels."""
    config = generator_config(opt, input_nc, output_nc)
    return _build_validated("--netG", opt.netG, lambda: GENERATORS[opt.netG](config), ("--ngf", opt.ngf), input_nc, opt)


def generator_config(opt: Namespace, input_nc: int, output_nc: int) -> GeneratorConfig:
    """Return the options of the generator."""
    return GeneratorConfig(
        input_nc=input_nc,
        output_nc=output_nc,
        ngf=opt.ngf,
        norm=opt.normG,
        dropout=not opt.no_dropout,
        antialias=not opt.no_antialias,
        antialias_up=not opt.no_antialias_up,
        size=opt.net_size,
        n_downsampling=opt.stylegan2_G_num_downsampling,
    )


def define_D(opt: Namespace, input_nc: int) -> nn.Module:
    """Build the discriminator --netD with initialized weights, for images of `input_nc` channels."""
    config = DiscriminatorConfig(
        input_nc=input_nc,
        ndf=opt.ndf,
        n_layers=opt.n_layers_D,
        norm=opt.normD,
        antialias=not opt.no_antialias,
        size=opt.net_size,
        patch_size=opt.D_patch_size,
    )
    return _build_validated("--netD", opt.netD, lambda: DISCRIMINATORS[opt.netD](config), ("--ndf", opt.ndf), input_nc, opt)


def define_F(opt: Namespace, generator: Generator, layers: Sequence[int]) -> PatchSampler:
    """Build the head --netF with initialized weights, for the feature maps of `generator` at `layers` (--nce_layers).

    Raise UserError if the generator has no encoder features, or not these layers.
    """
    channels = _feature_channels(opt, generator, layers)

    def build() -> PatchSampler:
        return FEATURE_HEADS[opt.netF](channels, opt.netF_nc)

    dry_build_on_meta(build, "--netF_nc", opt.netF_nc)
    head = build()
    init_weights(head, opt.init_type, opt.init_gain)
    return head


def _feature_channels(opt: Namespace, generator: Generator, layers: Sequence[int]) -> list[int]:
    if generator.default_nce_layers is None:
        names = [name for name, spec in GENERATORS.items() if spec.network.default_nce_layers is not None]
        raise UserError(
            f"--netG {opt.netG}: incompatible with --model {opt.model}, because PatchNCE needs encoder features. "
            f"Use one of {', '.join(names)}."
        )
    try:
        return generator.feature_channels(layers)
    except ValueError as error:
        raise UserError(f"--nce_layers {opt.nce_layers}: invalid for --netG {opt.netG}: {error}.") from None


def _build_validated(
    flag: str, name: str, build: Callable[[], Network], width: tuple[str, int], channels: int, opt: Namespace
) -> Network:
    """Build the network and initialize its weights. `width` is the option that sets the number of channels, and its value.

    Raise UserError if the network cannot process the training images, or does not fit in memory.
    """
    side = opt.training_side
    try:
        on_meta = dry_build_on_meta(build, *width)
        if opt.isTrain:
            on_meta(torch.empty(1, channels, side, side, device="meta"))
    except (ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{flag} {name}: incompatible with training images of {side}x{side} pixels (--preprocess, --load_size, "
            f"--crop_size): {error}. Use another size or another network."
        ) from None
    network = build()
    init_weights(network, opt.init_type, opt.init_gain)
    return network


def dry_build_on_meta(build: Callable[[], Network], flag: str, width: int) -> Network:
    """Build the network on the meta device, where it has shapes but takes no memory and computes nothing.

    Raise UserError that names the option (`flag` and its value `width`) if the weights do not fit in memory.
    """
    advice = "Use a smaller value, or a smaller --input_nc or --output_nc."
    try:
        with torch.device("meta"):
            on_meta = build()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{flag} {width}: the network is too large for any memory. {advice}") from None
    needed, free = sum(tensor.nbytes for tensor in on_meta.state_dict().values()), free_memory(torch.device("cpu"))
    if needed > free:
        raise UserError(
            f"{flag} {width}: the network needs {format_gib(needed)}, but only {format_gib(free)} are free. {advice}"
        )
    return on_meta
