"""Training steps to measure, on random images: methods, configurations and the reference workload."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from reference_step import REFERENCE_MODELS
from torch.utils.flop_counter import FlopCounterMode

import models.cut_model
from models import create_model
from models.base_model import BaseModel
from options import TrainOptions

METHODS: dict[str, dict[str, str]] = {  # options by name
    "cut": {"model": "cut"},
    "fastcut": {"model": "cut", "CUT_mode": "FastCUT"},
    "sincut": {"model": "sincut"},
    "cycle_gan": {"model": "cycle_gan"},
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


class AlternatingFlips:
    """A deterministic replacement for FastCUT's random flip: every second step is mirrored, the first one is not."""

    def __init__(self) -> None:
        self.last: dict[int, bool] = {}

    def __call__(self, generator: torch.Generator) -> bool:
        self.last[id(generator)] = not self.last.get(id(generator), True)
        return self.last[id(generator)]


def alternate_flips() -> None:
    """Make all models of this process flip in every second step instead of at random."""
    models.cut_model.sample_flip = AlternatingFlips()


def build_model(method: str, config: str, arguments: list[str]) -> BaseModel:
    """Create the model of `method` for a training step in this configuration."""
    options = [f"--{name}={value}" for name, value in METHODS[method].items()]
    opt = TrainOptions().parse([*options, *arguments, *CONFIGS[config]])
    if config != REFERENCE:
        return create_model(opt)
    torch.backends.cudnn.benchmark = True  # as in the published train.py; without effect on a CPU
    return REFERENCE_MODELS[opt.model](opt)


def random_batch(model: BaseModel) -> dict[str, Any]:
    """Return a batch of noise in [-1, 1], in pinned memory if the model is on a GPU, as from the data loader."""
    count, size = model.opt.batch_size, model.opt.crop_size
    rng = torch.Generator().manual_seed(0)
    images = {domain: torch.rand(count, 3, size, size, generator=rng) * 2 - 1 for domain in "AB"}
    if model.device.type == "cuda":
        images = {domain: tensor.pin_memory() for domain, tensor in images.items()}
    return {**images, "A_paths": ["A"] * count, "B_paths": ["B"] * count}


def make_step_fn(model: BaseModel) -> Callable[[], None]:
    """Return a function that takes one training step on random images."""
    batch = random_batch(model)

    def step() -> None:
        model.set_input(batch)
        model.optimize_parameters()

    return step


def make_reference_workload(size: int, batch: int, device: torch.device) -> Callable[[], None]:
    """Return the reference workload Y: 18 convolutions of 256 channels at a quarter of the image size, no gradients."""
    side = max(size // 4, 1)
    features = torch.randn(batch, 256, side + 2, side + 2, device=device)
    weight = torch.randn(256, 256, 3, 3, device=device)

    def run() -> None:
        with torch.no_grad():
            for _ in range(18):
                F.conv2d(features, weight)

    return run


def size_arguments(method: str, size: int, batch: int) -> list[str]:
    """Return the train.py arguments for images of `size` pixels. SinCUT crops them from a larger image."""
    load_size = max(size, 1024) if method == "sincut" else size
    return ["--load_size", str(load_size), "--crop_size", str(size), "--batch_size", str(batch)]


class NoModuleTracker(nullcontext[None]):
    """Replaces the module tracker of FlopCounterMode, which cannot follow gradients of gradients."""

    parents = frozenset({"Global"})


def count_flops(step: Callable[[], None], steps: int) -> float:
    """Count the floating-point operations of convolutions and matrix products; return the mean per step."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModuleTracker()  # type: ignore[assignment]
    with counter:
        for _ in range(steps):
            step()
    return counter.get_total_flops() / steps
