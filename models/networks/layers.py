"""The layers that the networks share: normalization, its fusion with its neighbors, weight initialization."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.networks.padding import ReflectionPad, reflect, reflect_backward
from util.runtime.device import on_gpu

# Positions of a feature map that one block of GPU threads normalizes.
MAX_LAYER_NORM_SIZE = 2**14


class InstanceNorm(nn.Module):
    """Instance normalization without learned parameters: zero mean and unit variance per image and channel.

    On the CPU it is computed as a group norm with one channel per group, which is the same function. PyTorch's instance
    norm returns a wrong input gradient there for a single image if the incoming gradient is channels-last. The group norm
    does not, and its forward pass takes half the time. On a GPU layer and batch norms launch fewer kernels, and stay in
    bfloat16 under autocast.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        if on_gpu(features.device):
            if torch.compiler.is_compiling():
                return torch.instance_norm(features, None, None, None, None, True, 0.0, self.eps, False)
            if features.requires_grad:
                return _GPUInstanceNorm.apply(features, self.eps)
            return _gpu_norm(features.contiguous(), self.eps)[0]
        return F.group_norm(features, self.channels, eps=self.eps)

    def fused_relu(self, features: Tensor) -> Tensor:
        """Return relu(norm(features)), storing no more for the backward pass than the norm alone.

        Three cases are not fused: bfloat16, whose means are too coarse to recover the sign from the input; passes without a
        backward pass, because an exported network cannot contain a Python autograd function; and a compiler for GPUs, which
        fuses by itself.
        """
        compiled_on_gpu = torch.compiler.is_compiling() and on_gpu(features.device)
        if not features.requires_grad or features.dtype not in (torch.float32, torch.float64) or compiled_on_gpu:
            return self(features).relu_()
        return _NormReLU.apply(features, self.eps)

    def fused_relu_pad(self, pad: ReflectionPad, features: Tensor) -> Tensor:
        """Return pad(relu(norm(features))). On a GPU the gradient launches fewer kernels than those of the layers."""
        if on_gpu(features.device) and features.requires_grad and not torch.compiler.is_compiling():
            return _GPUNormReLUPad.apply(features, self.eps, pad.padding)
        return pad(self.fused_relu(features))

    def extra_repr(self) -> str:
        return str(self.channels)


class _GPUInstanceNorm(Function):
    """A batch norm in which every channel of every image is a channel, as in PyTorch's instance norm.

    PyTorch returns a view, which the in-place layers after it could not overwrite without copies.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, eps: float) -> Tensor:
        features = features.contiguous()
        normalized, mean, rstd = _gpu_norm(features, eps)
        ctx.save_for_backward(features, mean, rstd)
        ctx.eps = eps
        return normalized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        features, mean, rstd = ctx.saved_tensors
        return _gpu_norm_backward(gradient, features, mean, rstd, ctx.eps), None


class _NormReLU(Function):
    """Norm and ReLU in one. A normalized value is positive if the value exceeds the mean, so the output is not stored."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, eps: float) -> Tensor:
        if on_gpu(features.device):
            return _GPUInstanceNorm.forward(ctx, features, eps).relu_()
        if not (features.device.type == "cpu" and features.is_contiguous(memory_format=torch.channels_last)):
            features = features.contiguous()  # the kernels require it
        normalized, mean, rstd = torch.native_group_norm(features, None, None, *_sizes(features), eps)
        ctx.save_for_backward(features, mean, rstd)
        return normalized.relu_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        features, mean, rstd = ctx.saved_tensors
        mask = features - mean.view(*features.shape[:2], 1, 1)
        torch.ops.aten.threshold_backward(gradient, mask, 0, grad_input=mask)  # reuses the memory of the mask
        if on_gpu(features.device):
            return _gpu_norm_backward(mask, features, mean, rstd, ctx.eps), None
        output_mask = [True, False, False]  # the gradient of the features alone
        gradients = torch.ops.aten.native_group_norm_backward(
            mask, features, mean, rstd, None, *_sizes(features), output_mask
        )
        return gradients[0], None


