"""--accumulate: one step from the gradients of several batches, as if they were one large batch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from util.runtime.cuda_graph import Inputs, Outputs
from util.runtime.distributed import world_size

if TYPE_CHECKING:
    from models.base_model import BaseModel


class SingleBatch:
    """No accumulation: every batch makes a step."""

    def __init__(self, model: "BaseModel") -> None:
        self.model = model

    def translate(self) -> None:
        """Computes the translations of the step's images."""
        self.model.forward()

    def backward(self, loss: Callable[[], Tensor], with_generator_grad: bool) -> None:
        """Adds up the gradient of `loss()`, which reaches the generators where it goes `with_generator_grad`."""
        loss().backward()


@dataclass
class MicroBatch:
    """A batch that waits for the others of its step, and the seed that its draws follow from."""

    inputs: Inputs
    seed: int
    outputs: dict[str, Tensor] = field(default_factory=dict)


class GradientAccumulator(SingleBatch):
    """Takes a step with every `count`-th batch; each of them weighs the same.

    A step updates its networks one after another, and what a generator learns it learns from the updated discriminator. So
    nothing is computed until all batches are there: then all are translated, and each update goes over all of them. Only
    images are kept meanwhile; where a gradient goes through the translations, they are computed again, with equal draws.
    """

    def __init__(self, model: "BaseModel", count: int) -> None:
        super().__init__(model)
        self.count = count
        self.waiting: list[MicroBatch] = []

    def __call__(self, inputs: Inputs) -> Outputs:
        """Takes the batch; where it completes a step, the outputs are that batch's, and losses are means over all."""
        model = self.model
        self.waiting.append(MicroBatch(inputs, model.step_seed))
        if len(self.waiting) < self.count:
            return {}
        outputs = model.compute_step(inputs)
        self.waiting = []
        return outputs

    def translate(self) -> None:
        for batch in self.waiting:
            with torch.no_grad():
                self._translate(batch)
            batch.outputs = self.model.get_current_visuals()

    def backward(self, loss: Callable[[], Tensor], with_generator_grad: bool) -> None:
        model, before = self.model, self.model.losses
        losses: list[dict[str, Tensor]] = []
        for batch in self.waiting:
            model.losses = {}
            if with_generator_grad:
                self._translate(batch)
            else:
                model.reseed(batch.seed)
                vars(model).update(batch.outputs)
            (loss() / len(self.waiting)).backward()  # more than `count` where a run goes on with a lower one
            losses.append({name: value.detach() for name, value in model.losses.items()})
        means = {name: torch.stack([values[name] for values in losses]).mean() for name in losses[0]}
        model.losses = before | means

    def state_dict(self) -> dict[str, Any]:
        """The batches that wait. None where several processes share them: each has only its own images of them, and they
        are then left out where the run goes on."""
        waiting = self.waiting if world_size() == 1 else []
        return {"waiting": [{"inputs": batch.inputs, "seed": batch.seed} for batch in waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.waiting = [
            MicroBatch({name: self.model.to_device(images) for name, images in batch["inputs"].items()}, batch["seed"])
            for batch in state["waiting"]
        ]

    def _translate(self, batch: MicroBatch) -> None:
        vars(self.model).update(batch.inputs)
        self.model.reseed(batch.seed)
        self.model.forward()
