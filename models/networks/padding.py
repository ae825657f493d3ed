"""Reflected borders whose gradient keeps nothing in memory."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function


class ReflectionPad(nn.Module):
    """(N, C, H, W) -> (N, C, H + 2 * margin, W + 2 * margin), mirrored at the outermost pixels; the margin is less than
    either side.

    The function of `nn.ReflectionPad2d`, which keeps its input for the backward pass although only its shape is needed,
    and takes twice as long there.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, features: Tensor) -> Tensor:
        return _Reflect.apply(features, self.padding) if features.requires_grad else reflect(features, self.padding)

    def extra_repr(self) -> str:
        return str(self.padding)


def reflect(features: Tensor, padding: int) -> Tensor:
    """The padding by itself."""
    return F.pad(features, (padding,) * 4, mode="reflect")


class _Reflect(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, padding: int) -> Tensor:
        ctx.padding = padding
        return reflect(features, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        for axis in (2, 3):
            gradient = _fold(gradient, ctx.padding, axis)
        return gradient, None


def _fold(gradient: Tensor, padding: int, axis: int) -> Tensor:
    """Adds the gradient of the reflected margins to the pixels they mirror, along one axis."""
    side = gradient.shape[axis] - 2 * padding
    before, inner, after = gradient.split((padding, side, padding), axis)
    inner = inner.clone()
    inner.narrow(axis, 1, padding).add_(before.flip(axis))
    inner.narrow(axis, side - 1 - padding, padding).add_(after.flip(axis))
    return inner
