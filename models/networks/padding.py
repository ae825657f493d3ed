"""Reflection padding, in the forms that training needs: alone, and in front of a residual branch."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from util.runtime.device import on_gpu


class ReflectionPad(nn.Module):
    """Reflection padding: (N, C, H, W) -> (N, C, H + 2 * padding, W + 2 * padding); `padding` is below H and W.

    Same function as `nn.ReflectionPad2d`, which stores its input for the backward pass although only the shape is needed.
    On the CPU the backward pass takes half the time.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, features: Tensor) -> Tensor:
        return Reflect.apply(features, self.padding) if features.requires_grad else reflect(features, self.padding)

    def extra_repr(self) -> str:
        return str(self.padding)


def reflect(features: Tensor, padding: int) -> Tensor:
    """Return the feature maps with reflection padding, for the plain autograd."""
    return F.pad(features, (padding,) * 4, mode="reflect")


class Reflect(Function):
    """Reflection padding that stores nothing for the backward pass."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, padding: int) -> Tensor:
        ctx.padding = padding
        ctx.shape = features.shape
        return reflect(features, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return reflect_backward(gradient, ctx.shape, ctx.padding), None


def pad_with_skip(pad: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return pad(features) and features, the inputs of a residual branch and of its skip connection.

    On a GPU the sum of their gradients launches fewer kernels than separate ones.
    """
    can_fuse = not (torch.compiler.is_compiling() or torch.are_deterministic_algorithms_enabled())
    if isinstance(pad, ReflectionPad) and on_gpu(features.device) and features.requires_grad and can_fuse:
        return _GPUPadWithSkip.apply(features, pad.padding)
    return pad(features), features


class _GPUPadWithSkip(Function):
    """Reflection padding of a residual branch, and its skip connection.

    The gradient of the padding is added to a copy of that of the skip connection: one kernel instead of three.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        ctx.padding = padding
        return reflect(features, padding), features.view_as(features)

    @staticmethod
    def backward(ctx: Any, of_padded: Tensor, of_skip: Tensor) -> tuple[Tensor, None]:
        gradient = of_skip.clone(memory_format=torch.contiguous_format)  # hooks and other layers may hold the original
        sources = _source_positions(*gradient.shape[2:], ctx.padding, gradient.device)
        gradient.flatten(2).index_add_(2, sources, of_padded.flatten(2))
        return gradient, None


@cache
def _source_positions(height: int, width: int, padding: int, device: torch.device) -> Tensor:
    """Return the row-major position that each position of a padded feature map repeats.

    Made once per size, to save kernels: 17 KB for feature maps of 64x64.
    """
    positions = torch.arange(height * width, device=device, dtype=torch.float64)  # integers cannot be padded
    return reflect(positions.view(1, 1, height, width), padding).flatten().int()


def reflect_backward(gradient: Tensor, shape: torch.Size, padding: int) -> Tensor:
    """Return the gradient of `reflect` with respect to feature maps of this shape."""
    if on_gpu(gradient.device) and not torch.are_deterministic_algorithms_enabled():
        features = gradient.new_empty(()).expand(shape)  # only its shape is used
        return torch.ops.aten.reflection_pad2d_backward(gradient, features, [padding] * 4)
    for axis in (2, 3):
        gradient = _reflect_backward_along(gradient, padding, axis)
    return gradient


def _reflect_backward_along(gradient: Tensor, padding: int, axis: int) -> Tensor:
    """Add the gradient of the padding to the pixels that it mirrors, along one axis."""
    side = gradient.shape[axis] - 2 * padding
    before, inner, after = gradient.split((padding, side, padding), axis)
    inner = inner.clone()
    inner.narrow(axis, 1, padding).add_(before.flip(axis))
    inner.narrow(axis, side - 1 - padding, padding).add_(after.flip(axis))
    return inner
