"""Performance options: number format, memory layout, compilation, CUDA graphs, gradient checkpointing and accumulation.

They change how a step is computed, and not what it computes. A method knows nothing of them.
"""

import shutil
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.networks import GENERATORS
from models.networks.base import Generator
from util.errors import UserError
from util.runtime.device import on_gpu, tune_malloc
from util.runtime.distributed import is_main_process, launched_world_size, wrap_ddp
from util.terminal import print_line

PRECISIONS = ("fp32", "tf32", "bf16")
# Join independent kernels, such as the casts of all weights. Without effect on a CPU.
COMPILER_OPTIONS: dict[str, Any] = {"combo_kernels": True}


@dataclass(frozen=True)
class PerformanceConfig:
    """The performance options of a run; the defaults change nothing. Fields are named after the options."""

    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = False
    cuda_graphs: bool = False
    grad_checkpoint: bool = False
    accumulate: int = 1


def resolve_performance_config(
    opt: Namespace, device: torch.device, cuda_graph_blocker: Callable[[Namespace], str | None]
) -> PerformanceConfig:
    """Return the options for this device. With --fast, options that are not given take their best known value.

    `cuda_graph_blocker` is that of the method (`BaseModel.cuda_graph_blocker`). Prints a note for every setting that --fast
    leaves out, and if --compile is given on a CPU. Raises UserError if the method, the device or this machine cannot do
    what is asked.
    """

    def problem_of(config: PerformanceConfig) -> str | None:
        return (cuda_graph_blocker(opt) if config.cuda_graphs else None) or _unsupported(config, device)

    names = [name for name in PerformanceConfig.__dataclass_fields__ if hasattr(opt, name)]  # test.py has fewer
    requested: dict[str, Any] = {name: getattr(opt, name) for name in names}
    config = PerformanceConfig(**requested)
    if problem := problem_of(config):
        raise UserError(problem)
    if opt.fast:
        for name, value in _fast_preset(device, opt.isTrain).items():
            if name not in names or name in opt.explicit:
                continue
            faster = PerformanceConfig(**{**vars(config), name: value})
            if problem := incompatibility(opt, faster) or problem_of(faster):
                _note(f"--fast leaves out {problem}")
            else:
                config = faster
    if config.compile and device.type == "cpu":
        _note("--compile: makes a step slower on a CPU (2.4 times in a measurement). Leave it out.")
    return config


def _note(message: str) -> None:
    if is_main_process():
        print_line(f"note: {message}")


def incompatibility(opt: Namespace, config: PerformanceConfig) -> str | None:
    """Return why these options exclude each other on any machine, or None."""
    if config.cuda_graphs:
        if config.accumulate > 1:
            return "--cuda_graphs: incompatible with --accumulate. Use a larger --batch_size instead."
        if config.grad_checkpoint and not opt.no_dropout:
            return "--cuda_graphs: cannot repeat the dropout that --grad_checkpoint recomputes. Leave out one of them."
    if config.accumulate > 1:
        if "batch" in (opt.normG, opt.normD):
            return "--accumulate: incompatible with batch norm, which sees each batch alone. Use other norms."
        if not opt.no_dropout:
            return "--accumulate: incompatible with dropout, because translations are computed twice. Use --no_dropout."
    if config.grad_checkpoint:
        if not GENERATORS[opt.netG].network.supports_gradient_checkpointing:
            return f"--grad_checkpoint: not supported by --netG {opt.netG}. Use another generator."
        if opt.normG == "batch":
            return "--grad_checkpoint: incompatible with --normG batch, whose running statistics would count batches twice."
    return None


def _fast_preset(device: torch.device, is_train: bool) -> dict[str, Any]:
    """Return the best known settings (docs/performance.md), the most valuable first.

    A test does not compile: it takes about a minute for every image size.
    """
    if device.type == "cuda":
        preset = {"precision": "bf16", "channels_last": True, "cuda_graphs": True}
        return {**preset, "compile": True} if is_train else preset
    if device.type == "cpu" and _has_bf16_units():
        return {"precision": "bf16"}
    return {}


