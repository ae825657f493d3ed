"""SinCUT's networks (CUT, section 4.3): StyleGAN2 layers as an image-to-image generator without style, and a discriminator.

--nce_layers are indices into the generator's encoder; index 0 is the image itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.base import Generator, NoiseSource, validate_nce_layers
from models.networks.patch_sampler import gather_positions
from models.networks.patchgan import to_patches
from models.networks.stylegan2_layers import (
    ACTIVATION_GAIN,
    Bias,
    Blur,
    ConvLayer,
    EqualizedLinear,
    FusedLeakyLinear,
    ResBlock,
    channels_last,
    leaky_relu_,
)
from util.errors import ImageSizeError


class NoiseInjection(nn.Module):
    """The learned strength of the injected noise, initially zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class UpsampleConv(nn.Module):
    """A transposed 3x3 convolution of stride 2, then a blur: (N, C, H, W) -> (N, C', 2H, 2W).

    This is StyleGAN2's modulated convolution without a style: weights are only demodulated, to norm 1 for every output
    channel (Karras et al. 2020, equation 3). The leading axis of `weight` is part of the checkpoint format.
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

    If `source` is None, no noise is injected and the strength is not learned.
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
            # A separate line: torch.compile splits its graph at a generator, and warns if `add_` was looked up before.
            noise = self.source.sample(features)
            features.add_(noise * (self.noise.weight * ACTIVATION_GAIN))
        return leaky_relu_(features)


@dataclass(frozen=True)
class ReceptiveField:
    """The part of an image that a position depends on: `radius` positions in all directions, `stride` pixels apart."""

    stride: int
    radius: int

    @property
    def positions(self) -> int:
        """Return the side of the receptive field in positions of the feature map."""
        return 2 * self.radius + 1

    @property
    def pixels(self) -> int:
        """Return the side of the receptive field in pixels of the image."""
        return self.positions * self.stride

    def fits(self, height: int, width: int) -> bool:
        """Return True if a crop of this size is encoded exactly as the same place of a (height, width) image."""
        is_aligned = height % self.stride == width % self.stride == 0
        return is_aligned and min(height, width) >= self.pixels


def crop_receptive_fields(image: Tensor, patch_ids: Tensor, field: ReceptiveField) -> tuple[Tensor, Tensor]:
    """Crop the receptive fields of `patch_ids`, row-major indices into the feature map of `image` (N, C, H, W).

    `patch_ids` are (P,) or (T, P), as for `gather_positions`. Returns the crops (N * P, C, S, S), image by image, and the
    index of each patch in its crop's own feature map, of the shape of `patch_ids`.
    A crop never leaves the image. At a border it is shifted inwards, so that it has the same padding there as the image.
    Padding on its other sides is wrong, but is outside the receptive field.
    """
    stride, side = field.stride, field.positions
    map_height, map_width = image.shape[2] // stride, image.shape[3] // stride
    row, column = patch_ids // map_width, patch_ids % map_width
    top = (row - field.radius).clamp(0, map_height - side)
    left = (column - field.radius).clamp(0, map_width - side)

    pixel = torch.arange(field.pixels, device=patch_ids.device)
    offsets = (pixel[:, None] * image.shape[3] + pixel).flatten()
    pixel_ids = ((top * image.shape[3] + left) * stride)[..., None] + offsets
    crops = gather_positions(image, pixel_ids.flatten(-2))
    crops = crops.unflatten(2, (-1, field.pixels, field.pixels)).transpose(1, 2)
    return crops.flatten(0, 1), (row - top) * side + column - left


class ConvStack(nn.Module):
    """A Sequential under the name `convs`, which the keys of published checkpoints contain."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.convs = nn.Sequential(*layers)


def num_generator_channels(ngf: int, resolution: float) -> int:
    """Return the channels of feature maps at this resolution in pixels: at most 512 from 32 pixels down."""
    channels = round(512 * ngf / resolution)
    return min(512, channels) if resolution <= 32 else channels


