"""The ResNet generator of Johnson et al. (2016) as CUT uses it: downsample twice, residual blocks, upsample twice.

The first half of the generator is the encoder, whose feature maps PatchNCE compares (CUT, section 3). --nce_layers are
indices into `model`, the Sequential that holds every layer; the state dict keys are those indices too.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import Generator, validate_nce_layers
from models.networks.layers import NORMS, fused_layers, use_bias
from models.networks.padding import ReflectionPad, pad_with_skip
from models.networks.resampling import Downsample, Upsample
from models.networks.winograd import Conv3x3


class ResnetBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))) with 3x3 convolutions and reflection padding; the shape (N, C, H, W) is kept."""

    def __init__(self, channels: int, norm: str, dropout: bool) -> None:
        super().__init__()
        bias = use_bias(norm)
        self.conv_block = nn.Sequential(
            ReflectionPad(1),
            Conv3x3(channels, channels, bias=bias),
            NORMS[norm](channels),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            ReflectionPad(1),
            Conv3x3(channels, channels, bias=bias),
            NORMS[norm](channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        residual, features = pad_with_skip(self.conv_block[0], features)
        for _, layer in fused_layers(self.conv_block, range(1, len(self.conv_block))):
            residual = layer(residual)
        return residual.add_(features)


class ResnetGenerator(Generator):
    """ResNet: images (N, input_nc, H, W) -> (N, output_nc, H, W), both in [-1, 1].

    Args:
        input_nc: input channels.
        output_nc: output channels.
        ngf: channels after the first convolution.
        n_blocks: residual blocks.
        norm: a key of `NORMS`.
        dropout: add a dropout layer to every residual block.
        antialias: downsample by a convolution and a blur, instead of a strided convolution.
        antialias_up: upsample by a blur and a convolution, instead of a transposed convolution.
    """

    size_multiple = 4  # downsampled twice
    min_size = 8  # reflection padding of a residual block needs two positions at a quarter of the size
    default_nce_layers = "0,4,8,12,16"
    supports_gradient_checkpointing = True

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        n_blocks: int = 9,
        norm: str = "instance",
        dropout: bool = False,
        antialias: bool = True,
        antialias_up: bool = True,
    ) -> None:
        super().__init__()
        bias = use_bias(norm)
        layers: list[nn.Module] = []
        stage_starts: list[int] = []  # first layer of every stage; a stage ends at the next change of size
        self.layer_channels: list[int] = []

        def add(channels: int, *new_layers: nn.Module) -> None:
            layers.extend(new_layers)
            self.layer_channels.extend([channels] * len(new_layers))

        stage_starts.append(len(layers))
        add(input_nc, ReflectionPad(3))
        add(ngf, nn.Conv2d(input_nc, ngf, 7, bias=bias), NORMS[norm](ngf), nn.ReLU(inplace=True))
        for channels in (2 * ngf, 4 * ngf):
            stage_starts.append(len(layers))
            if antialias:
                add(channels, Conv3x3(channels // 2, channels, bias=bias, padding=1))
            else:
                add(channels, nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=bias))
            add(channels, NORMS[norm](channels), nn.ReLU(inplace=True))
            if antialias:
                add(channels, Downsample(channels))
        for _ in range(n_blocks):
            stage_starts.append(len(layers))
            add(4 * ngf, ResnetBlock(4 * ngf, norm, dropout))
        for channels in (2 * ngf, ngf):
            stage_starts.append(len(layers))
            if antialias_up:
                add(2 * channels, Upsample(2 * channels))
                add(channels, Conv3x3(2 * channels, channels, bias=bias, padding=1))
            else:
                add(
                    channels, nn.ConvTranspose2d(2 * channels, channels, 3, stride=2, padding=1, output_padding=1, bias=bias)
                )
            add(channels, NORMS[norm](channels), nn.ReLU(inplace=True))
        stage_starts.append(len(layers))
        add(ngf, ReflectionPad(3))
        add(output_nc, nn.Conv2d(ngf, output_nc, 7), nn.Tanh())
        self.model = nn.Sequential(*layers)
        self.stages = [range(start, end) for start, end in pairwise([*stage_starts, len(layers)])]

    def tileable_layers(self) -> nn.Sequential:
        """Return the layers that compute the generator one after the other."""
        return self.model

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """Return the channels of the feature maps at `layers`. Raise ValueError if they are not valid --nce_layers."""
        validate_nce_layers(layers, len(self.model))
        return [self.layer_channels[layer] for layer in layers]

    def forward(
        self, image: Tensor, layers: Sequence[int] = (), encode_only: bool = False
    ) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the output, or (output, features) if `layers` are given.

        With `encode_only`, return the features alone and stop at the last of the `layers`.

        As in the published code, a feature map that feeds an in-place ReLU is overwritten by it, except the last one.
        """
        features: list[Tensor] = []
        for stage in self.stages:
            image, stage_features = self.checkpointed(self._run, image, stage, layers, encode_only)
            features += stage_features
            if encode_only and layers[-1] in stage:
                return features
        return (image, features) if layers else image

    def _run(
        self, image: Tensor, stage: Sequence[int], layers: Sequence[int], encode_only: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers of one stage. Return its output and the features at those of its layers that are in `layers`."""
        features = []
        for index, layer in fused_layers(self.model, stage, unfused=layers):
            image = layer(image)
            if index in layers:
                features.append(image)
                if index == layers[-1]:
                    if encode_only:
                        break
                    if self._followed_by_inplace_relu(index):
                        image = image.clone()
        return image, features

    def _followed_by_inplace_relu(self, index: int) -> bool:
        next_layers = (layer for layer in self.model[index + 1 :] if not isinstance(layer, nn.Identity))
        return isinstance(next(next_layers, None), nn.ReLU)
