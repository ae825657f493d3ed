"""Worker processes that read ahead."""

import signal
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

# --num_threads is the user's choice, and the published 4 is above the cores of many a machine.
warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes")


def read_ahead(source: Dataset, places: Iterable, num_threads: int, **settings: Any) -> DataLoader:
    """What `source` has at each of `places`, in order, as it comes from there.

    Args:
        num_threads: worker processes that read, 0 to read in this one when it is asked for.
        settings: of the DataLoader, further ones.
    """
    return DataLoader(
        source,
        batch_size=None,  # the places are those of whole batches, or of single pictures
        sampler=places,
        collate_fn=_as_it_is,
        num_workers=num_threads,
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),  # keeps torch from advancing the global generator at each epoch
        **settings,
    )


def ignore_interrupts(worker: int) -> None:
    """Leaves Ctrl-C and SIGTERM, which terminals, schedulers and torchrun send to the workers as well, to the program that
    they work for."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(read: Any) -> Any:
    return read
