"""The ResNet generator of Johnson et al. (2016) as CUT uses it: two halvings, residual blocks, two doublings.

CUT, section 3: the first half of the generator is the encoder, whose feature maps PatchNCE compares. A tap is the index of
an entry of `model`, the one Sequential that holds every layer; the state dict keys follow from it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import EncoderGenerator, validate_nce_layers
from models.networks.layers import NORMS, Downsample, InstanceNorm, ReflectionPad, Upsample, use_bias
from models.networks.winograd import Conv3x3


class ResnetBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 convolutions over reflected borders, (N, C, H, W) -> the same."""

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
        residual = features
        for _, layer in fused_layers(self.conv_block, range(len(self.conv_block))):
            residual = layer(residual)
        return residual.add_(features)


class ResnetGenerator(EncoderGenerator):
    """Translates images (N, input_nc, H, W) to (N, output_nc, H, W), both in [-1, 1]; H and W are multiples of 4.

    `norm` is a key of `NORMS`; `antialias` and `antialias_up` choose blurred over strided and transposed convolutions;
    `dropout` adds a layer of it to every residual block.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        dropout: bool = False,
        antialias: bool = True,
        antialias_up: bool = True,
    ) -> None:
        super().__init__()
        bias = use_bias(norm)
        entries: list[nn.Module] = []
        stage_starts: list[int] = []  # of stages, each the entries up to the next change of size
        self.layer_channels: list[int] = []

        def add(width: int, *layers: nn.Module) -> None:
            entries.extend(layers)
            self.layer_channels.extend([width] * len(layers))

        stage_starts.append(len(entries))
        add(input_nc, ReflectionPad(3))
        add(ngf, nn.Conv2d(input_nc, ngf, 7, bias=bias), NORMS[norm](ngf), nn.ReLU(inplace=True))
        for width in (2 * ngf, 4 * ngf):
            stage_starts.append(len(entries))
            if antialias:
                add(width, Conv3x3(width // 2, width, bias=bias, margin=1))
            else:
                add(width, nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=bias))
            add(width, NORMS[norm](width), nn.ReLU(inplace=True))
            if antialias:
                add(width, Downsample(width))
        for _ in range(blocks):
            stage_starts.append(len(entries))
            add(4 * ngf, ResnetBlock(4 * ngf, norm, dropout))
        for width in (2 * ngf, ngf):
            stage_starts.append(len(entries))
            if antialias_up:
                add(2 * width, Upsample(2 * width))
                add(width, Conv3x3(2 * width, width, bias=bias, margin=1))
            else:
                add(width, nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1, bias=bias))
            add(width, NORMS[norm](width), nn.ReLU(inplace=True))
        stage_starts.append(len(entries))
        add(ngf, ReflectionPad(3))
        add(output_nc, nn.Conv2d(ngf, output_nc, 7), nn.Tanh())
        self.model = nn.Sequential(*entries)
        self.stages = [range(*ends) for ends in pairwise([*stage_starts, len(entries)])]

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """Channels of the feature maps tapped at `layers`. Raises ValueError where these are no legal taps."""
        validate_nce_layers(layers, len(self.model))
        return [self.layer_channels[layer] for layer in layers]

    def forward(
        self, image: Tensor, layers: Sequence[int] = (), encode_only: bool = False
    ) -> Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]:
        """`G(x)` is the translation, `G(x, layers)` the translation and the features tapped on the way, and
        `G(x, layers, encode_only=True)` the features alone, computed no further than the last tap.

        A tap that feeds an in-place ReLU is overwritten by it, unless it is the last one: so it is in the published
        code, whose encoder-only pass ends at the last tap.
        """
        features: list[Tensor] = []
        for stage in self.stages:
            image, tapped = self.checkpointed(self._run, image, stage, layers, encode_only)
            features += tapped
            if encode_only and layers[-1] in stage:
                return features
        return (image, features) if layers else image

    def _run(
        self, image: Tensor, stage: Sequence[int], layers: Sequence[int], encode_only: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """What the entries of a stage make of their input, and the features tapped on the way."""
        tapped = []
        for index, layer in fused_layers(self.model, stage, unfused=layers):
            image = layer(image)
            if index in layers:
                tapped.append(image)
                if index == layers[-1]:
                    if encode_only:
                        break
                    if self._followed_by_inplace_relu(index):
                        image = image.clone()
        return image, tapped

    def _followed_by_inplace_relu(self, index: int) -> bool:
        following = (entry for entry in self.model[index + 1 :] if not isinstance(entry, nn.Identity))
        return isinstance(next(following, None), nn.ReLU)


def fused_layers(
    layers: nn.Sequential, indices: Sequence[int], unfused: Collection[int] = ()
) -> Iterator[tuple[int, Callable[[Tensor], Tensor]]]:
    """The layers at `indices` with their indices, in order; an instance norm and the ReLU after it are one step, under the
    ReLU's index, unless the norm's index is in `unfused`."""
    waiting: InstanceNorm | None = None
    for index in indices:
        layer = layers[index]
        following = layers[index + 1] if index + 1 < len(layers) else None
        if waiting is not None:
            yield index, waiting.fused_relu
            waiting = None
        elif isinstance(layer, InstanceNorm) and isinstance(following, nn.ReLU) and index not in unfused:
            waiting = layer
        else:
            yield index, layer
