"""SinCUT's generator: the layers of StyleGAN2 as an encoder and a decoder around residual blocks, without a style.

CUT, section 4.3 (single-image translation). A tap is the index of an entry of the encoder, whose first is the image.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import EncoderGenerator, validate_nce_layers
from models.networks.stylegan2 import NoiseSource, ReceptiveField, StyledUpsample, crop_receptive_fields
from models.networks.stylegan2_layers import ConvLayer, ResBlock, channels_last


class ConvStack(nn.Module):
    """Layers whose keys begin with `convs`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.convs = nn.Sequential(*layers)


def generator_width(ngf: int, resolution: float) -> int:
    """Channels of feature maps at this resolution in pixels; coarse ones have at most 512."""
    width = round(512 * ngf / resolution)
    return min(512, width) if resolution <= 32 else width


class StyleGAN2Generator(EncoderGenerator):
    """Translates images (N, input_nc, H, W) in [-1, 1] to unbounded (N, output_nc, H, W); H and W are multiples of
    2**n_downsampling, otherwise free.

    Widths follow from `ngf` and from `size`, the side of the training images in pixels, rounded to a power of two.
    Maps are halved `n_downsampling` times; there, `blocks` residual blocks work, half of them in the encoder. With
    `inject_noise` every doubling adds noise from `noise_source`, in tests too.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int,
        size: int,
        blocks: int = 6,
        n_downsampling: int = 1,
        inject_noise: bool = True,
    ) -> None:
        super().__init__()
        resolution = 2 ** round(math.log2(size))
        widths = [generator_width(ngf, resolution / 2**level) for level in range(n_downsampling + 1)]
        if not all(widths):
            raise ValueError(f"a width of {ngf} leaves no channels at {resolution} pixels")
        halvings = list(pairwise(widths))
        inner, blocks_per_half = widths[-1], blocks // 2
        self.n_downsampling = n_downsampling
        self.layer_channels = [input_nc, *widths, *[inner] * blocks_per_half]
        self.noise_source = NoiseSource()

        self.encoder = ConvStack(
            nn.Identity(),
            ConvLayer(input_nc, widths[0], 1),
            *(ResBlock(fine, coarse, downsample=True) for fine, coarse in halvings),
            *(ResBlock(inner, inner) for _ in range(blocks_per_half)),
        )
        source = self.noise_source if inject_noise else None
        self.decoder = ConvStack(
            *(ResBlock(inner, inner) for _ in range(blocks_per_half)),
            *(StyledUpsample(coarse, fine, source) for fine, coarse in reversed(halvings)),
            ConvLayer(widths[0], output_nc, 1),
        )

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """Channels of the feature maps tapped at `layers`. Raises ValueError where these are no legal taps."""
        validate_nce_layers(layers, len(self.layer_channels))
        return [self.layer_channels[layer] for layer in layers]

    def forward(
        self,
        image: Tensor,
        layers: Sequence[int] = (),
        encode_only: bool = False,
        positions: Sequence[Tensor] | None = None,
    ) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        """`G(x)` is the translation, `G(x, layers)` the translation and the features tapped on the way,
        `G(x, layers, encode_only=True)` the features alone, computed no further than the last tap, and
        `G(x, layers, positions=...)` the features at these positions (`encode_patches`)."""
        if positions is not None:
            return self.encode_patches(image, layers, positions)
        features = channels_last(image)
        taps: list[Tensor] = []
        for index, layer in enumerate(self.encoder.convs):
            features = self.checkpointed(layer, features)
            if index in layers:
                taps.append(features)
                if encode_only and index == layers[-1]:
                    return taps
        for layer in self.decoder.convs:
            draws_noise = isinstance(layer, StyledUpsample)
            features = layer(features) if draws_noise else self.checkpointed(layer, features)
        return (features, taps) if layers else features

    def encode_patches(self, image: Tensor, layers: Sequence[int], positions: Sequence[Tensor]) -> list[Tensor]:
        """The features that are tapped at `layers`, but only at `positions`: (P_i,) row-major indices into each map,
        the same for every image. Returns (N, C_i, P_i) for each layer.

        A few positions see little of the image: as long as it costs less, only that much is encoded, with equal
        features and gradients.
        """
        reaches = [self._reach(layer) for layer in layers]
        height, width = image.shape[2:]
        seen = sum(len(position) * reach.pixels**2 for position, reach in zip(positions, reaches, strict=True))
        if seen >= height * width or not all(reach.fits(height, width) for reach in reaches):
            maps = self(image, layers, encode_only=True)
            return [features.flatten(2)[:, :, position] for features, position in zip(maps, positions, strict=True)]

        vectors = []
        for layer, position, reach in zip(layers, positions, reaches, strict=True):
            windows, within = crop_receptive_fields(image, position, reach)
            features = self(windows, (layer,), encode_only=True)[0].flatten(2).unflatten(0, (len(image), len(position)))
            chosen = within[None, :, None, None].expand(*features.shape[:3], 1)
            vectors.append(features.gather(3, chosen)[..., 0].transpose(1, 2))
        return vectors

    def _reach(self, layer: int) -> ReceptiveField:
        halvings = min(max(layer - 1, 0), self.n_downsampling)
        blocks = max(layer - 1 - halvings, 0)
        pixels = 2 * blocks  # two 3x3 convolutions each
        for _ in range(halvings):
            pixels = 2 * pixels + 4  # a 3x3 convolution, a blur and a 3x3 convolution of stride 2
        stride = 2**halvings
        return ReceptiveField(stride, -(-pixels // stride))
