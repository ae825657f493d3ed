"""TensorBoard logger: event files in the run's folder."""

from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from util.loggers.base import AsyncLogger, LoggedImages, LoggerBackend, ScalarEvent


class TensorBoardLogger(AsyncLogger):
    """Writes event files into `directory`. `tensorboard --logdir` shows them."""

    package = "tensorboard"
    close_timeout = 10.0

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    @staticmethod
    def add_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
        """Declare --use_tensorboard."""
        group.add_argument(
            "--use_tensorboard", action="store_true", help="write TensorBoard event files to the run's folder"
        )

    @classmethod
    def from_options(cls, opt: Namespace, run_dir: Path) -> Self | None:
        """Return the logger if --use_tensorboard is given."""
        return cls(run_dir / "tensorboard") if opt.use_tensorboard else None

    def open_backend(self, print_fn: Callable[[str], None]) -> LoggerBackend:
        """Import TensorBoard. Raise ImportError if it is not installed."""
        return TensorBoardBackend(self.directory)


class TensorBoardBackend:
    """Writes events; their step is the number of training images. Raises ImportError if TensorBoard is not installed."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional package

        self.directory = directory
        self.make_writer = SummaryWriter
        self.writer: Any = None

    def flush(self, events: Sequence[ScalarEvent], images: LoggedImages | None) -> None:
        """Write scalars and images."""
        steps = [event.position.images for event in events] + ([images[0].images] if images else [])
        if not steps:
            return
        if self.writer is None:
            # Hide what an interrupted run wrote after the position where this one resumes.
            self.writer = self.make_writer(str(self.directory), purge_step=min(steps))
        for event in events:
            for name, value in event.values.items():
                self.writer.add_scalar(f"{event.chart}/{name}", value, event.position.images)
        if images:
            position, by_name = images
            for name, pixels in by_name.items():
                self.writer.add_image(name, pixels, position.images, dataformats="HWC" if pixels.ndim == 3 else "HW")
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
