"""Antialiased halving and doubling of a feature map (Zhang, Making Convolutional Networks Shift-Invariant Again, 2019).

The blur filters are buffers of the state dict (`filt`), as in the published checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _binomial_filter(taps: list[float], channels: int, total: float) -> Tensor:
    """The outer product of `taps` with itself, scaled to sum to `total`, once per channel: (channels, 1, k, k)."""
    row = torch.tensor(taps)
    kernel = torch.outer(row, row)
    return (kernel * (total / kernel.sum())).expand(channels, 1, -1, -1).clone()


class Downsample(nn.Module):
    """(N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)): a 3x3 binomial blur over reflected borders, every second pixel kept."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial_filter([1.0, 2.0, 1.0], channels, total=1.0))

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=features.shape[1])


class Upsample(nn.Module):
    """(N, C, H, W) -> (N, C, 2H, 2W): zeros in between, then a 4x4 binomial blur over replicated borders."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial_filter([1.0, 3.0, 3.0, 1.0], channels, total=4.0))

    def forward(self, features: Tensor) -> Tensor:
        padded = replicate_borders(features)
        return F.conv_transpose2d(padded, self.filt, stride=2, padding=3, groups=features.shape[1])


def replicate_borders(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H + 2, W + 2), every border row and column once more."""
    if not torch.compiler.is_compiling():
        return F.pad(features, (1, 1, 1, 1), mode="replicate")
    # PyTorch 2.14 compiles the gradient of that padding for another layout than it gets on a CPU, and stops there.
    features = torch.cat((features[:, :, :1], features, features[:, :, -1:]), dim=2)
    return torch.cat((features[..., :1], features, features[..., -1:]), dim=3)
