"""The U-Net generator of pix2pix (Isola et al., 2017): an encoder and a decoder with skip connections at every resolution.

The blocks are built from the inside out, because the keys of published checkpoints are nested. PatchNCE cannot use it.
"""

import torch
from torch import Tensor, nn

from models.networks.base import Generator
from models.networks.layers import NORMS, use_bias
from util.errors import ImageSizeError


class UnetBlock(nn.Module):
    """Downsample, run `submodule`, upsample, and concatenate the input: (N, C, H, W) -> (N, 2C, H, W).

    `submodule` maps `inner_channels` to twice as many. None marks the innermost block, which has no norm there.
    """

    def __init__(
        self, channels: int, inner_channels: int, submodule: nn.Module | None, norm: str, dropout: bool = False
    ) -> None:
        super().__init__()
        bias = use_bias(norm)
        down = [nn.LeakyReLU(0.2), nn.Conv2d(channels, inner_channels, 4, 2, 1, bias=bias)]
        if submodule is not None:
            down += [NORMS[norm](inner_channels), submodule]
        up_input = inner_channels if submodule is None else 2 * inner_channels
        up = [nn.ReLU(inplace=True), nn.ConvTranspose2d(up_input, channels, 4, 2, 1, bias=bias), NORMS[norm](channels)]
        if dropout:
            up.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*down, *up)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat((features, self.model(features)), 1)


class OutermostBlock(nn.Module):
    """The first downsampling and the last upsampling, without a skip connection."""

    def __init__(self, input_nc: int, output_nc: int, ngf: int, submodule: nn.Module, norm: str) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(input_nc, ngf, 4, 2, 1, bias=use_bias(norm)),
            submodule,
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * ngf, output_nc, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class UnetGenerator(Generator):
    """U-Net: images (N, input_nc, H, W) -> (N, output_nc, H, W), both in [-1, 1].

    Args:
        input_nc: input channels.
        output_nc: output channels.
        ngf: channels after the first convolution.
        num_downs: downsampling steps, at least 5: 7 for images of 128 pixels, 8 for 256.
        norm: a key of `NORMS`.
        dropout: add dropout to the inner blocks that keep their channels.
    """

    accepts_any_size = False

    def __init__(
        self, input_nc: int, output_nc: int, ngf: int, num_downs: int, norm: str = "instance", dropout: bool = False
    ) -> None:
        super().__init__()
        inner_channels = 8 * ngf
        block = UnetBlock(inner_channels, inner_channels, None, norm)
        for _ in range(num_downs - 5):
            block = UnetBlock(inner_channels, inner_channels, block, norm, dropout)
        for channels in (4 * ngf, 2 * ngf, ngf):
            block = UnetBlock(channels, 2 * channels, block, norm)
        self.model = OutermostBlock(input_nc, output_nc, ngf, block, norm)
        self.size_multiple = self.min_size = 2**num_downs

    def forward(self, image: Tensor) -> Tensor:
        """Return the output. Raise ImageSizeError if a side is not a multiple of `size_multiple`."""
        height, width = image.shape[2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise ImageSizeError(
                f"this U-Net needs image sides that are multiples of {self.size_multiple} pixels, got {width}x{height}"
            )
        return self.model(image)