class StyleGAN2Generator(Generator):
    """Encoder, residual blocks and decoder: images (N, input_nc, H, W) in [-1, 1] -> unbounded (N, output_nc, H, W).

    Args:
        input_nc: input channels.
        output_nc: output channels.
        ngf: scales the channels of all layers.
        size: side of the training images in pixels, rounded to a power of two; the channels depend on it.
        n_blocks: residual blocks; half of them belong to the encoder.
        n_downsampling: how many times the encoder halves the resolution.
        inject_noise: add noise at every upsampling, in tests too.
    """

    default_nce_layers: str | None = "0,2,4"
    can_encode_patches = True
    supports_gradient_checkpointing = True
    test_at_full_size = True

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int,
        size: int,
        n_blocks: int = 6,
        n_downsampling: int = 1,
        inject_noise: bool = True,
    ) -> None:
        super().__init__()
        resolution = 2 ** round(math.log2(size))
        channels = [num_generator_channels(ngf, resolution / 2**level) for level in range(n_downsampling + 1)]
        if not all(channels):
            raise ValueError(f"--ngf {ngf} leaves no channels at {resolution} pixels")
        levels = list(pairwise(channels))
        inner, blocks_per_half = channels[-1], n_blocks // 2
        self.n_downsampling = n_downsampling
        self.size_multiple = self.min_size = 2**n_downsampling
        self.injects_noise = inject_noise
        self.layer_channels = [input_nc, *channels, *[inner] * blocks_per_half]

        self.encoder = ConvStack(
            nn.Identity(),
            ConvLayer(input_nc, channels[0], 1),
            *(ResBlock(fine, coarse, downsample=True) for fine, coarse in levels),
            *(ResBlock(inner, inner) for _ in range(blocks_per_half)),
        )
        self.noise_source = NoiseSource()
        self.decoder = ConvStack(
            *(ResBlock(inner, inner) for _ in range(blocks_per_half)),
            *(
                StyledUpsample(coarse, fine, self.noise_source if inject_noise else None)
                for fine, coarse in reversed(levels)
            ),
            ConvLayer(channels[0], output_nc, 1),
        )

    def set_rng(self, rng: torch.Generator) -> None:
        """Sample injected noise from `rng`."""
        self.noise_source.rng = rng

    def set_noise_source(self, source: NoiseSource) -> None:
        """Take injected noise from `source`."""
        self.noise_source = source
        for layer in self.decoder.convs:
            if isinstance(layer, StyledUpsample) and self.injects_noise:
                layer.source = source

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """Return the channels of the feature maps at `layers`. Raise ValueError if they are not valid --nce_layers."""
        validate_nce_layers(layers, len(self.layer_channels))
        return [self.layer_channels[layer] for layer in layers]

    def forward(
        self,
        image: Tensor,
        layers: Sequence[int] = (),
        encode_only: bool = False,
        patch_ids: Sequence[Tensor] | None = None,
    ) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the output, or (output, features) if `layers` are given.

        With `encode_only`, return the features alone and stop at the last of the `layers`. With `patch_ids`, return
        the features at these positions alone (see `encode_patches`).
        """
        if patch_ids is not None:
            return self.encode_patches(image, layers, patch_ids)
        output = channels_last(image)
        features: list[Tensor] = []
        for index, layer in enumerate(self.encoder.convs):
            output = self.checkpointed(layer, output)
            if index in layers:
                features.append(output)
                if encode_only and index == layers[-1]:
                    return features
        for layer in self.decoder.convs:
            samples_noise = isinstance(layer, StyledUpsample)
            output = layer(output) if samples_noise else self.checkpointed(layer, output)
        return (output, features) if layers else output

    def encode_patches(self, image: Tensor, layers: Sequence[int], patch_ids: Sequence[Tensor]) -> list[Tensor]:
        """Return the features at `layers`, but only at `patch_ids`: for each layer (N, C_l, P_l).

        `patch_ids` are row-major indices into each feature map, (P_l,) or (T, P_l) as for `gather_positions`. If the
        receptive fields of an image together are smaller than the image, only those are encoded, with equal features and
        gradients.
        """
        fields = [self._receptive_field(layer) for layer in layers]
        height, width = image.shape[2:]
        num_pixels = sum(ids.shape[-1] * field.pixels**2 for ids, field in zip(patch_ids, fields, strict=True))
        if num_pixels >= height * width or not all(field.fits(height, width) for field in fields):
            maps = self(image, layers, encode_only=True)
            return [gather_positions(features, ids) for features, ids in zip(maps, patch_ids, strict=True)]

        patches = []
        for layer, ids, field in zip(layers, patch_ids, fields, strict=True):
            crops, ids_in_crops = crop_receptive_fields(image, ids, field)
            features = self(crops, (layer,), encode_only=True)[0].flatten(2).unflatten(0, (len(image), -1))
            parts = torch.atleast_2d(ids_in_crops).repeat_interleave(len(image) // len(torch.atleast_2d(ids)), 0)
            index = parts[:, :, None, None].expand(*features.shape[:3], 1)
            patches.append(features.gather(3, index)[..., 0].transpose(1, 2))
        return patches

    def _receptive_field(self, layer: int) -> ReceptiveField:
        num_downs = min(max(layer - 1, 0), self.n_downsampling)
        num_blocks = max(layer - 1 - num_downs, 0)
        radius = 2 * num_blocks  # two 3x3 convolutions each
        for _ in range(num_downs):
            radius = 2 * radius + 4  # a 3x3 convolution, a blur and a 3x3 convolution of stride 2
        stride = 2**num_downs
        return ReceptiveField(stride, math.ceil(radius / stride))


class SmallStyleGAN2Generator(StyleGAN2Generator):
    """StyleGAN2Generator with two residual blocks and without injected noise."""

    default_nce_layers = "0,2,3"

    def __init__(self, input_nc: int, output_nc: int, ngf: int, size: int, n_downsampling: int = 1) -> None:
        super().__init__(input_nc, output_nc, ngf, size, n_blocks=2, n_downsampling=n_downsampling, inject_noise=False)


FINAL_SIZE = 4  # side of the feature maps that the linear layers read, in positions


def num_discriminator_channels(ndf: int, resolution: int) -> int:
    """Return the channels of feature maps at this resolution in pixels: at most 384 from 32 pixels down."""
    channels = round(256 * ndf / resolution)
    return min(384, channels) if resolution <= 32 else channels


class StyleGAN2Discriminator(nn.Module):
    """Images (N, input_nc, size, size) in [-1, 1] -> logits (N, 1).

    Residual blocks downsample `size`, rounded to a power of two, to 4 positions. Raise ImageSizeError if this is
    impossible for `size`, and later for images.
    """

    def __init__(self, input_nc: int, ndf: int, size: int) -> None:
        super().__init__()
        num_downs = max(0, round(math.log2(size / FINAL_SIZE)))
        self.reduction = 2**num_downs
        self._check_size(size, size)
        channels = [num_discriminator_channels(ndf, FINAL_SIZE * 2**level) for level in reversed(range(num_downs + 1))]
        if not all(channels):
            raise ValueError(f"--ndf {ndf} leaves no channels at {size} pixels")
        self.convs = nn.Sequential(
            ConvLayer(input_nc, channels[0], 1),
            *(ResBlock(fine, coarse, downsample=True) for fine, coarse in pairwise(channels)),
        )
        self.final_conv = ConvLayer(channels[-1], channels[-1], 3)
        self.final_linear = nn.Sequential(
            FusedLeakyLinear(channels[-1] * FINAL_SIZE**2, channels[-1]), EqualizedLinear(channels[-1], 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        self._check_size(*image.shape[2:])
        features = self.convs(channels_last(image))
        return self.final_linear(self.final_conv(features).flatten(1))

    def _check_size(self, height: int, width: int) -> None:
        if any(side // self.reduction != FINAL_SIZE for side in (height, width)):
            smallest = FINAL_SIZE * self.reduction
            raise ImageSizeError(
                f"this StyleGAN2 discriminator needs image sides of {smallest} to {smallest + self.reduction - 1} pixels, "
                f"got {width}x{height}"
            )


class TiledStyleGAN2Discriminator(StyleGAN2Discriminator):
    """Classify every patch of `patch_size` pixels on its own: (N, input_nc, H, W) -> (N * patches, 1).

    A remainder at the right and lower edges is ignored. Raise ImageSizeError for images smaller than one patch.
    """

    def __init__(self, input_nc: int, ndf: int, patch_size: int) -> None:
        super().__init__(input_nc, ndf, patch_size)
        self.patch_size = patch_size

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(to_patches(image, self.patch_size))