class _GPUNormReLUPad(Function):
    """Norm, ReLU and reflection padding in one.

    The output shows which values were positive. The convolution after it stores the output anyway.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, eps: float, padding: int) -> Tensor:
        features = features.contiguous()
        normalized, mean, rstd = _gpu_norm(features, eps)
        padded = reflect(normalized.relu_(), padding)
        ctx.save_for_backward(features, mean, rstd, padded)
        ctx.eps, ctx.padding = eps, padding
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        features, mean, rstd, padded = ctx.saved_tensors
        gradient = reflect_backward(gradient, features.shape, ctx.padding)
        rectified = padded[..., ctx.padding : -ctx.padding, ctx.padding : -ctx.padding]
        gradient = torch.ops.aten.threshold_backward(gradient, rectified, 0)
        return _gpu_norm_backward(gradient, features, mean, rstd, ctx.eps), None, None


def _as_rows(features: Tensor) -> Tensor:
    """View (N, C, H, W) as one image of N * C channels."""
    return features.flatten(0, 1)[None]


def _gpu_norm(features: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalized features, and mean and 1 / standard deviation of every channel of every image.

    A layer norm is one kernel, in which one block of threads normalizes a channel; two if the number of positions is not a
    multiple of 4. Large maps are shared out among more threads by the two kernels of `nn.SyncBatchNorm`. Other batch norms
    launch a third one, for the square root.
    """
    if torch.is_autocast_enabled("cuda"):  # would compute a layer norm in float32
        with torch.autocast("cuda", enabled=False):
            return _gpu_norm(features, eps)
    if features.shape[2:].numel() <= MAX_LAYER_NORM_SIZE:
        normalized, mean, rstd = torch.native_layer_norm(features, features.shape[2:], None, None, eps)
        return normalized, mean.flatten(), rstd.flatten()
    normalized = torch.empty_like(features)
    mean, rstd = torch.batch_norm_stats(_as_rows(features), eps)
    torch.batch_norm_elemt(_as_rows(features), None, None, mean, rstd, eps, out=_as_rows(normalized))
    return normalized, mean, rstd


def _gpu_norm_backward(gradient: Tensor, features: Tensor, mean: Tensor, rstd: Tensor, eps: float) -> Tensor:
    """Return the gradient of `_GPUInstanceNorm` with respect to the features."""
    rows, feature_rows = _as_rows(gradient.contiguous()), _as_rows(features)
    output_mask = [True, False, False]  # the gradient of the features alone
    gradients = torch.ops.aten.native_batch_norm_backward(
        rows, feature_rows, None, None, None, mean, rstd, True, eps, output_mask
    )
    return gradients[0].view_as(features)


def _sizes(features: Tensor) -> tuple[int, int, int, int]:
    """Return images, channels, pixels and groups, as a group norm with one channel per group expects them."""
    images, channels, height, width = features.shape
    return images, channels, height * width, channels


NORMS: dict[str, type[nn.Module]] = {"instance": InstanceNorm, "batch": nn.BatchNorm2d, "none": nn.Identity}


def use_bias(norm: str) -> bool:
    """Return True if a convolution before this norm has a bias in the published checkpoints.

    Before an instance norm the bias has no effect, but its key is part of the checkpoint format.
    """
    return norm == "instance"


def fused_layers(
    layers: nn.Sequential, indices: Sequence[int], unfused: Collection[int] = ()
) -> Iterator[tuple[int, Callable[[Tensor], Tensor]]]:
    """Yield (index, layer) for the layers at `indices`, in order, with instance norms fused to their neighbors.

    An instance norm, the ReLU after it and reflection padding after that become one layer under the last of their indices.
    A convolution before an instance norm does not add its bias on a GPU. The outputs of `unfused` layers stay as they are.
    """
    pending_norm: InstanceNorm | None = None
    modules = list(layers)  # `layers[index]` would count from the first layer
    for index in indices:
        layer = modules[index]
        next_layer = modules[index + 1] if index + 1 in indices else None
        if pending_norm is not None:
            if isinstance(layer, ReflectionPad):
                yield index, partial(pending_norm.fused_relu_pad, layer)
            elif isinstance(next_layer, ReflectionPad) and index not in unfused:
                continue
            else:
                yield index, pending_norm.fused_relu
            pending_norm = None
        elif isinstance(layer, InstanceNorm) and isinstance(next_layer, nn.ReLU) and index not in unfused:
            pending_norm = layer
        elif isinstance(layer, nn.Conv2d) and isinstance(next_layer, InstanceNorm) and index not in unfused:
            yield index, partial(conv_before_norm, layer)
        else:
            yield index, layer


def conv_before_norm(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """Return the convolution of the feature maps. On a GPU the bias is not added: an instance norm removes it.

    The CPU adds it: float32 runs that were started earlier also continue the rounding noise of its gradient.
    """
    if not on_gpu(features.device) or conv.bias is None:
        return conv(features)
    output = conv._conv_forward(features, conv.weight, None)
    return _WithUnusedBias.apply(output, conv.bias) if output.requires_grad else output


class _WithUnusedBias(Function):
    """Keep an unused bias in the autograd graph, as DDP requires, without a gradient."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


INIT_FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def init_weights(network: nn.Module, init_type: str = "xavier", gain: float = 0.02) -> None:
    """Initialize convolutions and linear layers by `init_type`, their biases to 0, and batch-norm scales by N(1, gain).

    `init_type` is a key of `INIT_FUNCTIONS`; kaiming ignores the gain. Layers of other classes, such as StyleGAN2's, keep
    the weights of their constructor.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            INIT_FUNCTIONS[init_type](layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, gain)
            nn.init.zeros_(layer.bias)
