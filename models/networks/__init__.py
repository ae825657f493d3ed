"""The networks that can be chosen, by the value of the option that chooses them.

To add one: write its file, then one line in its registry. Options take their choices from the keys, and one test is run
for every entry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from models.networks.patch_sampler import PatchSampler, ReshapeF
from models.networks.patchgan import PatchDiscriminator, PatchGAN, PixelDiscriminator
from models.networks.resnet import ResnetGenerator
from models.networks.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator, TiledStyleGAN2Discriminator
from models.networks.unet import UnetGenerator


@dataclass(frozen=True)
class GeneratorConfig:
    """What any generator can be built from; each takes what concerns it."""

    input_nc: int
    output_nc: int
    ngf: int
    norm: str
    dropout: bool
    antialias: bool
    antialias_up: bool
    size: int  # side of the square training images, in pixels
    n_downsampling: int  # StyleGAN2's halvings


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What any discriminator can be built from; each takes what concerns it."""

    input_nc: int
    ndf: int
    n_layers: int
    norm: str
    antialias: bool
    size: int  # side of the square training images, in pixels
    tile: int  # side of the tiles of tilestylegan2, in pixels


def _resnet(blocks: int) -> Callable[[GeneratorConfig], nn.Module]:
    return lambda s: ResnetGenerator(s.input_nc, s.output_nc, s.ngf, blocks, s.norm, s.dropout, s.antialias, s.antialias_up)


def _unet(num_downsampling: int) -> Callable[[GeneratorConfig], nn.Module]:
    return lambda s: UnetGenerator(s.input_nc, s.output_nc, s.ngf, num_downsampling, s.norm, s.dropout)


def _stylegan2(blocks: int, inject_noise: bool) -> Callable[[GeneratorConfig], nn.Module]:
    return lambda s: StyleGAN2Generator(
        s.input_nc, s.output_nc, s.ngf, s.size, blocks, s.n_downsampling, inject_noise=inject_noise
    )


GENERATORS: dict[str, Callable[[GeneratorConfig], nn.Module]] = {
    "resnet_9blocks": _resnet(9),
    "resnet_6blocks": _resnet(6),
    "resnet_4blocks": _resnet(4),
    "unet_256": _unet(8),
    "unet_128": _unet(7),
    "stylegan2": _stylegan2(blocks=6, inject_noise=True),
    "smallstylegan2": _stylegan2(blocks=2, inject_noise=False),
}

# The layers that PatchNCE compares unless --nce_layers says otherwise; generators that are not named here have no taps.
DEFAULT_NCE_LAYERS: dict[str, str] = {
    "resnet_9blocks": "0,4,8,12,16",
    "resnet_6blocks": "0,4,8,12,16",
    "resnet_4blocks": "0,4,8,12,16",
    "stylegan2": "0,2,4",
    "smallstylegan2": "0,2,3",
}

DISCRIMINATORS: dict[str, Callable[[DiscriminatorConfig], nn.Module]] = {
    "basic": lambda s: PatchGAN(s.input_nc, s.ndf, 3, s.norm, s.antialias),
    "n_layers": lambda s: PatchGAN(s.input_nc, s.ndf, s.n_layers, s.norm, s.antialias),
    "pixel": lambda s: PixelDiscriminator(s.input_nc, s.ndf, s.norm),
    "patch": lambda s: PatchDiscriminator(s.input_nc, s.ndf, s.norm, s.antialias),
    "stylegan2": lambda s: StyleGAN2Discriminator(s.input_nc, s.ndf, s.size),
    "tilestylegan2": lambda s: TiledStyleGAN2Discriminator(s.input_nc, s.ndf, s.tile),
}

# The projection heads, from the widths of the tapped feature maps and the length of the projected vectors.
FEATURE_HEADS: dict[str, Callable[[Sequence[int], int], PatchSampler]] = {
    "sample": lambda widths, nc: PatchSampler(widths, project=False),
    "mlp_sample": lambda widths, nc: PatchSampler(widths, project=True, nc=nc),
    "reshape": lambda widths, nc: ReshapeF(),
}
