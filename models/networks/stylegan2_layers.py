"""The layers of StyleGAN2 (Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020).

They compute the same values as the original, faster: constant factors are folded into the weights instead of the feature
maps, activations are in place, and blurs are depthwise convolutions, which are cheap in channels-last memory format.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.resampling import DepthwiseBlur

NEGATIVE_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2)  # preserves the variance through a leaky ReLU
RESIDUAL_GAIN = math.sqrt(0.5)  # preserves the variance of a sum of two


def leaky_relu_(features: Tensor) -> Tensor:
    """Apply a leaky ReLU in place. The caller applies the gain: for a positive factor, before or after is the same."""
    return F.leaky_relu(features, NEGATIVE_SLOPE, inplace=True)


class Blur(nn.Module):
    """A depthwise 4x4 binomial blur with zero padding. The kernel sums to `gain`.

    (N, C, H, W) -> (N, C, H', W') with H' = (H + 2 * padding - 4) // stride + 1.
    """

    kernel: Tensor

    def __init__(self, padding: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = torch.outer(row, row)
        self.register_buffer("kernel", kernel * (gain / kernel.sum()))
        self.padding = padding
        self.stride = stride

    def forward(self, features: Tensor, bias: Tensor | None = None) -> Tensor:
        channels = features.shape[1]
        kernels = self.kernel.expand(channels, 1, -1, -1)
        if bias is None and features.requires_grad:
            return DepthwiseBlur.apply(features, kernels, self.stride, self.padding)
        return F.conv2d(features, kernels, bias, self.stride, self.padding, groups=channels)


class Bias(nn.Module):
    """The bias of sqrt(2) * leaky_relu(x + bias). The convolution that computes x adds it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, gain: float) -> Tensor:
        """Return the bias times `gain`, (channels,)."""
        return self.bias.flatten() * gain


class EqualizedConv2d(nn.Module):
    """A convolution with an equalized learning rate: weights from N(0, 1), scaled by 1/sqrt(fan-in) in the forward pass.

    `gain` multiplies the weights, not the bias.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.scale = 1 / math.sqrt(inputs * kernel_size**2)
        self.stride = stride
        self.padding = padding

    def forward(self, features: Tensor, gain: float = 1.0, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(features, self.weight * (self.scale * gain), bias, self.stride, self.padding)


class EqualizedLinear(nn.Module):
    """A linear layer with an equalized learning rate, (N, inputs) -> (N, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight * self.scale, self.bias)


class FusedLeakyLinear(EqualizedLinear):
    """sqrt(2) * leaky_relu(linear(x))."""

    def forward(self, features: Tensor) -> Tensor:
        return leaky_relu_(super().forward(features)) * ACTIVATION_GAIN


class ConvLayer(nn.Sequential):
    """gain * sqrt(2) * leaky_relu(conv(x) + bias): (N, C, H, W) -> (N, C', H, W).

    With `downsample`, x is blurred first and the convolution has stride 2: (N, C, H, W) -> (N, C', H // 2, W // 2).
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, downsample: bool = False) -> None:
        convolution = (
            [Blur(padding=2), EqualizedConv2d(inputs, outputs, kernel_size, stride=2)]
            if downsample
            else [EqualizedConv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)]
        )
        super().__init__(*convolution, Bias(outputs))

    def forward(self, features: Tensor, gain: float = 1.0) -> Tensor:
        *blur, convolution, bias = self
        for layer in blur:
            features = layer(features)
        gain *= ACTIVATION_GAIN
        return leaky_relu_(convolution(features, gain, bias(gain)))


class DownsampleSkip(nn.Sequential):
    """gain * conv(blur(x)) with a 1x1 convolution of stride 2. Only the positions that it reads are blurred."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(Blur(padding=1, stride=2), EqualizedConv2d(inputs, outputs, 1))

    def forward(self, features: Tensor, gain: float = 1.0) -> Tensor:
        blur, convolution = self
        return convolution(blur(features), gain)


class ResBlock(nn.Module):
    """(conv2(conv1(x)) + skip(x)) / sqrt(2): (N, C, H, W) -> (N, C, H, W), or (N, C', H // 2, W // 2)."""

    def __init__(self, inputs: int, outputs: int, downsample: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, downsample)
        if downsample:
            self.skip = DownsampleSkip(inputs, outputs)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        residual = self.conv2(self.conv1(features), RESIDUAL_GAIN)
        if self.downsample:
            return self.skip(features, RESIDUAL_GAIN).add_(residual)
        if torch.is_grad_enabled():
            return torch.add(residual, features, alpha=RESIDUAL_GAIN)
        return residual.add_(features, alpha=RESIDUAL_GAIN)  # in place: only backpropagation needs the residual


def channels_last(features: Tensor) -> Tensor:
    """Return the feature maps in channels-last memory format."""
    return features.contiguous(memory_format=torch.channels_last)
