"""PatchGAN discriminators (Isola et al., 2017): a map of logits, one for every patch of the image."""

from itertools import pairwise

from torch import Tensor, nn

from models.networks.layers import NORMS, fused_layers, use_bias
from models.networks.resampling import Downsample
from util.errors import ImageSizeError


class PatchGAN(nn.Module):
    """Images (N, input_nc, H, W) in [-1, 1] -> logits (N, 1, h, w). With three layers a logit depends on 70x70 pixels.

    Each of the `n_layers` layers halves the resolution and doubles the channels, from `ndf` up to 8 * `ndf`.
    """

    def __init__(
        self, input_nc: int, ndf: int = 64, n_layers: int = 3, norm: str = "instance", antialias: bool = True
    ) -> None:
        super().__init__()
        bias = use_bias(norm)

        def downsample_block(inputs: int, outputs: int, *between: nn.Module, bias: bool) -> list[nn.Module]:
            if antialias:
                return [nn.Conv2d(inputs, outputs, 4, 1, 1, bias=bias), *between, Downsample(outputs)]
            return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=bias), *between]

        channels = [ndf * min(2**level, 8) for level in range(n_layers + 1)]
        layers = downsample_block(input_nc, ndf, nn.LeakyReLU(0.2, inplace=True), bias=True)
        for inputs, outputs in pairwise(channels[:-1]):
            layers += downsample_block(inputs, outputs, NORMS[norm](outputs), nn.LeakyReLU(0.2, inplace=True), bias=bias)
        layers += [
            nn.Conv2d(channels[-2], channels[-1], 4, 1, 1, bias=bias),
            NORMS[norm](channels[-1]),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(channels[-1], 1, 4, 1, 1),
        ]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        for _, layer in fused_layers(self.model, range(len(self.model))):
            image = layer(image)
        return image


class PatchDiscriminator(PatchGAN):
    """A two-layer PatchGAN on separate patches of 16 pixels: (N, input_nc, H, W) -> (N * patches, 1, h, w).

    A remainder at the right and lower edges is ignored. Raise ImageSizeError for images smaller than one patch.
    """

    PATCH_SIZE = 16

    def __init__(self, input_nc: int, ndf: int = 64, norm: str = "instance", antialias: bool = True) -> None:
        super().__init__(input_nc, ndf, n_layers=2, norm=norm, antialias=antialias)

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(to_patches(image, self.PATCH_SIZE))


def to_patches(image: Tensor, side: int) -> Tensor:
    """Cut images (N, C, H, W) into patches (N * patches, C, side, side), row by row.

    Raise ImageSizeError if an image is smaller than one patch.
    """
    height, width = image.shape[-2:]
    rows, columns = height // side, width // side
    if not rows * columns:
        raise ImageSizeError(f"an image of {width}x{height} pixels is smaller than one patch of {side}x{side}")
    image = image[..., : rows * side, : columns * side]
    patches = image.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


class PixelDiscriminator(nn.Module):
    """1x1 convolutions, one logit per pixel: (N, input_nc, H, W) -> (N, 1, H, W)."""

    def __init__(self, input_nc: int, ndf: int = 64, norm: str = "instance") -> None:
        super().__init__()
        bias = use_bias(norm)
        self.net = nn.Sequential(
            nn.Conv2d(input_nc, ndf, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            NORMS[norm](2 * ndf),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )

    def forward(self, image: Tensor) -> Tensor:
        for _, layer in fused_layers(self.net, range(len(self.net))):
            image = layer(image)
        return image
