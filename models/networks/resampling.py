"""Antialiased halving and doubling of a feature map (Zhang, Making Convolutional Networks Shift-Invariant Again, 2019).

The blur filters are buffers of the state dict (`filt`), as in the published checkpoints.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Sides of maps up to which two products with small matrices beat a depthwise convolution on the CPU.
MAX_MATMUL_SIZE = 512


def _binomial_filter(taps: list[float], channels: int, total: float) -> Tensor:
    """The outer product of `taps` with itself, scaled to sum to `total`, once per channel: (channels, 1, k, k)."""
    row = torch.tensor(taps)
    kernel = torch.outer(row, row)
    return (kernel * (total / kernel.sum())).expand(channels, 1, -1, -1).clone()


class Resampler(nn.Module, ABC):
    """A blur that is the same along rows and columns, with a change of resolution: `filt` is an outer product.

    On the CPU, depthwise convolutions are slow, their gradients slower still, and they keep their padded input for a
    gradient of the filter that nobody asks for. There, a map that learns is multiplied by one matrix from the left and one
    from the right, which has the same values.
    """

    filt: Tensor

    def forward(self, features: Tensor) -> Tensor:
        cpu_training = features.requires_grad and features.device.type == "cpu"
        # PyTorch 2.14 compiles the gradient of replicated borders for another layout than it gets on a CPU, and stops there.
        if cpu_training and (max(features.shape[2:]) <= MAX_MATMUL_SIZE or torch.compiler.is_compiling()):
            height, width = features.shape[2:]
            maps = features.flatten(0, 1)
            from_rows = torch.bmm(self._matrix(height).expand(len(maps), -1, -1), maps)
            return (from_rows @ self._matrix(width).T).unflatten(0, features.shape[:2])
        return self._convolve(features, self.filt, (1, 1))

    def _matrix(self, side: int) -> Tensor:
        """What the resampling does along one axis of `side` positions, (new side, side)."""
        kernel = self.filt[:1]
        taps = kernel.sum(3, keepdim=True) / kernel.sum().sqrt()
        unit_columns = torch.eye(side, dtype=taps.dtype)[None, None]
        return self._convolve(unit_columns, taps, (1, 0))[0, 0]

    @abstractmethod
    def _convolve(self, features: Tensor, kernel: Tensor, axes: tuple[int, int]) -> Tensor:
        """Pads, blurs and resamples along the axes, vertical and horizontal, that are 1."""


class Downsample(Resampler):
    """(N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)): a 3x3 binomial blur over reflected borders, every second pixel kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial_filter([1.0, 2.0, 1.0], channels, total=1.0))

    def _convolve(self, features: Tensor, kernel: Tensor, axes: tuple[int, int]) -> Tensor:
        rows, columns = axes
        padded = F.pad(features, (columns, columns, rows, rows), mode="reflect")
        return F.conv2d(padded, kernel, stride=(1 + rows, 1 + columns), groups=features.shape[1])


class Upsample(Resampler):
    """(N, C, H, W) -> (N, C, 2H, 2W): zeros in between, then a 4x4 binomial blur over replicated borders."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial_filter([1.0, 3.0, 3.0, 1.0], channels, total=4.0))

    def _convolve(self, features: Tensor, kernel: Tensor, axes: tuple[int, int]) -> Tensor:
        rows, columns = axes
        padded = F.pad(features, (columns, columns, rows, rows), mode="replicate")
        return F.conv_transpose2d(
            padded, kernel, stride=(1 + rows, 1 + columns), padding=(3 * rows, 3 * columns), groups=features.shape[1]
        )
