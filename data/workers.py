"""Worker processes that read items of a dataset ahead.

Results come through a pipe of each worker. PyTorch's DataLoader uses shared memory instead: where /dev/shm is small, as in a
container, or full, its workers fail in a background thread and the program waits for ever.
"""

import multiprocessing
import pickle
import queue
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from multiprocessing.connection import Connection
from multiprocessing.util import register_after_fork
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from util.errors import EnvironmentFailure
from util.signals import STOP_SIGNALS

SECONDS_BETWEEN_CHECKS = 0.2
SECONDS_TO_END = 1.0


class WorkerDiedError(Exception):
    """A worker process ended early: killed by the system for lack of memory, or by a user."""


class WorkerError(Exception):
    """An unexpected exception in a worker, as a traceback."""


class Workers:
    """Read the items of `source` at given places, in order.

    Args:
        source: map-style dataset; items must be picklable.
        num_workers: number of worker processes, 0 to read in this process when an item is asked for.
        prefetch_factor: number of items that each worker reads ahead.
        start_method: of the processes; None for the default of the system.
        while_waiting: called several times a second while an item is waited for, and before each item; may raise.
    """

    def __init__(
        self,
        source: Dataset,
        num_workers: int,
        prefetch_factor: int = 2,
        start_method: str | None = None,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor
        self.while_waiting = while_waiting
        self._context = multiprocessing.get_context(start_method)
        self._workers: list[_Worker] = []

    def read(self, places: Iterable[Any]) -> Iterator[Any]:
        """Yield the item at each place. Workers stay alive for the next call; an iteration that is broken off ends them.

        Raises:
            WorkerDiedError: the worker of the next item died.
            EnvironmentFailure: no process can be started.
        """
        if self.num_workers == 0:
            for place in places:
                self.while_waiting()
                yield self.source[place]
            return
        if not self._workers:
            self._start()
        remaining, waiting, turn = iter(places), deque[_Worker](), 0
        try:
            while True:
                while len(waiting) < self.num_workers * self.prefetch_factor:
                    try:
                        place = next(remaining)
                    except StopIteration:
                        break
                    worker = self._workers[turn % self.num_workers]
                    worker.ask(place)
                    waiting.append(worker)
                    turn += 1
                if not waiting:
                    return
                item = waiting[0].receive(self.while_waiting)
                waiting.popleft()
                yield item
        finally:
            if waiting:
                self.close()

    def close(self) -> None:
        """End the worker processes. The next `read` starts new ones."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(SECONDS_TO_END)  # a process that waits for a dead network share cannot be killed
        self._workers = []

    def _start(self) -> None:
        """Start all processes, then all threads: a process that is forked beside threads may inherit their locks."""
        can_block = hasattr(signal, "pthread_sigmask")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS) if can_block else set()
        try:
            self._workers = [_Worker(self.source, self._context) for _ in range(self.num_workers)]
        except OSError as error:
            raise EnvironmentFailure(
                f"--num_threads: a worker process cannot be started ({error.strerror}). Use a smaller value; 0 reads "
                "without workers."
            ) from None
        finally:
            if can_block:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for worker in self._workers:
            worker.thread.start()


class _Worker:
    """A worker process, and the thread that takes in what it sends."""

    def __init__(self, source: Dataset, context: Any) -> None:
        self.connection, of_worker = context.Pipe()
        # Otherwise the workers would keep each other's pipes open, and outlive this process.
        register_after_fork(self.connection, Connection.close)
        self.process = context.Process(target=_work, args=(source, of_worker), daemon=True)
        self.process.start()
        weakref.finalize(self, self.process.kill)  # also when the program ends: Python would send SIGTERM, which is ignored
        of_worker.close()  # so that the death of the worker ends the pipe
        self.messages = queue.SimpleQueue[bytes | None]()
        self.thread = threading.Thread(target=_take_in, args=(self.connection, self.messages), daemon=True)

    def ask(self, place: Any) -> None:
        """Send the place of an item to read. Never blocks for long, because the thread empties the worker's pipe."""
        with suppress(OSError):  # a dead worker is reported when its item is waited for
            self.connection.send(place)

    def receive(self, while_waiting: Callable[[], None]) -> Any:
        """Return the next item. Raises WorkerDiedError, or WorkerError with what the worker raised."""
        while True:
            while_waiting()
            try:
                message = self.messages.get(timeout=SECONDS_BETWEEN_CHECKS)
                break
            except queue.Empty:
                continue
        if message is None:
            raise WorkerDiedError
        item, error = pickle.loads(message)
        if error is not None:
            raise error
        return item


def _take_in(connection: Connection, messages: queue.SimpleQueue[bytes | None]) -> None:
    """Empty the pipe of a worker. None is the end."""
    try:
        while True:
            messages.put(connection.recv_bytes())
    except (EOFError, OSError):
        messages.put(None)


def _work(source: Dataset, connection: Connection) -> None:
    """Read items until the program closes the pipe or ends."""
    for number in STOP_SIGNALS:  # left to the program: terminals and schedulers send them to the workers as well
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        while True:
            place = connection.recv()
            try:
                message = _dumps((source[place], None))
            except MemoryError as error:
                message = _dumps((None, MemoryError(str(error))))
            except Exception:
                message = _dumps((None, WorkerError(traceback.format_exc())))
            connection.send_bytes(message)


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays. PyTorch's own way through a pipe is shared memory."""

    def reducer_override(self, value: Any) -> Any:
        return (_tensor, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def _dumps(value: Any) -> memoryview:
    file = BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getbuffer()
