"""How the StyleGAN2 generator doubles a feature map, and the noise it injects there."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.stylegan2_layers import ACTIVATION_GAIN, Bias, Blur, activate
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
