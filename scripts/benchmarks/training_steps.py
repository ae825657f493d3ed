"""The training steps that scripts/benchmarks/benchmark.py measures, on images of noise, and the yardstick beside them."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from reference_step import PUBLISHED
from torch.utils.flop_counter import FlopCounterMode

import models.cut_model
from models import create_model
from models.base_model import BaseModel
from options import TrainOptions

METHODS = {
    "cut": ["--model", "cut"],
    "fastcut": ["--model", "cut", "--CUT_mode", "FastCUT"],
    "sincut": ["--model", "sincut"],
    "cycle_gan": ["--model", "cycle_gan"],
}
REFERENCE, DEFAULT = "as published", "default"
CONFIGS: dict[str, list[str]] = {
    REFERENCE: [],
    DEFAULT: [],
    "channels_last": ["--channels_last"],
    "grad_checkpoint": ["--grad_checkpoint"],
    "bf16": ["--precision", "bf16"],
    "bf16, channels_last": ["--precision", "bf16", "--channels_last"],
    "fast": ["--fast"],
    "tf32": ["--precision", "tf32"],
    "compile": ["--compile"],
    "cuda_graphs": ["--cuda_graphs"],
    "bf16, channels_last, cuda_graphs": ["--precision", "bf16", "--channels_last", "--cuda_graphs"],
    "accumulate 2": ["--accumulate", "2"],
}


class Alternating:
    """FastCUT's coin, without chance: each generator that asks gets tails and heads in turns."""

    def __init__(self) -> None:
        self.last: dict[int, bool] = {}

    def __call__(self, generator: torch.Generator) -> bool:
        self.last[id(generator)] = not self.last.get(id(generator), True)
        return self.last[id(generator)]


def alternate_flips() -> None:
    """From here on models throw no coin: every second step of FastCUT is a mirrored one."""
    models.cut_model.sample_flip = Alternating()


def build(method: str, way: str, arguments: list[str]) -> BaseModel:
    """The model of `method` that steps that way."""
    opt = TrainOptions().parse([*METHODS[method], *arguments, *CONFIGS[way]])
    return PUBLISHED[opt.model](opt) if way == REFERENCE else create_model(opt)


def random_batch(model: BaseModel) -> dict[str, Any]:
    """A batch of noise in [-1, 1]."""
    size, side = model.opt.batch_size, model.opt.crop_size
    draws = torch.Generator().manual_seed(0)
    images = {domain: torch.rand(size, 3, side, side, generator=draws) * 2 - 1 for domain in "AB"}
    return {**images, "A_paths": ["A"] * size, "B_paths": ["B"] * size}


def yardstick(side: int, batch: int, device: torch.device) -> Callable[[], None]:
    """Y: 18 convolutions without gradients, as eagerly as PyTorch makes them."""
    features = torch.randn(batch, 256, side // 4 + 2, side // 4 + 2, device=device)
    weight = torch.randn(256, 256, 3, 3, device=device)

    def run() -> None:
        with torch.no_grad():
            for _ in range(18):
                F.conv2d(features, weight)

    return run


def size_arguments(method: str, side: int, batch: int) -> list[str]:
    """The options for images of `side` pixels; SinCUT crops them out of a larger one."""
    load = max(side, 1024) if method == "sincut" else side
    return ["--load_size", str(load), "--crop_size", str(side), "--batch_size", str(batch)]


def stepper(model: BaseModel) -> Callable[[], None]:
    """What takes one step of the model on noise."""
    batch = random_batch(model)

    def step() -> None:
        model.set_input(batch)
        model.optimize_parameters()

    return step


class WholeStep(nullcontext[None]):
    """Has operations counted for the step as a whole, not for the modules that they belong to."""

    parents = frozenset({"Global"})


def count_flops(step: Callable[[], None]) -> int:
    """Floating-point operations of the convolutions and matrix products of a step."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = WholeStep()  # type: ignore[assignment]  # its own cannot follow gradients of gradients
    with counter:
        step()
    return counter.get_total_flops()
