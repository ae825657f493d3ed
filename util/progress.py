"""Progress bar of a run on a terminal: epoch, remaining time, images per second, the latest losses."""

import sys
from collections.abc import Mapping

from tqdm import tqdm

# Always images per second: for slow runs, tqdm would switch to seconds per image.
RATE = "{percentage:3.0f}% [{remaining} left, {rate_noinv_fmt}]{postfix}"
BAR_FORMAT = "{desc} |{bar:16}| " + RATE
NARROW_FORMAT = "{desc} " + RATE
NARROW = 60  # columns; on a narrower terminal the bar would hide the remaining time


class Progress:
    """Shows a bar over the images of all epochs of a run on standard error.

    The bar is disabled unless standard error is a terminal; `print` then prints plain lines.
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
        """Set the epoch, and move the bar behind its first `images_done` images.

        This also corrects the bar if the previous epoch was shorter than expected.
        """
        self.bar.set_description_str(f"epoch {epoch}/{self.last_epoch}", refresh=False)
        position = (epoch - self.first_epoch) * self.images_per_epoch + images_done
        if self.bar.n == 0:
            self.bar.initial = self.bar.n = self.bar.last_print_n = position  # before the resume: not part of the rate
        else:
            self.advance(position - self.bar.n)

    def advance(self, images: int) -> None:
        """Count images that were trained on."""
        self.bar.update(images)

    def show_losses(self, losses: Mapping[str, float]) -> None:
        """Show the latest losses after the bar; tqdm cuts them at the width of the terminal."""
        self.bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in losses.items()), refresh=False)

    def print(self, line: str) -> None:
        """Print a line on standard output, above the bar. Can be called from any thread."""
        tqdm.write(line)
        sys.stdout.flush()  # for `tail -f` on a file

    def close(self) -> None:
        """Close the bar and leave it on the terminal."""
        self.bar.close()