def _has_bf16_units() -> bool:
    """Return True if the CPU multiplies bfloat16 numbers: Intel's AMX, or AVX-512 BF16 of AMD's Zen 4 and later."""
    units = torch.cpu.get_capabilities()
    return bool(units.get("amx_bf16") or units.get("avx512_bf16"))


def _unsupported(config: PerformanceConfig, device: torch.device) -> str | None:
    """Return what this machine lacks for the config, or None."""
    if config.precision == "tf32" and device.type != "cuda":
        return "--precision tf32: needs an NVIDIA GPU. Use fp32, which is exact, or bf16."
    if config.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "--precision bf16: not supported by this GPU. Use fp32."
    if config.cuda_graphs and device.type != "cuda":
        return "--cuda_graphs: needs an NVIDIA GPU. Leave it out on this machine."
    if config.cuda_graphs and launched_world_size() > 1:
        return "--cuda_graphs: incompatible with several processes. Train in one process, or leave it out."
    if config.compile and device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "--compile: needs a C++ compiler on the CPU, and neither g++ nor clang++ is installed. Install one."
    return None


def configure_backend(device: torch.device, config: PerformanceConfig, is_train: bool) -> None:
    """Apply the settings that are global to the process.

    In training, cuDNN measures its algorithms for every new image size. --deterministic excludes it.
    """
    if device.type == "cpu":
        tune_malloc()
    if on_gpu(device) and is_train:
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    if config.precision == "tf32":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def make_optimizer(
    parameters: Sequence[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    device: torch.device,
    config: PerformanceConfig,
) -> torch.optim.Adam:
    """Return a fused Adam. With CUDA graphs its learning rate is a tensor that a captured step reads."""
    captured = config.cuda_graphs
    rate = torch.tensor(lr, device=device) if captured else lr
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True, capturable=captured)
    if on_gpu(device):
        fill_missing_gradients(optimizer)
    return optimizer


def fill_missing_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Before each step, give zero gradients to parameters without one: the biases that a GPU does not add.

    The zeros are allocated once, so that they cost no kernel.
    """
    zeros: dict[nn.Parameter, Tensor] = {}

    def fill(*_: Any) -> None:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if parameter.grad is None and parameter.requires_grad:
                if parameter not in zeros:
                    zeros[parameter] = torch.zeros_like(parameter)
                parameter.grad = zeros[parameter]

    optimizer.register_step_pre_hook(fill)


def wrap_network(network: nn.Module, config: PerformanceConfig, in_bf16: bool = True) -> nn.Module:
    """Return the module that a training step calls: the same function of the same parameters.

    With --channels_last, the weights of `network` itself change their memory layout. With --precision bf16, a network
    that is not `in_bf16` gets float32 inputs instead of autocast.

    Raises UserError as `wrap_ddp`.
    """
    if isinstance(network, Generator):
        network.gradient_checkpointing = config.grad_checkpoint
    if config.channels_last:
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if config.compile:
        # The compiler advises TF32, which is the choice of --precision.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores for float32 matrix multiplication", UserWarning)
        wrapped = cast(nn.Module, torch.compile(network, dynamic=False, options=COMPILER_OPTIONS))
    else:
        wrapped = network
    if config.channels_last and in_bf16:
        wrapped = ChannelsLastInputs(wrapped)
    if config.precision == "bf16":
        wrapped = BF16Autocast(wrapped) if in_bf16 else Float32Inputs(wrapped)
    return wrap_ddp(wrapped)


class ChannelsLastInputs(nn.Module):
    """Call the network on images in channels-last memory format. Shapes stay (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, *arguments: Any, **named: Any) -> Any:
        return self.network(images.contiguous(memory_format=torch.channels_last), *arguments, **named)


class BF16Autocast(nn.Module):
    """Compute the network under bfloat16 autocast, from float32 weights.

    Images and logits are returned in float32. Lists of feature maps keep their type: only a few positions are read.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, *arguments: Any, **named: Any) -> Any:
        with torch.autocast(images.device.type, torch.bfloat16):
            result = self.network(images, *arguments, **named)
        if isinstance(result, tuple):
            image, features = result
            return image.float(), features
        return result.float() if isinstance(result, Tensor) else result


class Float32Inputs(nn.Module):
    """Call the network on patches in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: list[Tensor]) -> Any:
        return self.network([patch.float() for patch in patches])
