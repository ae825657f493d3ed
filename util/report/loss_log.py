"""The losses of a run as text: one line in the published shape, on the console and in `loss_log.txt`."""

import time
from collections.abc import Mapping
from pathlib import Path


def format_losses(
    epoch: int, iters: int, seconds_per_image: float, data_seconds_per_image: float, losses: Mapping[str, float]
) -> str:
    """One line of the log, in the shape that scripts written for the published code read.

    Args:
        epoch: counted from 1.
        iters: images seen so far in this epoch.
        seconds_per_image: time spent on a step, per image.
        data_seconds_per_image: time spent waiting for data, per image.
        losses: published names and values.
    Returns:
        `(epoch: 1, iters: 100, time: 0.123, data: 0.004) G_GAN: 0.562 D_real: 0.131 `, without a line end.
    """
    head = f"(epoch: {epoch}, iters: {iters}, time: {seconds_per_image:.3f}, data: {data_seconds_per_image:.3f}) "
    return head + "".join(f"{name}: {value:.3f} " for name, value in losses.items())


class LossLog:
    """A text file that only grows: a header with the date for every start of the run, then one line per report."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.write(f"================ Training Loss ({time.ctime()}) ================")

    def write(self, line: str) -> None:
        """Appends a line. The file is opened anew each time, so that a killed run has lost nothing."""
        with self.path.open("a", encoding="utf-8") as log:
            log.write(line + "\n")
