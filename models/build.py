"""From options to networks: the one place where the two meet."""

from argparse import Namespace

from torch import nn

from models.networks import DISCRIMINATORS, GENERATORS, DiscriminatorSettings, GeneratorSettings
from models.networks.initialisation import init_weights


def build_generator(opt: Namespace, input_nc: int, output_nc: int) -> nn.Module:
    """The generator that --netG names, from `input_nc` to `output_nc` channels, with fresh weights."""
    settings = GeneratorSettings(
        input_nc=input_nc,
        output_nc=output_nc,
        ngf=opt.ngf,
        norm=opt.normG,
        dropout=not opt.no_dropout,
        antialias=not opt.no_antialias,
        antialias_up=not opt.no_antialias_up,
        size=min(opt.load_size, opt.crop_size),
        downsamplings=opt.stylegan2_G_num_downsampling,
    )
    return _initialised(GENERATORS[opt.netG](settings), opt)


def build_discriminator(opt: Namespace, input_nc: int) -> nn.Module:
    """The discriminator that --netD names, for pictures of `input_nc` channels, with fresh weights."""
    settings = DiscriminatorSettings(
        input_nc=input_nc,
        ndf=opt.ndf,
        n_layers=opt.n_layers_D,
        norm=opt.normD,
        antialias=not opt.no_antialias,
        size=min(opt.load_size, opt.crop_size),
        tile=opt.D_patch_size,
    )
    return _initialised(DISCRIMINATORS[opt.netD](settings), opt)


def _initialised(network: nn.Module, opt: Namespace) -> nn.Module:
    init_weights(network, opt.init_type, opt.init_gain)
    return network
