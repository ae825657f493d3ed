"""Random decisions of a training step: samples whose values the program itself needs, such as FastCUT's flip.

They come from a generator on the CPU, because reading a value from a GPU would wait for it. A step draws all its other
samples on the device, in the same order whether it is captured as a CUDA graph (util/runtime/cuda_graph.py) or not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def fork_rng_seeded(seed: int) -> Iterator[None]:
    """In the body PyTorch's global CPU generator starts from `seed`; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU's generator as well
        yield


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """The seed of the random draws of step number `step` (from 0): whoever knows the number can draw them again, so that a
    run that stops and goes on has no random state to keep. `process`: of several that shall draw differently."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0])


Decide = Callable[[torch.Generator], bool]


class StepRNG:
    """Makes each decision when the step asks for it."""

    def __init__(self, cpu_rng: torch.Generator) -> None:
        self.cpu_rng = cpu_rng

    def decision(self, draw: Decide) -> bool:
        """Return `draw(cpu_rng)`, which selects one of the ways that the step can go."""
        return draw(self.cpu_rng)


class GraphRNG(StepRNG):
    """Makes the decisions of a step before it runs, because they select the CUDA graph to replay.

    The first step shows which decisions there are. Every step asks for the same ones, in the same order.
    """

    def __init__(self, cpu_rng: torch.Generator) -> None:
        super().__init__(cpu_rng)
        self._known: list[Decide] = []
        self._decided: Iterator[bool] = iter(())

    def decision(self, draw: Decide) -> bool:
        decided = next(self._decided, None)
        if decided is None:
            self._known.append(draw)
            decided = draw(self.cpu_rng)
        return decided

    def decide(self) -> tuple[bool, ...]:
        """Make the known decisions of the next step, and return them."""
        decisions = tuple(draw(self.cpu_rng) for draw in self._known)
        self._decided = iter(decisions)
        return decisions
