"""Logger interface, and the base class of loggers that do their slow work in a background thread."""

import threading
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
from PIL import Image

from util.images import tensor2im


@dataclass(frozen=True)
class TrainingPosition:
    """Progress of a run.

    Attributes:
        epoch: current epoch, counted from 1.
        epochs_done: epochs as a fraction: 2.4 is two fifths into epoch 3.
        images: training images so far, counting each earlier epoch as the whole dataset.
    """

    epoch: int
    epochs_done: float
    images: int


class Logger(ABC):
    """Shows scalars and images of a run. Every method returns at once, and none raises because of the receiver."""

    @staticmethod
    @abstractmethod
    def add_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
        """Declare the options of this logger."""

    @classmethod
    @abstractmethod
    def from_options(cls, opt: Namespace, run_dir: Path) -> Self | None:
        """Return the logger of a run, or None if the options do not request it."""

    @abstractmethod
    def start(self, print_fn: Callable[[str], None]) -> None:
        """Start logging. `print_fn` prints a line for the user; it may be called from another thread."""

    @abstractmethod
    def log_scalars(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        """Append a point to each curve of a chart, such as "losses"."""

    @abstractmethod
    def log_images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        """Show the first image of each tensor (N, C, H, W) in [-1, 1]."""

    @abstractmethod
    def close(self) -> None:
        """Stop logging. Pending data may still be written for a short time."""


class LoggerGroup:
    """Forwards every call to several loggers, or to none."""

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self.loggers = loggers

    def start(self, print_fn: Callable[[str], None]) -> None:
        for logger in self.loggers:
            logger.start(print_fn)

    def log_scalars(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        for logger in self.loggers:
            logger.log_scalars(chart, position, values)

    def log_images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        for logger in self.loggers:
            logger.log_images(position, visuals)

    def close(self) -> None:
        for logger in self.loggers:
            logger.close()


MAX_QUEUED = 4000  # scalar events; the oldest are dropped
FLUSH_INTERVAL = 1.0  # seconds between two flushes of the queue

LoggedImages = tuple[TrainingPosition, Mapping[str, np.ndarray]]  # uint8 images (H, W[, 3]) by name


@dataclass(frozen=True)
class ScalarEvent:
    """One point of each curve of a chart."""

    chart: str
    position: TrainingPosition
    values: Mapping[str, float]


class LoggerBackend(Protocol):
    """Receiver of an `AsyncLogger`. Its methods are called from one background thread and may block."""

    def flush(self, events: Sequence[ScalarEvent], images: LoggedImages | None) -> None:
        """Write the data since the last call, perhaps nothing. An exception stops the logger."""

    def close(self) -> None:
        """Close the backend; called last, after all data was flushed."""


@dataclass(frozen=True)
class LogQueue:
    """Data that waits for the next flush. Both threads use only atomic, non-blocking operations.

    Attributes:
        events: pending scalars.
        images: the newest images.
        closing: set after the last item.
    """

    events: deque[ScalarEvent] = field(default_factory=lambda: deque(maxlen=MAX_QUEUED))
    images: deque[LoggedImages] = field(default_factory=lambda: deque(maxlen=1))
    closing: threading.Event = field(default_factory=threading.Event)


class AsyncLogger(Logger):
    """Base class of loggers whose backend may be slow, hang or fail without delaying training.

    The caller's thread only appends to a queue. A daemon thread takes the items out and waits for the backend.

    Attributes:
        package: name of the optional package that the backend imports.
        close_timeout: seconds that `close` waits for pending data.
    """

    package: ClassVar[str]
    close_timeout: ClassVar[float]

    def __init__(self) -> None:
        self.queue = LogQueue()
        self.thread: threading.Thread | None = None

    @abstractmethod
    def open_backend(self, print_fn: Callable[[str], None]) -> LoggerBackend:
        """Import the package and create the backend, without blocking. Raise ImportError if it is not installed."""

    def start(self, print_fn: Callable[[str], None]) -> None:
        """Start the thread, or print that the package is not installed."""
        # Import here, not in the thread: a data loader that forks its workers during an import copies the import lock in
        # its locked state. PIL imports its file formats on first use, so this happens here as well.
        Image.preinit()
        self._print_fn = print_fn
        try:
            backend = self.open_backend(self._print)
        except ImportError:
            print_fn(
                f"{self.package} is not installed: training continues without it. "
                f"Install it with `pip install {self.package}`."
            )
            return
        self.thread = threading.Thread(target=self._run, args=(backend,), name=self.package, daemon=True)
        self.thread.start()

    def log_scalars(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        """Append a point to each curve of a chart, such as "losses"."""
        self.queue.events.append(ScalarEvent(chart, position, dict(values)))

    def log_images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        """Show the first image of each tensor (N, C, H, W) in [-1, 1], unless newer images come before the next flush."""
        self.queue.images.append((position, {name: tensor2im(tensor) for name, tensor in visuals.items()}))

    def close(self) -> None:
        """Wait at most `close_timeout` seconds for pending data."""
        self.queue.closing.set()
        if self.thread is not None:
            self.thread.join(self.close_timeout)

    def _run(self, backend: LoggerBackend) -> None:
        try:
            self._flush(backend)
            while not self.queue.closing.wait(FLUSH_INTERVAL):
                self._flush(backend)
            self._flush(backend)
            backend.close()
        except Exception as error:  # any error of the package, its server or the disk: training continues
            self._print(f"{self.package} stopped: training continues without it ({error})")

    def _flush(self, backend: LoggerBackend) -> None:
        events = []
        while self.queue.events:
            events.append(self.queue.events.popleft())
        backend.flush(events, self.queue.images.popleft() if self.queue.images else None)

    def _print(self, line: str) -> None:
        # Not while the process may be exiting: a thread killed while printing can leave standard output locked.
        if not self.queue.closing.is_set():
            self._print_fn(line)
