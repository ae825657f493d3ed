"""SinCUT's generator: the layers of StyleGAN2 as an encoder and a decoder around residual blocks, without a style.

CUT, section 4.3 (single-image translation). A tap is the index of an entry of the encoder, whose first is the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.base import EncoderGenerator, validate_nce_layers
from models.networks.patchgan import to_patches
from models.networks.stylegan2_layers import (
    ACTIVATION_GAIN,
    Bias,
    Blur,
    ConvLayer,
    EqualizedLinear,
    FusedLeakyLinear,
    ResBlock,
    activate,
    channels_last,
)
from util.errors import ImageSizeError
from util.runtime.distributed import local_shard, world_size


class NoiseSource:
    """Where the injected noise comes from: one for each generator network.

    With `generator` the noise follows from that generator's state, on any device; with None, from PyTorch's global one.
    """

    def __init__(self) -> None:
        self.generator: torch.Generator | None = None

    def draw(self, features: Tensor) -> Tensor:
        """Standard normal noise for feature maps (N, C, H, W), the same for all channels: (N, 1, H, W)."""
        batch, _, height, width = features.shape
        device = features.device if self.generator is None else self.generator.device
        noise = torch.randn(batch * world_size(), 1, height, width, generator=self.generator, device=device)
        return local_shard(noise).to(features)


class NoiseInjection(nn.Module):
    """The strength of the noise, learned from zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class UpsampleConv(nn.Module):
    """A transposed 3x3 convolution of stride 2 and a blur: (N, C, H, W) -> (N, C', 2H, 2W).

    The modulated convolution of StyleGAN2 where there is no style: nothing modulates the weights, they are only
    demodulated, every output channel to norm 1 (Karras et al. 2020, equation 3); its leading axis was the batch's.
    """

    EPSILON = 1e-8

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3))
        self.scale = 1 / math.sqrt(inputs * 9)
        self.blur = Blur(padding=1, gain=4.0)

    def forward(self, features: Tensor, gain: float, bias: Tensor) -> Tensor:
        weight = self.weight[0] * self.scale
        norm = weight.square().sum((1, 2, 3), keepdim=True)
        weight = weight * (torch.rsqrt(norm + self.EPSILON) * gain)
        features = F.conv_transpose2d(features, weight.transpose(0, 1), stride=2)
        return self.blur(features, bias)


class StyledUpsample(nn.Module):
    """sqrt(2) * leaky_relu(conv(x) + strength * noise + bias): (N, C, H, W) -> (N, C', 2H, 2W).

    Without a `source` nothing is injected, and the strength is not learned.
    """

    def __init__(self, inputs: int, outputs: int, source: NoiseSource | None) -> None:
        super().__init__()
        self.conv = UpsampleConv(inputs, outputs)
        self.noise = NoiseInjection()
        self.activate = Bias(outputs)
        self.source = source
        self.noise.requires_grad_(source is not None)

    def forward(self, features: Tensor) -> Tensor:
        features = self.conv(features, ACTIVATION_GAIN, self.activate(ACTIVATION_GAIN))
        if self.source is not None:
            # On a line of its own: torch.compile splits its graph at a generator, and warns if add_ was looked up before.
            noise = self.source.draw(features)
            features.add_(noise * (self.noise.weight * ACTIVATION_GAIN))
        return activate(features)


@dataclass(frozen=True)
class ReceptiveField:
    """How far a position of a feature map sees: `margin` positions in every direction, `stride` pixels apart."""

    stride: int
    margin: int

    @property
    def positions(self) -> int:
        """Side of the smallest window, in positions."""
        return 2 * self.margin + 1

    @property
    def pixels(self) -> int:
        """Side of the smallest window, in pixels."""
        return self.positions * self.stride

    def fits(self, height: int, width: int) -> bool:
        """Whether a window can be cut from an image of this size such that it is encoded as the whole image is."""
        strides = height % self.stride == width % self.stride == 0
        return strides and min(height, width) >= self.pixels


def crop_receptive_fields(image: Tensor, positions: Tensor, reach: ReceptiveField) -> tuple[Tensor, Tensor]:
    """The windows around `positions` (P,), row-major indices into the feature map of `image` (N, C, H, W).

    Returns the windows (N * P, C, S, S), image by image, and where in each window's own feature map its position
    lies, (P,). A window never leaves the image: at a border it is moved inwards, so that the border's padding is the
    image's own. The other sides' padding is wrong, but lies too far away to be seen.
    """
    stride, side = reach.stride, reach.positions
    map_height, map_width = image.shape[2] // stride, image.shape[3] // stride
    row, column = positions // map_width, positions % map_width
    top = (row - reach.margin).clamp(0, map_height - side)
    left = (column - reach.margin).clamp(0, map_width - side)

    pixel = torch.arange(reach.pixels, device=positions.device)
    rows = (top * stride)[:, None] + pixel
    columns = (left * stride)[:, None] + pixel
    windows = image[:, :, rows[:, :, None], columns[:, None, :]]
    return windows.transpose(1, 2).flatten(0, 1), (row - top) * side + column - left


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
