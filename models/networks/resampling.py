"""Blurs, and the anti-aliased changes of resolution of the ResNet generator and of PatchGAN."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from models.networks.padding import Reflect


class DepthwiseBlur(Function):
    """A depthwise convolution (N, C, H, W) with constant kernels (C, 1, k, k), differentiable any number of times.

    Its gradient is the transposed blur, and the gradient of that is the blur. PyTorch's own second derivative, which R1
    needs, runs one convolution per channel. The input is not stored for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(kernels)
        ctx.arguments = stride, padding, features.shape[2:]
        return F.conv2d(features, kernels, None, stride, padding, groups=len(kernels))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return TransposedBlur.apply(gradient, *ctx.saved_tensors, *ctx.arguments), None, None, None


class TransposedBlur(Function):
    """The gradient of `DepthwiseBlur` with respect to its input of `size` (H, W)."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, kernels: Tensor, stride: int, padding: int, size: torch.Size) -> Tensor:
        ctx.save_for_backward(kernels)
        ctx.arguments = stride, padding
        kernels = kernels.to(gradient.dtype)  # bfloat16 under autocast
        smallest = [(side - 1) * stride - 2 * padding + kernels.shape[-1] for side in gradient.shape[2:]]
        missing = [side - least for side, least in zip(size, smallest, strict=True)]
        return F.conv_transpose2d(gradient, kernels, None, stride, padding, missing, groups=len(kernels))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        return DepthwiseBlur.apply(gradient, *ctx.saved_tensors, *ctx.arguments), None, None, None, None


# Largest side, in positions, for which two small matrix products are faster than a blur in bfloat16 on the CPU.
MAX_MATMUL_SIZE = 512


def _binomial_filter(taps: list[float], channels: int, total: float) -> Tensor:
    """Return the outer product of `taps` with itself, scaled to sum to `total`, for every channel: (channels, 1, k, k)."""
    row = torch.tensor(taps)
    kernel = torch.outer(row, row)
    return (kernel * (total / kernel.sum())).expand(channels, 1, -1, -1).clone()


class Resampler(nn.Module, ABC):
    """A separable blur with a change of resolution: `filt` is an outer product of one filter with itself.

    The plain convolution stores its padded input for a gradient of the filter, which is not needed. In training on the CPU
    nothing is stored, with equal results. In bfloat16, where gradients of depthwise convolutions are slow there, each map
    is multiplied by one matrix from the left and one from the right.
    """

    filt: Tensor

    def forward(self, features: Tensor) -> Tensor:
        if not (features.requires_grad and features.device.type == "cpu"):
            return self._convolve(features, self.filt, (1, 1))
        small_bfloat16 = torch.is_autocast_enabled("cpu") and max(features.shape[2:]) <= MAX_MATMUL_SIZE
        # PyTorch 2.14 compiles the gradient of replication padding on the CPU for a wrong memory layout, and fails.
        if small_bfloat16 or torch.compiler.is_compiling():
            return self._multiply(features)
        return self._blur(features)

    def _multiply(self, features: Tensor) -> Tensor:
        """Resample by one matrix product along each axis."""
        height, width = features.shape[2:]
        maps = features.flatten(0, 1)
        from_rows = torch.bmm(self._as_matrix(height).expand(len(maps), -1, -1), maps)
        return (from_rows @ self._as_matrix(width).T).unflatten(0, features.shape[:2])

    def _as_matrix(self, side: int) -> Tensor:
        """Return the matrix (new side, side) of the resampling along one axis of `side` positions."""
        kernel = self.filt[:1]
        taps = kernel.sum(3, keepdim=True) / kernel.sum().sqrt()
        unit_columns = torch.eye(side, dtype=taps.dtype)[None, None]
        return self._convolve(unit_columns, taps, (1, 0))[0, 0]

    @abstractmethod
    def _convolve(self, features: Tensor, kernel: Tensor, axes: tuple[int, int]) -> Tensor:
        """Pad, blur and resample along the axes (vertical, horizontal) that are 1."""

    @abstractmethod
    def _blur(self, features: Tensor) -> Tensor:
        """Pad, blur and resample. Store nothing for the backward pass."""


class Downsample(Resampler):
    """(N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)): a 3x3 binomial blur with reflection padding and stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial_filter([1.0, 2.0, 1.0], channels, total=1.0))

    def _convolve(self, features: Tensor, kernel: Tensor, axes: tuple[int, int]) -> Tensor:
        rows, columns = axes
        padded = F.pad(features, (columns, columns, rows, rows), mode="reflect")
        return F.conv2d(padded, kernel, stride=(1 + rows, 1 + columns), groups=features.shape[1])

    def _blur(self, features: Tensor) -> Tensor:
        return DepthwiseBlur.apply(Reflect.apply(features, 1), self.filt, 2, 0)


class Upsample(Resampler):
    """(N, C, H, W) -> (N, C, 2H, 2W): zeros inserted, then a 4x4 binomial blur with replication padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial_filter([1.0, 3.0, 3.0, 1.0], channels, total=4.0))

    def _convolve(self, features: Tensor, kernel: Tensor, axes: tuple[int, int]) -> Tensor:
        rows, columns = axes
        padded = F.pad(features, (columns, columns, rows, rows), mode="replicate")
        return F.conv_transpose2d(
            padded, kernel, stride=(1 + rows, 1 + columns), padding=(3 * rows, 3 * columns), groups=features.shape[1]
        )

    def _blur(self, features: Tensor) -> Tensor:
        size = [2 * side for side in features.shape[2:]]
        return TransposedBlur.apply(_Replicate.apply(features), self.filt, 2, 3, size)


class _Replicate(Function):
    """Replication padding by 1 on all sides: (N, C, H, W) -> (N, C, H + 2, W + 2)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return F.pad(features, (1, 1, 1, 1), mode="replicate")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        for axis in (2, 3):
            before, inner, after = gradient.split((1, gradient.shape[axis] - 2, 1), axis)
            gradient = inner.clone()
            gradient.narrow(axis, 0, 1).add_(before)
            gradient.narrow(axis, -1, 1).add_(after)
        return gradient
