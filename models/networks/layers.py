"""The normalization layers that --normG and --normD choose from."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class InstanceNorm(nn.Module):
    """Instance normalization without learned parameters: every channel of every image to mean 0 and variance 1.

    Computed as a group norm with one channel to a group, which is the same function. PyTorch's own instance norm returns
    a wrong input gradient on the CPU for a single image whose gradient comes in channels-last strides; this one does
    not, and its forward pass takes half the time there.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps

    def forward(self, image: Tensor) -> Tensor:
        return F.group_norm(image, self.channels, eps=self.eps)

    def fused_relu(self, image: Tensor) -> Tensor:
        """relu(norm(image)), which keeps no more for the backward pass than the norm alone.

        Not so in bfloat16, whose means are too coarse to tell from the image what was positive; nor where there is no
        backward pass, since an exported network cannot hold functions of Python.
        """
        if not image.requires_grad or image.dtype not in (torch.float32, torch.float64):
            return self(image).relu_()
        return _NormReLU.apply(image, self.eps)

    def extra_repr(self) -> str:
        return str(self.channels)


class _NormReLU(Function):
    """A normalized value is positive where the value lies above the mean: there is no need to keep the result."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, eps: float) -> Tensor:
        if not (image.device.type == "cpu" and image.is_contiguous(memory_format=torch.channels_last)):
            image = image.contiguous()  # the kernels take it for granted
        normalized, mean, rstd = torch.native_group_norm(image, None, None, *_sizes(image), eps)
        ctx.save_for_backward(image, mean, rstd)
        return normalized.relu_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        image, mean, rstd = ctx.saved_tensors
        passed = image - mean[:, :, None, None]
        torch.ops.aten.threshold_backward(gradient, passed, 0, grad_input=passed)  # in its place
        wanted = [True, False, False]
        gradients = torch.ops.aten.native_group_norm_backward(passed, image, mean, rstd, None, *_sizes(image), wanted)
        return gradients[0], None


def _sizes(image: Tensor) -> tuple[int, int, int, int]:
    """Images, channels, pixels and groups, for a group norm with one channel to a group."""
    images, channels, height, width = image.shape
    return images, channels, height * width, channels


NORMS: dict[str, type[nn.Module]] = {"instance": InstanceNorm, "batch": nn.BatchNorm2d, "none": nn.Identity}


def use_bias(norm: str) -> bool:
    """Whether a convolution in front of this norm has a bias, as it has in the published checkpoints.

    In front of an instance norm the bias is dead weight, but its key is part of the file format.
    """
    return norm == "instance"


def is_batch_dependent(network: nn.Module) -> bool:
    """Whether an image's result depends on what else is in the batch, or on a random draw of the pass.

    Where it does not, passes over several batches can be joined into one, and features be used again, with equal results.
    """
    return any(isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) for layer in network.modules())


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


INIT_FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def init_weights(network: nn.Module, init_type: str = "xavier", gain: float = 0.02) -> None:
    """Draws the weights of convolutions and linear layers anew, sets their biases to zero, and draws batch-norm scales
    from normal(1, gain). Layers of other classes (StyleGAN2's) keep the initialization they brought along.

    `init_type` is a key of `INIT_FUNCTIONS`; kaiming takes no gain.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            INIT_FUNCTIONS[init_type](layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, gain)
            nn.init.zeros_(layer.bias)
