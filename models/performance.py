"""From options to a `PerformanceConfig`: how a step is computed, and what cannot be combined."""

import shutil
import warnings
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.networks import GENERATORS
from util.errors import UserError
from util.runtime.distributed import launched_world_size

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class PerformanceConfig:
    """How to compute; by default plainly."""

    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = False
    cuda_graphs: bool = False
    grad_checkpoint: bool = False
    accumulate: int = 1


def incompatibility(opt: Namespace, speed: PerformanceConfig) -> str | None:
    """Why these options cannot go with each other, whatever the machine; None where they can."""
    if speed.cuda_graphs:
        if speed.accumulate > 1:
            return "--cuda_graphs records a step of one batch, which --accumulate has no use for; give a larger --batch_size"
        if speed.grad_checkpoint and not opt.no_dropout:
            return "--cuda_graphs cannot repeat the dropout that --grad_checkpoint computes twice; leave out one of them"
    if speed.accumulate > 1:
        if "batch" in (opt.normG, opt.normD):
            return "--accumulate cannot join batches for batch norm, which sees each alone; give another --normG and --normD"
        if not opt.no_dropout:
            return "--accumulate computes translations twice, and dropout would make them two; leave out one of them"
    if speed.grad_checkpoint:
        if not GENERATORS[opt.netG].network.supports_gradient_checkpointing:
            return (
                f"--grad_checkpoint computes blocks of the generator twice, and --netG {opt.netG} has none; choose another"
            )
        if opt.normG == "batch":
            return "--grad_checkpoint would count every batch twice in the running statistics of --normG batch"
    return None


def resolve_performance_config(opt: Namespace, device: torch.device) -> PerformanceConfig:
    """What the options ask for on this device; with --fast, what is best there for everything they do not say.

    Raises UserError for what the device, or this machine, cannot do.
    """
    names = [name for name in PerformanceConfig.__dataclass_fields__ if hasattr(opt, name)]  # a test has fewer
    asked: dict[str, Any] = {name: getattr(opt, name) for name in names}
    speed = PerformanceConfig(**asked)
    if problem := _cuda_graph_blocker(opt, speed) or _unsupported(speed, device):
        raise UserError(problem)
    if opt.fast:
        for name, value in _fast_preset(device).items():
            faster = PerformanceConfig(**{**vars(speed), name: value})
            problem = incompatibility(opt, faster) or _cuda_graph_blocker(opt, faster) or _unsupported(faster, device)
            if name in names and name not in opt.explicit and not problem:
                speed = faster
    return speed


def _cuda_graph_blocker(opt: Namespace, speed: PerformanceConfig) -> str | None:
    """Why a step of this method cannot be recorded as it goes by default; None where it can, or shall not be."""
    if speed.cuda_graphs and opt.model == "cycle_gan" and opt.pool_size > 0:
        return (
            "--cuda_graphs does not go with the history of translations, out of which the program chooses in the midst of a "
            "step; give --pool_size 0, or leave out --cuda_graphs"
        )
    return None


def _fast_preset(device: torch.device) -> dict[str, Any]:
    """The best known settings (docs/performance.md), the most valuable first."""
    if device.type == "cuda":
        return {"precision": "bf16", "channels_last": True, "cuda_graphs": True, "compile": True}
    if device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16"):
        return {"precision": "bf16"}
    return {}


def _unsupported(speed: PerformanceConfig, device: torch.device) -> str | None:
    """What this machine lacks for it, in a sentence; None where it lacks nothing."""
    if speed.precision == "tf32" and device.type != "cuda":
        return "--precision tf32 is a number format of NVIDIA GPUs; here give fp32, which is exact, or bf16"
    if speed.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "--precision bf16 needs a GPU that computes in bfloat16, and this one does not; give fp32"
    if speed.cuda_graphs and device.type != "cuda":
        return "--cuda_graphs needs an NVIDIA GPU; leave it out here"
    if speed.cuda_graphs and launched_world_size() > 1:
        return "--cuda_graphs does not go with several processes; train in one, or leave it out"
    if speed.compile and device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return (
            "--compile needs a C++ compiler for the CPU, and there is neither g++ nor clang++; install one, or leave it out"
        )
    return None


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
