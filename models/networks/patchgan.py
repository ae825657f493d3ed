"""PatchGAN discriminators (Isola et al., 2017): a map of scores, one for every patch that the receptive field covers."""

from itertools import pairwise

from torch import Tensor, nn

from models.networks.layers import NORMS, Downsample, use_bias
from util.errors import ImageSizeError


class PatchGAN(nn.Module):
    """(N, input_nc, H, W) in [-1, 1] -> (N, 1, h, w) unbounded scores; three layers see patches of 70 pixels.

    Widths double from `ndf` with every one of the `n_layers` halvings, up to 8 times `ndf`.
    """

    def __init__(
        self, input_nc: int, ndf: int = 64, n_layers: int = 3, norm: str = "instance", antialias: bool = True
    ) -> None:
        super().__init__()
        bias = use_bias(norm)

        def halving(inputs: int, outputs: int, *between: nn.Module, bias: bool) -> list[nn.Module]:
            if antialias:
                return [nn.Conv2d(inputs, outputs, 4, 1, 1, bias=bias), *between, Downsample(outputs)]
            return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=bias), *between]

        widths = [ndf * min(2**level, 8) for level in range(n_layers + 1)]
        layers = halving(input_nc, ndf, nn.LeakyReLU(0.2, inplace=True), bias=True)
        for inputs, outputs in pairwise(widths[:-1]):
            layers += halving(inputs, outputs, NORMS[norm](outputs), nn.LeakyReLU(0.2, inplace=True), bias=bias)
        layers += [
            nn.Conv2d(widths[-2], widths[-1], 4, 1, 1, bias=bias),
            NORMS[norm](widths[-1]),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(widths[-1], 1, 4, 1, 1),
        ]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class PatchDiscriminator(PatchGAN):
    """A two-layer PatchGAN that judges tiles of 16 pixels each on its own; what is left over at the far edges is not seen.

    (N, input_nc, H, W) -> (N * tiles, 1, h, w). Raises ImageSizeError for images below one tile.
    """

    TILE = 16

    def __init__(self, input_nc: int, ndf: int = 64, norm: str = "instance", antialias: bool = True) -> None:
        super().__init__(input_nc, ndf, n_layers=2, norm=norm, antialias=antialias)

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(to_patches(image, self.TILE))


def to_patches(image: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N * tiles, C, side, side), row by row; raises ImageSizeError where not one tile fits."""
    height, width = image.shape[-2:]
    rows, columns = height // side, width // side
    if not rows * columns:
        raise ImageSizeError(f"an image of {width}x{height} is smaller than one tile of {side}x{side}")
    image = image[..., : rows * side, : columns * side]
    tiles = image.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


class PixelDiscriminator(nn.Module):
    """Judges every pixel by its own values alone: (N, input_nc, H, W) -> (N, 1, H, W)."""

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
        return self.net(image)
