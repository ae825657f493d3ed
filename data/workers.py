"""Worker processes that prefetch items of a dataset.

Each worker sends its results through a pipe. PyTorch's DataLoader uses shared memory instead. If /dev/shm is full, or small
as in a container, its workers fail in a background thread, and the program waits forever.
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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from util.errors import EnvironmentFailure
from util.signals import STOP_SIGNALS

POLL_INTERVAL = 0.2  # seconds between two calls of `while_waiting`
JOIN_TIMEOUT = 1.0  # seconds


class WorkerDiedError(Exception):
    """A worker process ended early, for example because the system killed it when memory ran out."""


class WorkerError(Exception):
    """An unexpected exception in a worker. The message is its traceback."""


class Workers:
    """Read the items of `source` for given keys, in order.

    Args:
        source: map-style dataset; its items must be picklable.
        num_workers: number of worker processes, 0 to read in this process when an item is requested.
        prefetch_factor: number of items that each worker prefetches.
        start_method: start method of multiprocessing; None for the default of the system.
        while_waiting: called before each item, and several times a second while waiting for it; may raise.
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

    def read(self, keys: Iterable[Any]) -> Iterator[Any]:
        """Yield the item of each key.

        The workers stay alive for the next call. Closing the iterator before its end stops them.

        Raises:
            WorkerDiedError: the worker of the next item died.
            WorkerError: a worker raised an unexpected exception.
            EnvironmentFailure: a process cannot be started.
        """
        if self.num_workers == 0:
            for key in keys:
                self.while_waiting()
                yield self.source[key]
            return
        if not self._workers:
            self._start()
        remaining, pending, requests = iter(keys), deque[_Worker](), 0
        try:
            while True:
                while len(pending) < self.num_workers * self.prefetch_factor:
                    try:
                        key = next(remaining)
                    except StopIteration:
                        break
                    worker = self._workers[requests % self.num_workers]
                    worker.request(key)
                    pending.append(worker)
                    requests += 1
                if not pending:
                    return
                item = pending[0].receive(self.while_waiting)
                pending.popleft()
                yield item
        finally:
            if pending:
                self.close()

    def close(self) -> None:
        """Stop the worker processes. The next `read` starts new ones."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(JOIN_TIMEOUT)  # a process that waits for a dead network share cannot be killed
        self._workers = []

    def _start(self) -> None:
        """Start all processes, then all threads, because a process forked next to threads may inherit a held lock."""
        can_block = hasattr(signal, "pthread_sigmask")
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS) if can_block else set()
        try:
            self._workers = [_Worker(self.source, self._context) for _ in range(self.num_workers)]
        except OSError as error:
            raise EnvironmentFailure(
                f"--num_threads: a worker process cannot be started ({error.strerror}). Use a smaller value (0: no workers)."
            ) from None
        finally:
            if can_block:
                signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
        for worker in self._workers:
            worker.thread.start()


class _Worker:
    """A worker process, and the thread that receives its results."""

    def __init__(self, source: Dataset, context: Any) -> None:
        self.connection, worker_connection = context.Pipe()
        self.process = context.Process(target=_run_worker, args=(source, worker_connection, self.connection), daemon=True)
        self.process.start()
        weakref.finalize(self, self.process.kill)  # also at exit, where Python would send SIGTERM, which workers ignore
        worker_connection.close()  # so that the pipe closes when the worker dies
        self.messages = queue.SimpleQueue[bytes | None]()
        self.thread = threading.Thread(target=_receive_messages, args=(self.connection, self.messages), daemon=True)

    def request(self, key: Any) -> None:
        """Send the key of an item to read. Does not block for long, because the thread empties the worker's pipe."""
        with suppress(OSError):  # a dead worker is reported by `receive`
            self.connection.send(key)

    def receive(self, while_waiting: Callable[[], None]) -> Any:
        """Return the next item. Raise WorkerDiedError, or WorkerError with the exception of the worker."""
        while True:
            while_waiting()
            try:
                message = self.messages.get(timeout=POLL_INTERVAL)
                break
            except queue.Empty:
                continue
        if message is None:
            raise WorkerDiedError
        item, error = pickle.loads(message)
        if error is not None:
            raise error
        return item


def _receive_messages(connection: Connection, messages: queue.SimpleQueue[bytes | None]) -> None:
    """Move the messages of a worker from its pipe to the queue. None marks the end."""
    try:
        while True:
            messages.put(connection.recv_bytes())
    except (EOFError, OSError):
        messages.put(None)


def _run_worker(source: Dataset, connection: Connection, parent_connection: Connection) -> None:
    """Read items until the main process closes the pipe or ends.

    A forked worker inherits the main process's end of its own pipe and of the pipes of earlier workers. It closes its own.
    When the main process ends, the last worker's pipe is therefore closed, then that of the worker before it, and so on.
    """
    parent_connection.close()
    for number in STOP_SIGNALS:  # handled by the main process; terminals and schedulers send them to workers as well
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        while True:
            key = connection.recv()
            try:
                message = _dumps((source[key], None))
            except MemoryError as error:
                message = _dumps((None, MemoryError(str(error))))
            except Exception:
                message = _dumps((None, WorkerError(traceback.format_exc())))
            connection.send_bytes(message)


class _Pickler(pickle.Pickler):
    """Pickle tensors as arrays, because PyTorch would send them through shared memory."""

    def reducer_override(self, value: Any) -> Any:
        return (_tensor, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def _dumps(value: Any) -> memoryview:
    file = BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getbuffer()
