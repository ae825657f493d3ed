"""What a live view of a run is: something to show curves and images in that training never waits for."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from util.images import tensor2im


@dataclass(frozen=True)
class TrainingPosition:
    """A point in the life of a run.

    Attributes:
        epoch: the current one, counted from 1.
        epochs_done: with its fraction: 2.4 is two fifths into epoch 3.
        images: trained on so far, each earlier epoch counted as the whole dataset.
    """

    epoch: int
    epochs_done: float
    images: int


class Logger(Protocol):
    """Each method returns at once, whatever has become of the other side, and none raises for its sake."""

    def start(self, say: Callable[[str], None]) -> None:
        """Begins to show. `say` prints a line for the user; it may be called from another thread."""

    def plot(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        """Continues the curves of a chart, such as "losses", each under its name."""

    def images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        """Shows the first image of each tensor (N, C, H, W) in [-1, 1]."""

    def close(self) -> None:
        """Ends the view; what it has been given last may still be shown."""


class LoggerGroup:
    """Several live views at once, or none."""

    def __init__(self, views: Sequence[Logger]) -> None:
        self.views = views

    def start(self, say: Callable[[str], None]) -> None:
        for view in self.views:
            view.start(say)

    def plot(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        for view in self.views:
            view.plot(chart, position, values)

    def images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        for view in self.views:
            view.images(position, visuals)

    def close(self) -> None:
        for view in self.views:
            view.close()


MAX_QUEUED = 4000  # that wait to be shown; the oldest give way
FLUSH_INTERVAL = 1.0  # between two looks into the inbox, so that a fast run is shown in few strokes

Images = tuple[TrainingPosition, Mapping[str, np.ndarray]]  # uint8 images (H, W[, 3]) by name


@dataclass(frozen=True)
class ScalarEvent:
    """Values of the curves of one chart at a moment."""

    chart: str
    position: TrainingPosition
    values: Mapping[str, float]


class LoggerBackend(Protocol):
    """What a background view shows things on. Its methods are called from one thread, and may take as long as they like."""

    def show(self, points: Sequence[ScalarEvent], images: Images | None) -> None:
        """Shows what has come since the last call, perhaps nothing. An exception ends the view."""

    def close(self) -> None:
        """Comes last, once everything has been shown."""


@dataclass(frozen=True)
class LogQueue:
    """What waits to be shown. Both threads use only calls that are atomic and never wait.

    Attributes:
        points: of the curves.
        images: the newest ones.
        closing: set when nothing more will come.
    """

    points: deque[ScalarEvent] = field(default_factory=lambda: deque(maxlen=MAX_QUEUED))
    images: deque[Images] = field(default_factory=lambda: deque(maxlen=1))
    closing: threading.Event = field(default_factory=threading.Event)


class AsyncLogger:
    """A `Logger` on a screen that may be slow, hang or break.

    The caller's thread only puts things into the inbox. A daemon thread takes them out and does whatever waiting there is.

    Args:
        name: of the package behind the screen, which need not be installed.
        open_backend: imports that package and makes the screen, without waiting for anything; it is given a function that
            prints a line for the user. It may raise ImportError.
        close_seconds: how long the last things may take to be shown when the run ends.
    """

    def __init__(
        self, name: str, open_backend: Callable[[Callable[[str], None]], LoggerBackend], close_seconds: float
    ) -> None:
        self.name = name
        self.open_backend = open_backend
        self.close_seconds = close_seconds
        self.queue = LogQueue()
        self.thread: threading.Thread | None = None

    def start(self, say: Callable[[str], None]) -> None:
        """Starts the thread, or says that the package is not installed."""
        # Imported here and not in the thread: a data loader that forks its workers meanwhile would copy a half-done
        # import with its lock held for ever. PIL's file formats are imported on first use, so they come now as well.
        Image.preinit()
        self._say_aloud = say
        try:
            screen = self.open_backend(self._say)
        except ImportError:
            say(f"{self.name} is not installed: training goes on without it; `pip install {self.name}` brings it")
            return
        self.thread = threading.Thread(target=self._run, args=(screen,), name=self.name, daemon=True)
        self.thread.start()

    def plot(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        """Continues the curves of a chart, such as "losses", each under its name."""
        self.queue.points.append(ScalarEvent(chart, position, dict(values)))

    def images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        """Shows the first image of each tensor (N, C, H, W) in [-1, 1], unless newer ones come before it is shown."""
        self.queue.images.append((position, {name: tensor2im(tensor) for name, tensor in visuals.items()}))

    def close(self) -> None:
        """Gives the last things a moment to be shown."""
        self.queue.closing.set()
        if self.thread is not None:
            self.thread.join(self.close_seconds)

    def _run(self, screen: LoggerBackend) -> None:
        try:
            self._look(screen)
            while not self.queue.closing.wait(FLUSH_INTERVAL):
                self._look(screen)
            self._look(screen)
            screen.close()
        except Exception as error:  # whatever the package, its server or its disk come up with: training goes on
            self._say(f"{self.name} stopped: training goes on without it ({error})")

    def _look(self, screen: LoggerBackend) -> None:
        points = []
        while self.queue.points:
            points.append(self.queue.points.popleft())
        screen.show(points, self.queue.images.popleft() if self.queue.images else None)

    def _say(self, line: str) -> None:
        # Not while the process may be ending: a thread killed in the midst of printing can take standard output along.
        if not self.queue.closing.is_set():
            self._say_aloud(line)
