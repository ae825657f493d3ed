"""Output of a training run: progress bar, log files, training page and loggers behind one object."""

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from util.browser import open_page
from util.channel_view import ChannelView
from util.errors import UserError, is_out_of_memory
from util.html.fixed_samples import FixedSamples, SampleSection
from util.html.page import captions
from util.html.training_page import RUNNING, TrainingPage, describe_end
from util.loggers import create_loggers
from util.loggers.base import LoggerGroup, TrainingPosition
from util.progress import Progress
from util.runtime.cpu_contention import CPUContention
from util.runtime.distributed import is_main_process, world_size
from util.runtime.image_counter import ImageCounter
from util.terminal import print_line
from util.timing import Pace, StepTimer, format_duration
from util.train_log import LossLog, MetricsLog, format_losses, truncate_loss_log
from util.version import ProgramVersion, program_version


class Visualizer:
    """Prints and logs the epochs of a run, from `first_epoch` to `last_epoch`.

    Writes `<run_dir>/loss_log.txt`, `<run_dir>/metrics.jsonl` and, if requested, `<run_dir>/web/index.html`.
    In distributed training only the main process logs; on the other ranks every method does nothing.

    Args:
        run_dir: folder of the run.
        name: name of the run.
        first_epoch: counted from 1; greater than 1 if a run is resumed.
        last_epoch: last epoch of the run.
        images_per_epoch: expected images per epoch; an epoch may be shorter.
        web_page: True: write a training page.
        loggers: where to log besides the files.
        resumed_after: images of `first_epoch` that a resumed run has trained on. Later lines of its loss log are removed.
            None: not a resumed run.
        program: version of the program, for metrics.jsonl; None: leave it out.
        view: which channels of an image are shown.
        samples: fixed samples of the page; None: there are none.
        opens_page: open the page in a browser at the start.
        image_width: approximate displayed width of an image of the page in pixels.
        page_options: further arguments of `TrainingPage`.
    """

    def __init__(
        self,
        run_dir: Path,
        name: str,
        first_epoch: int,
        last_epoch: int,
        images_per_epoch: int,
        web_page: bool,
        loggers: LoggerGroup,
        resumed_after: int | None = None,
        program: ProgramVersion | None = None,
        view: ChannelView | None = None,
        samples: FixedSamples | None = None,
        opens_page: bool = False,
        image_width: int = 256,
        **page_options: Any,
    ) -> None:
        self.is_main = is_main_process()
        if not self.is_main:
            return
        self.last_epoch = last_epoch
        self.images_per_epoch = images_per_epoch
        self.loggers = loggers
        self.view = view or ChannelView()
        self.opens_page = opens_page
        self.page = None
        if web_page:
            web_dir = run_dir / "web"
            section = SampleSection(web_dir, samples, first_epoch, self.view, image_width) if samples else None
            self.page = TrainingPage(web_dir, name, first_epoch, last_epoch, image_width, samples=section, **page_options)
        if resumed_after is not None:
            truncate_loss_log(first_epoch, resumed_after, run_dir / "loss_log.txt")
        self.loss_log = LossLog(run_dir / "loss_log.txt")
        self.metrics_log = MetricsLog(run_dir / "metrics.jsonl", program)
        self.progress = Progress(first_epoch, last_epoch, images_per_epoch)
        self.timer = StepTimer()
        self.cpu_contention = CPUContention()
        self.current_epoch = first_epoch
        self.images = 0  # of the current epoch
        self.is_estimated = False
        self.epoch_start = time.perf_counter()
        self.pace = Pace()

    @classmethod
    def from_options(
        cls,
        opt: Namespace,
        run_dir: Path,
        counter: ImageCounter,
        resumed: bool,
        images_per_epoch: int,
        view: ChannelView,
        samples: FixedSamples | None,
        method: str,
    ) -> Self:
        """Create the visualizer that the training options request, for a run of `method` at the position of `counter`."""
        roots = " and ".join(filter(None, (opt.dataroot_A, opt.dataroot_B))) or opt.dataroot
        return cls(
            run_dir,
            opt.name,
            counter.epoch,
            opt.n_epochs + opt.n_epochs_decay,
            images_per_epoch,
            web_page=not opt.no_html,
            loggers=create_loggers(opt, run_dir),
            resumed_after=counter.images_in_epoch if resumed else None,
            program=program_version(),
            view=view,
            samples=samples,
            opens_page=opt.open,
            image_width=opt.display_winsize,
            facts={
                "method": method,
                "data": f"{roots}, {images_per_epoch} images per epoch",
                **({} if opt.direction == "AtoB" else {"direction": opt.direction}),
            },
            captions=captions(opt.direction[-1], paired=opt.dataset_mode == "aligned"),
        )

    def __enter__(self) -> Self:
        if self.is_main:
            self.loggers.start(self.print)
            self._write_page()
            if self.opens_page and self.page:
                open_page(self.page.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.is_main:
            return
        self.loggers.close()
        self.progress.close()
        with suppress(OSError, UserError) if error else nullcontext():  # a full disk must not hide the error
            if error is None:
                self._update_samples(is_last=True)
            self._write_page(*describe_end(error))

    def end(self, lines: Iterable[str]) -> None:
        """Close the progress bar, and print the last lines below it. They are not broken: commands can be copied."""
        if self.is_main:
            self.progress.close()
            print(*lines, sep="\n", flush=True)

    def iterate(self, epoch: int, batches: Iterable[Mapping[str, Any]], images_done: int = 0) -> Iterator[Mapping[str, Any]]:
        """Yield the batches of an epoch; count their images and measure times.

        Args:
            epoch: counted from 1.
            batches: the local batches. `len(batch["A"])` is the batch size of this process.
            images_done: images of the epoch that were trained on before the run was resumed.
        """
        if not self.is_main:
            yield from batches
            return
        self.current_epoch = epoch
        self.images = images_done
        self.epoch_start = time.perf_counter()
        self.metrics_log.truncate_after(self._position())
        self.progress.start_epoch(epoch, images_done)
        self.timer.start()
        for batch in batches:
            images = len(batch["A"]) * world_size()
            self.images += images
            self.timer.data_ready(images)
            yield batch
            self.timer.step_end()
            self.pace.advance(images)
            self.progress.advance(images)

    @contextmanager
    def pause_timer(self) -> Iterator[None]:
        """Exclude the body of a `with` statement inside a step from the measured times."""
        if not self.is_main:
            yield
            return
        self.timer.step_end()
        yield
        self.timer.start()

    def log_losses(self, losses: Mapping[str, float], learning_rate: float) -> None:
        """Log the losses of the current step: print a line, and write it to the log files and the loggers."""
        if not self.is_main:
            return
        seconds, data_seconds = self.timer.pop_averages()
        logged = self.current_epoch, self.images, seconds, data_seconds, losses
        self.progress.log_losses(*logged)
        if not self.is_estimated:
            self._print_estimate(seconds + data_seconds)
        if notice := self.cpu_contention.check():
            self.print(notice)
        self.loss_log.write(format_losses(*logged))
        self.metrics_log.add(
            self._position(),
            {
                "learning_rate": learning_rate,
                "seconds_per_image": round(seconds, 6),
                "data_seconds_per_image": round(data_seconds, 6),
                "losses": losses,
            },
        )
        self.loggers.log_scalars("losses", self._position(), losses)
        if self.page and self.page.is_due:
            self._write_page()

    def log_metrics(self, values: Mapping[str, float], results: Sequence[Mapping[str, Any]] = ()) -> None:
        """Log metrics at the current step to metrics.jsonl, the page and the loggers.

        Args:
            values: values by the names of their curves, such as {"FID": 61.7}.
            results: full results with direction and settings (`MetricResult.to_row`), stored in metrics.jsonl.
        """
        if not self.is_main:
            return
        details = {"taken_with": list(results)} if results else {}
        self.metrics_log.add(self._position(), {"evaluation": values, **details})
        self.loggers.log_scalars("evaluation", self._position(), values)

    def log_images(self, visuals: Mapping[str, torch.Tensor], to_page: bool) -> None:
        """Show the first image of each tensor (N, C, H, W) in [-1, 1] in the loggers, and on the page if `to_page`."""
        if not self.is_main or not visuals:  # a run resumed at the end of an epoch has no images yet
            return
        shown = self.view.tensors(visuals)
        self.loggers.log_images(self._position(), shown)
        if to_page and self.page:
            self.page.add_images(self.current_epoch, shown)
            self._update_samples()
            self._write_page()

    @property
    def lacks_images(self) -> bool:
        """Return True if the page still has no images of this start of the run."""
        return self.is_main and self.page is not None and not self.page.has_images

    def _update_samples(self, is_last: bool = False) -> None:
        """Translate the fixed samples. If that fails, print a warning, and try it no more."""
        if self.page is None or self.page.samples is None:
            return
        try:
            with self.pause_timer():
                self.page.samples.update(self.current_epoch, self._position().images, is_last)
        except (UserError, RuntimeError, MemoryError) as error:
            if not isinstance(error, UserError) and not is_out_of_memory(error):
                raise
            reason = error if isinstance(error, UserError) else "out of memory"
            self.print(f"warning: the training page has no fixed samples from now on: {reason}")
            self.page.samples = None

    def _write_page(self, status: str = RUNNING, reason: str = "") -> None:
        if self.page is None:
            return
        left = self.last_epoch * self.images_per_epoch - self._position().images
        facts = {"reason": reason} if reason else {}
        if speed := self.pace.images_per_second:
            facts["speed"] = f"{speed:.3g} images/s"
            if status == RUNNING:
                facts["time left"] = format_duration(left / speed)
        self.page.write(self.metrics_log.rows, self.current_epoch, status, facts)

    def end_epoch(self, learning_rate: float, next_learning_rate: float) -> None:
        """Print the duration of the current epoch, and the learning rates of this epoch and of the next."""
        if not self.is_main:
            return
        self.print(
            f"End of epoch {self.current_epoch} / {self.last_epoch} \t "
            f"Time Taken: {time.perf_counter() - self.epoch_start:.0f} sec \t "
            f"lr {learning_rate:.7f} -> {next_learning_rate:.7f}"
        )

    def print(self, line: str) -> None:
        """Print a line above the progress bar."""
        if self.is_main:
            print_line(line)

    def _print_estimate(self, seconds_per_image: float) -> None:
        """Print once how long the run will take, unless the bar shows it."""
        self.is_estimated = True
        images = (self.last_epoch - self.current_epoch + 1) * self.images_per_epoch - self.images
        if self.progress.bar.disable and images > 0:
            duration = format_duration(images * seconds_per_image)
            self.print(f"remaining time: about {duration}, {seconds_per_image:.3f} s per image")

    def _position(self) -> TrainingPosition:
        images = (self.current_epoch - 1) * self.images_per_epoch + self.images
        return TrainingPosition(self.current_epoch, images / self.images_per_epoch, images)
