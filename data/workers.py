"""Worker processes that read ahead."""

import atexit
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

# --num_threads is the user's choice, and the published 4 is above the cores of many a machine.
warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes")

# What torch says where a worker was killed; and what comes where a batch is fetched from one that was killed just then.
DEATHS = ("DataLoader worker", "Pin memory thread")
BROKEN_CONNECTIONS = (EOFError, ConnectionError, FileNotFoundError)
# What begins the words of an exception that a living worker handed over.
HANDED_OVER = "Caught "


class WorkerDiedError(Exception):
    """A worker process has ended before its work: it was killed, by the system for want of memory, or by somebody."""


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


def received(deliveries: DataLoader) -> Iterator[Any]:
    """What the workers deliver, in order. Raises WorkerDiedError where one has died whose delivery is waited for."""
    try:
        waiting = iter(deliveries)
        if threading.current_thread() is threading.main_thread():
            # torch has a dead worker reported at once, wherever the program is: in the midst of a training step, which could
            # then neither be completed nor taken back. Without that, whoever waits for the worker notices within seconds.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield from waiting
    except (RuntimeError, *BROKEN_CONNECTIONS) as error:
        broken = isinstance(error, BROKEN_CONNECTIONS) and not str(error).startswith(HANDED_OVER)
        if deliveries.num_workers > 0 and (broken or str(error).startswith(DEATHS)):
            raise WorkerDiedError from None
        raise


@atexit.register
def end_workers() -> None:
    """Ends the workers that are left when the program ends: it would ask them with SIGTERM, which they leave to the program
    that they work for, and wait for ever."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def ignore_interrupts(worker: int) -> None:
    """Leaves Ctrl-C and SIGTERM, which terminals, schedulers and torchrun send to the workers as well, to the program that
    they work for."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(read: Any) -> Any:
    return read
