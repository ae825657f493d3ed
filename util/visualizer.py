"""What a training loop tells its user: bar, lines, logs, page and live view behind one object."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from util.html.training_page import NullTrainingPage, TrainingPage
from util.loggers.base import Logger, TrainingPosition
from util.progress import Progress
from util.runtime.distributed import world_size
from util.train_log import LossLog, MetricsLog, format_losses


class StepTimer:
    """Adds up both over the images since the last report.

    Only the wall clock is read: no device is synchronized for its sake. What a GPU is still busy with is paid for by
    whatever waits for its results next, such as reading the losses, so that the mean over an interval is right.
    """

    def __init__(self) -> None:
        self.waiting = 0.0
        self.working = 0.0
        self.images = 0
        self.lap_began = time.perf_counter()

    def begin(self) -> None:
        """Begins the wait for a batch; what came before counts as neither."""
        self._lap()

    def data_ready(self, images: int) -> None:
        """Ends the wait: a batch of so many images is there."""
        self.waiting += self._lap()
        self.images += images

    def step_end(self) -> None:
        """Ends the work on a batch and begins the wait for the next."""
        self.working += self._lap()

    def pop_averages(self) -> tuple[float, float]:
        """Called within a step: seconds of work and of waiting per image since the last call."""
        self.step_end()
        images = max(1, self.images)
        means = self.working / images, self.waiting / images
        self.waiting = self.working = 0.0
        self.images = 0
        return means

    def _lap(self) -> float:
        began, self.lap_began = self.lap_began, time.perf_counter()
        return self.lap_began - began


class Visualizer:
    """Reports on the epochs of a run, from `first_epoch` to `last_epoch`, counted from 1.

    Writes `<run_dir>/loss_log.txt`, `<run_dir>/metrics.jsonl` and, if wanted, `<run_dir>/web/index.html`.

    Args:
        run_dir: folder of the run.
        name: of the run.
        first_epoch, last_epoch: greater than 1 the first where another run is continued.
        images_per_epoch: that the bar counts on; an epoch may turn out shorter.
        web_page: whether to keep a page of images.
        live_view: where to show the run while it lasts; `LoggerGroup([])` for nowhere.
        image_width: shown width of an image on the page in pixels, roughly.
    """

    def __init__(
        self,
        run_dir: Path,
        name: str,
        first_epoch: int,
        last_epoch: int,
        images_per_epoch: int,
        web_page: bool,
        live_view: Logger,
        image_width: int = 256,
    ) -> None:
        self.images_per_epoch = images_per_epoch
        self.live_view = live_view
        self.page = (
            TrainingPage(run_dir / "web", name, first_epoch, last_epoch, image_width) if web_page else NullTrainingPage()
        )
        self.log = LossLog(run_dir / "loss_log.txt")
        self.metrics = MetricsLog(run_dir / "metrics.jsonl")
        self.progress = Progress(first_epoch, last_epoch, images_per_epoch)
        self.times = StepTimer()
        self.current_epoch = first_epoch
        self.images = 0  # of the current epoch

    def __enter__(self) -> Self:
        self.live_view.start(self.say)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live_view.close()
        self.progress.close()

    def epoch(self, epoch: int, batches: Iterable[Mapping[str, Any]], images_done: int = 0) -> Iterator[Mapping[str, Any]]:
        """Hands on the batches of an epoch, and counts and times their images: `len(batch["A"])` for each of the processes
        that share a batch. `images_done` come before them, where a run goes on in the midst of an epoch."""
        self.current_epoch = epoch
        self.images = images_done
        self.metrics.truncate_after(self._moment())
        self.progress.start_epoch(epoch, images_done)
        self.times.begin()
        for batch in batches:
            images = len(batch["A"]) * world_size()
            self.images += images
            self.times.data_ready(images)
            yield batch
            self.times.step_end()
            self.progress.advance(images)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """To be entered within a step: the time that the body takes counts neither as work nor as waiting."""
        self.times.step_end()
        yield
        self.times.begin()

    def losses(self, losses: Mapping[str, float], learning_rate: float) -> None:
        """Reports the losses of the current step: a line on the console and in the log, and their curves."""
        seconds, data_seconds = self.times.pop_averages()
        line = format_losses(self.current_epoch, self.images, seconds, data_seconds, losses)
        self.progress.show_losses(losses)
        self.say(line)
        self.log.write(line)
        self.metrics.add(
            self._moment(),
            {
                "learning_rate": learning_rate,
                "seconds_per_image": round(seconds, 6),
                "data_seconds_per_image": round(data_seconds, 6),
                "losses": losses,
            },
        )
        self.live_view.plot("losses", self._moment(), losses)

    def evaluation(self, figures: Mapping[str, float], taken_with: Sequence[Mapping[str, Any]] = ()) -> None:
        """Reports how good the run is now, such as {"FID": 61.7}: in metrics.jsonl, with how the figures were taken where
        that is told, and as curves on page and live view."""
        details = {"taken_with": list(taken_with)} if taken_with else {}
        self.metrics.add(self._moment(), {"evaluation": figures, **details})
        self.live_view.plot("evaluation", self._moment(), figures)

    def visuals(self, visuals: Mapping[str, torch.Tensor], to_page: bool) -> None:
        """Shows the first image of each tensor (N, C, H, W) in [-1, 1]: live, and on the page when asked."""
        if not visuals:  # the run goes on at the very end of an epoch, and has taken no step yet
            return
        self.live_view.images(self._moment(), visuals)
        if to_page:
            self.page.update(self.current_epoch, visuals, self.metrics.records)

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        self.progress.say(line)

    def _moment(self) -> TrainingPosition:
        images = (self.current_epoch - 1) * self.images_per_epoch + self.images
        return TrainingPosition(self.current_epoch, images / self.images_per_epoch, images)


class SilentVisualizer:
    """Stands in for a `Visualizer`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Does nothing."""

    def epoch(self, epoch: int, batches: Iterable[Mapping[str, Any]], images_done: int = 0) -> Iterator[Mapping[str, Any]]:
        """Hands on the batches."""
        yield from batches

    def losses(self, losses: Mapping[str, float], learning_rate: float) -> None:
        """Does nothing."""

    def aside(self) -> AbstractContextManager[None]:
        """Measures no time."""
        return nullcontext()

    def evaluation(self, figures: Mapping[str, float], taken_with: Sequence[Mapping[str, Any]] = ()) -> None:
        """Does nothing."""

    def visuals(self, visuals: Mapping[str, torch.Tensor], to_page: bool) -> None:
        """Does nothing."""

    def say(self, line: str) -> None:
        """Does nothing."""
