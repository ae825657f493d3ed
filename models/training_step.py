"""Execution of a training step: eagerly, with gradient accumulation, or as a captured CUDA graph.

A method (models/cut_model.py and the others) describes a step. This module decides when and how often its parts run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from models.performance import PerformanceConfig
from util.runtime.checkpoint import Stateful
from util.runtime.cuda_graph import CUDAGraphBackend, CUDAGraphStep, GraphBackend, Inputs, Outputs
from util.runtime.distributed import world_size
from util.runtime.rng import GraphRNG, StepRNG


class Method(Protocol):
    """The part of a model that the execution of its steps relies on."""

    device: torch.device
    rng: StepRNG
    losses: dict[str, Tensor]

    def training_step(self) -> None:
        """Compute one step on the current images: call `forward_all`, then `optimize` for each update."""

    def forward(self) -> None:
        """Compute the outputs of the current images."""

    def get_current_visuals(self) -> dict[str, Tensor]:
        """Return the current images by attribute name."""

    def set_visuals(self, images: Mapping[str, Tensor]) -> None:
        """Make these the current images."""

    def step_outputs(self) -> Outputs:
        """Return what the step leaves behind."""


class TrainingStep:
    """Run one step per batch, eagerly."""

    def __init__(self, method: Method) -> None:
        self.method = method

    def __call__(self, inputs: Inputs, seed: int) -> Outputs:
        """Update the networks on a batch.

        `seed` is the one that the RNG of the method was seeded with. Returns the outputs of the step, or an empty dict if
        the step needs more batches.
        """
        return self.compute(inputs)

    def compute(self, inputs: Inputs) -> Outputs:
        """Run the method's training step on these images, and return its outputs."""
        self.method.set_visuals(inputs)
        self.method.losses = {}
        self.method.training_step()
        return self.method.step_outputs()

    def forward_all(self) -> None:
        """Run `forward` for every batch of the step."""
        self.method.forward()

    def backward(self, loss_fn: Callable[[], Tensor], with_generator_grad: bool) -> None:
        """Add the gradient of `loss_fn()`, averaged over the batches of the step.

        `with_generator_grad` says whether it flows through the outputs of `forward`.
        """
        loss_fn().backward()

    def checkpoint_items(self) -> dict[str, Stateful]:
        """Return what a resumed run needs, by its name in the training state."""
        return {}


@dataclass
class MicroBatch:
    """A batch of a larger step, with the seed of its random samples and the images that `forward` left."""

    inputs: Inputs
    seed: int
    visuals: dict[str, Tensor] = field(default_factory=dict)


class GradientAccumulator(TrainingStep):
    """Run one step per `count` batches, with equal weights.

    A step updates its networks one after another, and the generator learns from the updated discriminator. Therefore all
    batches are collected first, then `forward` runs on all of them, and each update averages over all of them. Only images
    are stored: if a gradient flows through the outputs of `forward`, they are recomputed with the same random samples.
    """

    def __init__(self, method: Method, count: int) -> None:
        super().__init__(method)
        self.count = count
        self.micro_batches: list[MicroBatch] = []

    def __call__(self, inputs: Inputs, seed: int) -> Outputs:
        """Collect the batch. Once the step is complete, return the outputs of its last batch and the mean losses."""
        self.micro_batches.append(MicroBatch(inputs, seed))
        if len(self.micro_batches) < self.count:
            return {}
        outputs = self.compute(inputs)
        self.micro_batches = []
        return outputs

    def forward_all(self) -> None:
        for batch in self.micro_batches:
            with torch.no_grad():
                self._forward(batch)
            batch.visuals = self.method.get_current_visuals()

    def backward(self, loss_fn: Callable[[], Tensor], with_generator_grad: bool) -> None:
        method, losses_before = self.method, self.method.losses
        losses: list[dict[str, Tensor]] = []
        for batch in self.micro_batches:
            method.losses = {}
            if with_generator_grad:
                self._forward(batch)
            else:
                method.rng.reseed(batch.seed)
                method.set_visuals(batch.visuals)
            # Divided by the number of batches: a run that is resumed with a lower --accumulate has more than `count`.
            (loss_fn() / len(self.micro_batches)).backward()
            losses.append({name: value.detach() for name, value in method.losses.items()})
        means = {name: torch.stack([values[name] for values in losses]).mean() for name in losses[0]}
        method.losses = losses_before | means

    def checkpoint_items(self) -> dict[str, Stateful]:
        return {"accumulation": self}

    def state_dict(self) -> dict[str, Any]:
        """Return the collected batches; none with several processes, because each has only its own images."""
        batches = self.micro_batches if world_size() == 1 else []
        return {"waiting": [{"inputs": batch.inputs, "seed": batch.seed} for batch in batches]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned, to the device of the method."""
        self.micro_batches = [
            MicroBatch({name: images.to(self.method.device) for name, images in batch["inputs"].items()}, batch["seed"])
            for batch in state["waiting"]
        ]

    def _forward(self, batch: MicroBatch) -> None:
        self.method.set_visuals(batch.inputs)
        self.method.rng.reseed(batch.seed)
        self.method.forward()


class GraphedStep(TrainingStep):
    """Capture the step as a CUDA graph, and replay it."""

    def __init__(self, method: Method, backend: GraphBackend) -> None:
        super().__init__(method)
        assert isinstance(method.rng, GraphRNG)
        self.graphs = CUDAGraphStep(self.compute, method.rng, backend)

    def __call__(self, inputs: Inputs, seed: int) -> Outputs:
        return self.graphs(inputs)


def create_step(method: Method, config: PerformanceConfig) -> TrainingStep:
    """Return the executor that the performance options ask for."""
    if config.accumulate > 1:
        return GradientAccumulator(method, config.accumulate)
    if config.cuda_graphs:
        return GraphedStep(method, CUDAGraphBackend(method.device, method.rng.device_rng))
    return TrainingStep(method)


def create_rng(device: torch.device, seed: int, config: PerformanceConfig) -> StepRNG:
    """Return the source of a step's random samples."""
    return GraphRNG(device, seed) if config.cuda_graphs else StepRNG(device, seed)
