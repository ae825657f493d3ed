"""The machinery around a method: how its networks, its optimizers and its steps are computed, as a `PerformanceConfig` says.

A method knows nothing of it, and what a step comes to is the same.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.networks.base import Generator
from models.performance import PerformanceConfig, WrapConfig, allow_tf32, wrap_call
from models.training_step import GradientAccumulator
from util.runtime.cuda_graph import CUDAGraphBackend, CUDAGraphStep
from util.runtime.device import tune_malloc
from util.runtime.distributed import wrap_ddp
from util.runtime.rng import GraphRNG

if TYPE_CHECKING:
    from models.base_model import BaseModel


def configure_backend(device: torch.device, speed: PerformanceConfig) -> None:
    """Settles what holds for all that this process computes."""
    if device.type == "cpu":
        tune_malloc()
    if speed.precision == "tf32":
        allow_tf32()


def wrap_network(network: nn.Module, speed: PerformanceConfig, in_bf16: bool) -> nn.Module:
    """What a training step shall call in the network's place. Raises UserError as `wrap_ddp`."""
    if isinstance(network, Generator):
        network.gradient_checkpointing = speed.grad_checkpoint
    how = WrapConfig(speed.precision == "bf16", speed.compile, speed.channels_last)
    return wrap_ddp(wrap_call(network, how, in_bf16))


def make_optimizer(
    parameters: Sequence[nn.Parameter],
    rate: float,
    betas: tuple[float, float],
    device: torch.device,
    speed: PerformanceConfig,
) -> torch.optim.Adam:
    """Adam, as one pass over all parameters; where steps are recorded, one that can be played back."""
    recorded = speed.cuda_graphs
    in_place = torch.tensor(rate, device=device) if recorded else rate  # a recording reads it from its place
    return torch.optim.Adam(parameters, lr=in_place, betas=betas, fused=True, capturable=recorded)


def wrap_step(model: "BaseModel") -> None:
    """Has the model take its steps from several batches each, or record and play them back, if its `speed` says so."""
    if model.speed.accumulate > 1:
        model.step_executor = model.accumulation = GradientAccumulator(model, model.speed.accumulate)
        model.stateful["accumulation"] = model.accumulation
    if model.speed.cuda_graphs:
        model.rng = rng = GraphRNG(model.device, model.opt.seed)
        model.step_executor = CUDAGraphStep(model.compute_step, rng, CUDAGraphBackend(model.device, rng.device_rng))
