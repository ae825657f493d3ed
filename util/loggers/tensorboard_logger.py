"""Live view in TensorBoard, by way of event files in the run's folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from util.loggers.base import AsyncLogger, Images, ScalarEvent

CLOSE_SECONDS = 10.0  # for the last events to be written


def tensorboard_logger(directory: Path) -> AsyncLogger:
    """A live view that writes events into `directory`, which `tensorboard --logdir` then shows."""

    def open_backend(say: Callable[[str], None]) -> TensorBoardBackend:
        return TensorBoardBackend(directory)

    return AsyncLogger("tensorboard", open_backend, CLOSE_SECONDS)


class TensorBoardBackend:
    """A `LoggerBackend` that writes events, at the number of images trained on. Raises ImportError without TensorBoard."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional, so that it may be missing

        self.directory = directory
        self.make_writer = SummaryWriter
        self.writer: Any = None

    def show(self, points: Sequence[ScalarEvent], images: Images | None) -> None:
        """Writes the points and the images."""
        moments = [point.position.images for point in points] + ([images[0].images] if images else [])
        if not moments:
            return
        if self.writer is None:
            # What an interrupted run has written after the moment at which this one takes it up is no longer shown.
            self.writer = self.make_writer(str(self.directory), purge_step=min(moments))
        for point in points:
            for name, value in point.values.items():
                self.writer.add_scalar(f"{point.chart}/{name}", value, point.position.images)
        if images:
            position, by_name = images
            for name, pixels in by_name.items():
                self.writer.add_image(name, pixels, position.images, dataformats="HWC" if pixels.ndim == 3 else "HW")
        self.writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self.writer is not None:
            self.writer.close()
