"""The normalization layers that --normG and --normD choose from."""

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
