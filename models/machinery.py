"""The machinery around a method: how its networks, its optimisers and its steps are computed, as a `Speed` says.

A method knows nothing of it, and what a step comes to is the same.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.networks.base import TappedGenerator
from models.performance import HowToCompute, Speed, allow_tf32, as_called
from models.training_step import SeveralBatches
from util.runtime.cuda_graph import CudaGraphs, RecordedSteps
from util.runtime.device import keep_freed_memory
from util.runtime.distributed import parallel
from util.runtime.rng import KeptDraws

if TYPE_CHECKING:
    from models.base_model import BaseModel


def prepare_device(device: torch.device, speed: Speed) -> None:
    """Settles what holds for all that this process computes."""
    if device.type == "cpu":
        keep_freed_memory()
    if speed.precision == "tf32":
        allow_tf32()


def wrap_network(network: nn.Module, speed: Speed, in_bf16: bool) -> nn.Module:
    """What a training step shall call in the network's place. Raises UserError as `parallel`."""
    if isinstance(network, TappedGenerator):
        network.recomputes = speed.grad_checkpoint
    how = HowToCompute(speed.precision == "bf16", speed.compile, speed.channels_last)
    return parallel(as_called(network, how, in_bf16))


def make_optimizer(
    parameters: Sequence[nn.Parameter], rate: float, betas: tuple[float, float], device: torch.device, speed: Speed
) -> torch.optim.Adam:
    """Adam, as one pass over all parameters; where steps are recorded, one that can be played back."""
    recorded = speed.cuda_graphs
    in_place = torch.tensor(rate, device=device) if recorded else rate  # a recording reads it from its place
    return torch.optim.Adam(parameters, lr=in_place, betas=betas, fused=True, capturable=recorded)


def wrap_step(model: "BaseModel") -> None:
    """Has the model take its steps from several batches each, or record and play them back, if its `speed` says so."""
    if model.speed.accumulate > 1:
        model.run_step = model.accumulation = SeveralBatches(model, model.speed.accumulate)
        model.stateful["accumulation"] = model.accumulation
    if model.speed.cuda_graphs:
        model.draws = KeptDraws(model.host_generator)
        model.run_step = RecordedSteps(model.compute_step, model.draws, CudaGraphs(model.device, model.generator))
