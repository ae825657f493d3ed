"""How a network is computed: in which number format, compiled or not, in which memory layout.

A model keeps its plain networks; a training step calls what `wrap_call` makes of them.
"""

import warnings
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WrapConfig:
    """What may be changed about the computation of a network; by default nothing is."""

    bf16: bool = False
    compiled: bool = False
    channels_last: bool = False


def wrap_call(network: nn.Module, how: WrapConfig, in_bf16: bool) -> nn.Module:
    """What a step calls in the network's place: the same function of the same parameters; the network itself where nothing
    is changed. A network that is not to be computed `in_bf16` gets its inputs in float32 instead.

    With channels_last, the network's own weights are laid out so.
    """
    if how.channels_last:
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if how.compiled:
        # --precision chooses TF32; the compiler need not advise it.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores for float32 matrix multiplication", UserWarning)
    called = cast(nn.Module, torch.compile(network, dynamic=False)) if how.compiled else network
    if how.channels_last and in_bf16:
        called = ChannelsLastInputs(called)
    if how.bf16:
        called = BF16Autocast(called) if in_bf16 else Float32(called)
    return called


def allow_tf32() -> None:
    """Lets NVIDIA GPUs round the factors of float32 products to TF32, in matrix products as in convolutions."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


class ChannelsLastInputs(nn.Module):
    """Calls the network on images laid out in memory with the channels last, (N, H, W, C); shapes stay (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, *arguments: Any, **named: Any) -> Any:
        return self.network(images.contiguous(memory_format=torch.channels_last), *arguments, **named)


class BF16Autocast(nn.Module):
    """Computes the network under autocast: convolutions and matrix products in bfloat16, from float32 weights.

    Images and scores come back in float32; lists of feature maps, of which a few positions are looked at, as they are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, *arguments: Any, **named: Any) -> Any:
        with torch.autocast(images.device.type, torch.bfloat16):
            result = self.network(images, *arguments, **named)
        if isinstance(result, tuple):
            translation, features = result
            return translation.float(), features
        return result.float() if isinstance(result, Tensor) else result


class Float32(nn.Module):
    """Calls the network on patches turned to float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: list[Tensor]) -> Any:
        return self.network([patch.float() for patch in patches])
