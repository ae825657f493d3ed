"""From options to networks: the one place where the two meet."""

from argparse import Namespace
from collections.abc import Callable, Sequence

import torch
from torch import nn

from models.networks import DISCRIMINATORS, FEATURE_HEADS, GENERATORS, DiscriminatorConfig, GeneratorConfig
from models.networks.layers import init_weights
from models.networks.patch_sampler import PatchSampler
from util.errors import UserError, is_out_of_memory
from util.runtime.device import format_gib, free_memory


def define_G(opt: Namespace, input_nc: int, output_nc: int) -> nn.Module:
    """The generator that --netG names, from `input_nc` to `output_nc` channels, with fresh weights."""
    settings = generator_config(opt, input_nc, output_nc)
    return _build_validated("--netG", opt.netG, lambda: GENERATORS[opt.netG](settings), ("--ngf", opt.ngf), input_nc, opt)


def generator_config(opt: Namespace, input_nc: int, output_nc: int) -> GeneratorConfig:
    """What the options say of the generator."""
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
    """The discriminator that --netD names, for images of `input_nc` channels, with fresh weights."""
    settings = DiscriminatorConfig(
        input_nc=input_nc,
        ndf=opt.ndf,
        n_layers=opt.n_layers_D,
        norm=opt.normD,
        antialias=not opt.no_antialias,
        size=opt.net_size,
        tile=opt.D_patch_size,
    )
    return _build_validated(
        "--netD", opt.netD, lambda: DISCRIMINATORS[opt.netD](settings), ("--ndf", opt.ndf), input_nc, opt
    )


def define_F(opt: Namespace, widths: Sequence[int]) -> PatchSampler:
    """The head that --netF names, for feature maps of these widths, with fresh weights."""

    def build() -> PatchSampler:
        return FEATURE_HEADS[opt.netF](widths, opt.netF_nc)

    dry_build_on_meta(build, "--netF_nc", opt.netF_nc)
    head = build()
    init_weights(head, opt.init_type, opt.init_gain)
    return head


def _build_validated(
    flag: str, name: str, build: Callable[[], nn.Module], width: tuple[str, int], channels: int, opt: Namespace
) -> nn.Module:
    """Builds the network and draws its weights. Raises UserError where it cannot take the images it shall be
    trained on, or where it is as wide as no memory holds; `width` is the option that says so, and its value."""
    side = min(opt.load_size, opt.crop_size)
    try:
        plan = dry_build_on_meta(build, *width)
        if opt.isTrain:
            plan(torch.empty(1, channels, side, side, device="meta"))
    except (ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{flag} {name} does not go with training images of {side}x{side} pixels (--load_size, --crop_size): {error}"
        ) from None
    network = build()
    init_weights(network, opt.init_type, opt.init_gain)
    return network


def dry_build_on_meta(build: Callable[[], nn.Module], flag: str, width: int) -> nn.Module:
    """The network on the meta device: it has shapes alone, takes no memory and computes nothing.

    Raises UserError, with the flags that say how wide it is, where memory would not hold its weights.
    """
    remedy = "lower it, --input_nc or --output_nc"
    try:
        with torch.device("meta"):
            plan = build()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{flag} {width} makes a network that no memory can hold: {remedy}") from None
    needed, free = sum(tensor.nbytes for tensor in plan.state_dict().values()), free_memory(torch.device("cpu"))
    if needed > free:
        raise UserError(
            f"{flag} {width} makes a network of {format_gib(needed)}, "
            f"and {format_gib(free)} of memory may be used here: {remedy}"
        )
    return plan
