"""The normalisation layers that --normG and --normD choose from."""

import torch.nn.functional as F
from torch import Tensor, nn


class InstanceNorm(nn.Module):
    """Instance normalisation without learned parameters: every channel of every picture to mean 0 and variance 1.

    Computed as a group norm with one channel to a group, which is the same function. PyTorch's own instance norm returns
    a wrong input gradient on the CPU for a single picture whose gradient comes in channels-last strides; this one does
    not, and its forward pass takes half the time there.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps

    def forward(self, image: Tensor) -> Tensor:
        return F.group_norm(image, self.channels, eps=self.eps)

    def extra_repr(self) -> str:
        return str(self.channels)


NORMS: dict[str, type[nn.Module]] = {"instance": InstanceNorm, "batch": nn.BatchNorm2d, "none": nn.Identity}


def keeps_bias(norm: str) -> bool:
    """Whether a convolution in front of this norm has a bias, as it has in the published checkpoints.

    In front of an instance norm the bias is dead weight, but its key is part of the file format.
    """
    return norm == "instance"


def mixes_images(network: nn.Module) -> bool:
    """Whether a picture's result depends on what else is in the batch, or on a random draw of the pass.

    Where it does not, passes over several batches can be joined into one, and features be used again, with equal results.
    """
    return any(isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) for layer in network.modules())
