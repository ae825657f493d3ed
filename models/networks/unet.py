"""The U-Net generator of pix2pix (Isola et al., 2017): an encoder and a decoder joined by skips at every resolution.

Written from the inside out, as the nested keys of its checkpoints require. It has no taps for PatchNCE.
"""

import torch
from torch import Tensor, nn

from models.networks.layers import NORMS, use_bias
from util.errors import ImageSizeError


class UnetBlock(nn.Module):
    """Halves, lets `submodule` work, doubles, and hands on its input beside the result: (N, C, H, W) -> (N, 2C, H, W).

    `submodule` gives twice `inner_width` channels for `inner_width`; None at the bottom, which is not normalized.
    """

    def __init__(self, width: int, inner_width: int, submodule: nn.Module | None, norm: str, dropout: bool = False) -> None:
        super().__init__()
        bias = use_bias(norm)
        down = [nn.LeakyReLU(0.2), nn.Conv2d(width, inner_width, 4, 2, 1, bias=bias)]
        if submodule is not None:
            down += [NORMS[norm](inner_width), submodule]
        joined = inner_width if submodule is None else 2 * inner_width
        up = [nn.ReLU(inplace=True), nn.ConvTranspose2d(joined, width, 4, 2, 1, bias=bias), NORMS[norm](width)]
        if dropout:
            up.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*down, *up)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat((features, self.model(features)), 1)


class OutermostBlock(nn.Module):
    """The first halving and the last doubling, around everything else; nothing is handed on beside them."""

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


class UnetGenerator(nn.Module):
    """Translates images (N, input_nc, H, W) to (N, output_nc, H, W), both in [-1, 1].

    Maps are halved `num_downs` times, at least 5: 7 for images of 128 pixels, 8 for 256. `norm` is a key of `NORMS`;
    `dropout` adds a layer of it to the inner blocks that keep their width. Raises ImageSizeError for images whose sides
    are no multiples of 2**halvings.
    """

    def __init__(
        self, input_nc: int, output_nc: int, ngf: int, num_downs: int, norm: str = "instance", dropout: bool = False
    ) -> None:
        super().__init__()
        widest = 8 * ngf
        block = UnetBlock(widest, widest, None, norm)
        for _ in range(num_downs - 5):
            block = UnetBlock(widest, widest, block, norm, dropout)
        for width in (4 * ngf, 2 * ngf, ngf):
            block = UnetBlock(width, 2 * width, block, norm)
        self.model = OutermostBlock(input_nc, output_nc, ngf, block, norm)
        self.multiple = 2**num_downs

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise ImageSizeError(
                f"a U-Net of this depth takes images whose sides are multiples of {self.multiple} pixels, "
                f"not {width}x{height}"
            )
        return self.model(image)
