"""StyleGAN2's residual discriminator (Karras et al., 2020), without its minibatch statistics: one score for an image.

R1 differentiates it twice.
"""

import math
from itertools import pairwise

from torch import Tensor, nn

from models.networks.patchgan import to_patches
from models.networks.stylegan2_layers import ConvLayer, EqualizedLinear, FusedLeakyLinear, ResBlock, channels_last
from util.errors import ImageSizeError

FINAL_SIDE = 4  # of the feature maps that the linear layers read


def discriminator_width(ndf: int, resolution: int) -> int:
    """Channels of feature maps at this resolution in pixels; coarse ones have at most 384."""
    width = round(256 * ndf / resolution)
    return min(384, width) if resolution <= 32 else width


class StyleGAN2Discriminator(nn.Module):
    """(N, input_nc, size, size) in [-1, 1] -> (N, 1) unbounded scores.

    Maps are halved until their side is 4, as often as it takes from `size` rounded to a power of two. Raises
    ImageSizeError for a `size`, and later for images, where this does not lead to 4.
    """

    def __init__(self, input_nc: int, ndf: int, size: int) -> None:
        super().__init__()
        halvings = max(0, round(math.log2(size / FINAL_SIDE)))
        self.reduction = 2**halvings
        self._check(size, size)
        widths = [discriminator_width(ndf, FINAL_SIDE * 2**level) for level in reversed(range(halvings + 1))]
        if not all(widths):
            raise ValueError(f"a width of {ndf} leaves no channels at {size} pixels")
        self.convs = nn.Sequential(
            ConvLayer(input_nc, widths[0], 1),
            *(ResBlock(fine, coarse, downsample=True) for fine, coarse in pairwise(widths)),
        )
        self.final_conv = ConvLayer(widths[-1], widths[-1], 3)
        self.final_linear = nn.Sequential(
            FusedLeakyLinear(widths[-1] * FINAL_SIDE**2, widths[-1]), EqualizedLinear(widths[-1], 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        self._check(*image.shape[2:])
        features = self.convs(channels_last(image))
        return self.final_linear(self.final_conv(features).flatten(1))

    def _check(self, height: int, width: int) -> None:
        if any(side // self.reduction != FINAL_SIDE for side in (height, width)):
            least = FINAL_SIDE * self.reduction
            raise ImageSizeError(
                f"this StyleGAN2 discriminator halves images until {FINAL_SIDE}x{FINAL_SIDE} is left: their sides "
                f"must have {least} to {least + self.reduction - 1} pixels, not {width}x{height}"
            )


class TiledStyleGAN2Discriminator(StyleGAN2Discriminator):
    """Judges tiles of `tile` pixels each on its own, (N, input_nc, H, W) -> (N * tiles, 1).

    What is left over at the far edges is not seen. Raises ImageSizeError for images below one tile.
    """

    def __init__(self, input_nc: int, ndf: int, tile: int) -> None:
        super().__init__(input_nc, ndf, tile)
        self.tile = tile

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(to_patches(image, self.tile))
