"""From options to a `PerformanceConfig`: how a step shall be computed, and what cannot be. models/machinery.py then does it."""

import shutil
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import torch

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
        if opt.netG.startswith("unet"):
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
            if name in names and name not in opt.given and not problem:
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
