"""Random number generators of a training step.

Most samples stay on the device. A sample whose value the program itself reads, such as FastCUT's flip, comes from a
generator on the CPU, because reading a value from a GPU waits for it. All samples of a step have the same order, whether the
step is captured as a CUDA graph (util/runtime/cuda_graph.py) or not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def fork_rng_seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's global CPU generator within the body, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the generator of every GPU as well
        yield


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """Return the seed for the random samples of a step.

    It depends on the arguments alone, so that a resumed run has no random state to restore.

    Args:
        seed: value of --seed.
        step: number of the step, from 0.
        process: rank, if the samples must differ between processes.
    """
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0])


CoinFlip = Callable[[torch.Generator], bool]


class StepRNG:
    """Random samples of a training step.

    Attributes:
        device_rng: generator on the device, for samples that stay there.
        cpu_rng: generator on the CPU, for samples that the program itself reads: reading from a GPU would wait for it.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device_rng = torch.Generator(device).manual_seed(seed)
        self.cpu_rng = torch.Generator().manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Seed both generators."""
        self.device_rng.manual_seed(seed)
        self.cpu_rng.manual_seed(seed)

    def coin_flip(self, sample: CoinFlip) -> bool:
        """Return `sample(cpu_rng)`, which selects one of the branches of a step."""
        return sample(self.cpu_rng)


class GraphRNG(StepRNG):
    """Flip the coins of a step before it runs, because they select the CUDA graph to replay.

    The first step shows which coins there are. Every step flips the same ones, in the same order.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        super().__init__(device, seed)
        self._known: list[CoinFlip] = []
        self._flipped: Iterator[bool] = iter(())

    def coin_flip(self, sample: CoinFlip) -> bool:
        flipped = next(self._flipped, None)
        if flipped is None:
            self._known.append(sample)
            flipped = sample(self.cpu_rng)
        return flipped

    def flip_in_advance(self) -> tuple[bool, ...]:
        """Flip the known coins of the next step, and return the results."""
        results = tuple(sample(self.cpu_rng) for sample in self._known)
        self._flipped = iter(results)
        return results
