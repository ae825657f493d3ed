"""Random numbers that follow from the seed and touch nobody else's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In the body PyTorch's global CPU generator starts from `seed`; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU's generator as well
        yield
