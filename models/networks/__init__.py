"""Registries of networks: the choices of --netG, --netD and --netF.

To add a network, write its file and add one line to its registry. The options offer every key as a choice, and the
registry tests build, train, save and load every entry. docs/extending.md has examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from models.networks.base import Generator
from models.networks.patch_sampler import PatchSampler, ReshapeF
from models.networks.patchgan import PatchDiscriminator, PatchGAN, PixelDiscriminator
from models.networks.resnet import ResnetGenerator
from models.networks.stylegan2 import (
    SmallStyleGAN2Generator,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
    TiledStyleGAN2Discriminator,
)
from models.networks.unet import UnetGenerator


@dataclass(frozen=True)
class GeneratorConfig:
    """The options that a generator can be built from; each generator uses some of them."""

    input_nc: int
    output_nc: int
    ngf: int
    norm: str
    dropout: bool
    antialias: bool
    antialias_up: bool
    size: int  # side of the square training images, in pixels
    n_downsampling: int  # of the StyleGAN2 generators


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The options that a discriminator can be built from; each discriminator uses some of them."""

    input_nc: int
    ndf: int
    n_layers: int
    norm: str
    antialias: bool
    size: int  # side of the square training images, in pixels
    patch_size: int  # of tilestylegan2, in pixels


@dataclass(frozen=True)
class GeneratorSpec:
    """An entry of `GENERATORS`: how to build the generator, and its class, whose attributes are known before that.

    `GENERATORS["resnet_9blocks"](config)` builds it.
    """

    network: type[Generator]
    build: Callable[[GeneratorConfig], Generator]

    def __call__(self, config: GeneratorConfig) -> Generator:
        return self.build(config)


def _resnet(n_blocks: int) -> GeneratorSpec:
    return GeneratorSpec(
        ResnetGenerator,
        lambda c: ResnetGenerator(c.input_nc, c.output_nc, c.ngf, n_blocks, c.norm, c.dropout, c.antialias, c.antialias_up),
    )


def _unet(num_downs: int) -> GeneratorSpec:
    return GeneratorSpec(
        UnetGenerator, lambda c: UnetGenerator(c.input_nc, c.output_nc, c.ngf, num_downs, c.norm, c.dropout)
    )


def _stylegan2(network: type[StyleGAN2Generator] | type[SmallStyleGAN2Generator]) -> GeneratorSpec:
    return GeneratorSpec(network, lambda c: network(c.input_nc, c.output_nc, c.ngf, c.size, n_downsampling=c.n_downsampling))


GENERATORS: dict[str, GeneratorSpec] = {
    "resnet_9blocks": _resnet(9),
    "resnet_6blocks": _resnet(6),
    "resnet_4blocks": _resnet(4),
    "unet_256": _unet(8),
    "unet_128": _unet(7),
    "stylegan2": _stylegan2(StyleGAN2Generator),
    "smallstylegan2": _stylegan2(SmallStyleGAN2Generator),
}

DISCRIMINATORS: dict[str, Callable[[DiscriminatorConfig], nn.Module]] = {
    "basic": lambda c: PatchGAN(c.input_nc, c.ndf, 3, c.norm, c.antialias),
    "n_layers": lambda c: PatchGAN(c.input_nc, c.ndf, c.n_layers, c.norm, c.antialias),
    "pixel": lambda c: PixelDiscriminator(c.input_nc, c.ndf, c.norm),
    "patch": lambda c: PatchDiscriminator(c.input_nc, c.ndf, c.norm, c.antialias),
    "stylegan2": lambda c: StyleGAN2Discriminator(c.input_nc, c.ndf, c.size),
    "tilestylegan2": lambda c: TiledStyleGAN2Discriminator(c.input_nc, c.ndf, c.patch_size),
}

# netF, from the channels of the feature maps and the length of the projected vectors.
FEATURE_HEADS: dict[str, Callable[[Sequence[int], int], PatchSampler]] = {
    "sample": lambda channels, nc: PatchSampler(channels, use_mlp=False),
    "mlp_sample": lambda channels, nc: PatchSampler(channels, use_mlp=True, nc=nc),
    "reshape": lambda channels, nc: ReshapeF(),
}
