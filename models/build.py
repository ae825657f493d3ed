"""From options to networks: the one place where the two meet."""

import copy
from argparse import Namespace
from collections.abc import Callable

import torch
from torch import nn

from models.networks import DISCRIMINATORS, GENERATORS, DiscriminatorSettings, GeneratorSettings
from models.networks.initialisation import init_weights
from util.errors import UserError


def build_generator(opt: Namespace, input_nc: int, output_nc: int) -> nn.Module:
    """The generator that --netG names, from `input_nc` to `output_nc` channels, with fresh weights."""
    settings = generator_settings(opt, input_nc, output_nc)
    return _checked("--netG", opt.netG, lambda: GENERATORS[opt.netG](settings), input_nc, opt)


def generator_settings(opt: Namespace, input_nc: int, output_nc: int) -> GeneratorSettings:
    """What the options say of the generator."""
    return GeneratorSettings(
        input_nc=input_nc,
        output_nc=output_nc,
        ngf=opt.ngf,
        norm=opt.normG,
        dropout=not opt.no_dropout,
        antialias=not opt.no_antialias,
        antialias_up=not opt.no_antialias_up,
        size=opt.net_size,
        downsamplings=opt.stylegan2_G_num_downsampling,
    )


def build_discriminator(opt: Namespace, input_nc: int) -> nn.Module:
    """The discriminator that --netD names, for pictures of `input_nc` channels, with fresh weights."""
    settings = DiscriminatorSettings(
        input_nc=input_nc,
        ndf=opt.ndf,
        n_layers=opt.n_layers_D,
        norm=opt.normD,
        antialias=not opt.no_antialias,
        size=opt.net_size,
        tile=opt.D_patch_size,
    )
    return _checked("--netD", opt.netD, lambda: DISCRIMINATORS[opt.netD](settings), input_nc, opt)


def _checked(flag: str, name: str, build: Callable[[], nn.Module], channels: int, opt: Namespace) -> nn.Module:
    """Builds the network and draws its weights. Raises UserError where it cannot take the pictures it shall be
    trained on."""
    side = min(opt.load_size, opt.crop_size)
    try:
        network = build()
        if opt.isTrain:
            # Shapes alone: on the meta device nothing is computed.
            copy.deepcopy(network).to("meta")(torch.empty(1, channels, side, side, device="meta"))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{flag} {name} does not go with training pictures of {side}x{side} pixels (--load_size, --crop_size): {error}"
        ) from None
    init_weights(network, opt.init_type, opt.init_gain)
    return network
