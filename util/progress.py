"""Where the run is, on a terminal: epoch, time left, images per second, the latest losses."""

import sys
from collections.abc import Mapping

from tqdm import tqdm

# Always images per second, never tqdm's "s/image" of slow runs: one unit for every machine.
FIGURES = "{percentage:3.0f}% [{remaining} left, {rate_noinv_fmt}]{postfix}"
BAR_FORMAT = "{desc} |{bar:16}| " + FIGURES
NARROW_FORMAT = "{desc} " + FIGURES
NARROW = 60  # columns; below, the bar would leave no room for the time left


class Progress:
    """A bar over the images of all epochs of a run, on standard error.

    Drawn on a terminal only; where standard error is a file or a pipe, lines come out plain and nothing else does.
    """

    def __init__(self, first_epoch: int, last_epoch: int, images_per_epoch: int) -> None:
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch
        self.images_per_epoch = images_per_epoch
        self.bar = tqdm(
            total=(last_epoch - first_epoch + 1) * images_per_epoch,
            unit=" images",
            bar_format=BAR_FORMAT,
            dynamic_ncols=True,
            disable=None,  # None: disabled unless standard error is a terminal
        )
        if not self.bar.disable and (self.bar.ncols or NARROW) < NARROW:
            self.bar.bar_format = NARROW_FORMAT

    def start_epoch(self, epoch: int, images_done: int = 0) -> None:
        """Names the epoch and stands behind its first `images_done` images, also when the one before was shorter than
        announced."""
        self.bar.set_description_str(f"epoch {epoch}/{self.last_epoch}", refresh=False)
        behind = (epoch - self.first_epoch) * self.images_per_epoch + images_done
        if self.bar.n == 0:
            self.bar.initial = self.bar.n = self.bar.last_print_n = behind  # done by an earlier start: no measure of speed
        else:
            self.advance(behind - self.bar.n)

    def advance(self, images: int) -> None:
        """Counts images that have been trained on."""
        self.bar.update(images)

    def show_losses(self, losses: Mapping[str, float]) -> None:
        """Puts the latest losses behind the bar, as far as the terminal is wide."""
        self.bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in losses.items()), refresh=False)

    def say(self, line: str) -> None:
        """Prints a line on standard output, above the bar where there is one. Any thread may speak."""
        tqdm.write(line)
        sys.stdout.flush()  # so that `tail -f` on a file shows it now

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self.bar.close()
