"""Random numbers that follow from the seed and touch nobody else's."""

from collections.abc import Iterator
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
