"""Progress bar of a run on a terminal: epoch, remaining time, images per second, the latest losses."""

import sys
from collections.abc import Mapping

from tqdm import tqdm

from util.terminal import print_line
from util.train_log import format_losses, format_losses_short, format_short

# Always images per second: for slow runs, tqdm would switch to seconds per image. With the losses these are 80 columns.
BAR_FORMAT = "{desc} {percentage:.0f}% {remaining} left {rate_noinv_fmt}"
WIDE_FORMAT = "{desc} |{bar:16}| {percentage:.0f}% {remaining} left {rate_noinv_fmt}"
WIDE = 100  # columns
NOTABLE_DATA_SHARE = 0.1  # of the time of a step


class Progress:
    """Shows a bar over the images of all epochs of a run on standard error.

    The bar is disabled unless standard error is a terminal. Lines of losses are short if standard output is a terminal.
    """

    def __init__(self, first_epoch: int, last_epoch: int, images_per_epoch: int) -> None:
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch
        self.images_per_epoch = images_per_epoch
        self.is_terminal = sys.stdout.isatty()
        self.bar = tqdm(
            total=(last_epoch - first_epoch + 1) * images_per_epoch,
            unit="",
            bar_format=BAR_FORMAT,
            dynamic_ncols=True,
            disable=None,  # None: disabled unless standard error is a terminal
        )
        is_wide = not self.bar.disable and (self.bar.ncols or WIDE) >= WIDE
        self.bar_format = self.bar.bar_format = WIDE_FORMAT if is_wide else BAR_FORMAT

    def start_epoch(self, epoch: int, images_done: int = 0) -> None:
        """Set the epoch, and move the bar behind its first `images_done` images.

        This also corrects the bar if the previous epoch was shorter than expected.
        """
        self.bar.set_description_str(f"{epoch}/{self.last_epoch}", refresh=False)
        position = (epoch - self.first_epoch) * self.images_per_epoch + images_done
        if self.bar.n == 0:
            self.bar.initial = self.bar.n = self.bar.last_print_n = position  # before the resume: not part of the rate
        else:
            self.advance(position - self.bar.n)

    def advance(self, images: int) -> None:
        """Count images that were trained on."""
        self.bar.update(images)

    def log_losses(
        self, epoch: int, iters: int, seconds_per_image: float, data_seconds_per_image: float, losses: Mapping[str, float]
    ) -> None:
        """Print a line of losses, short on a terminal and else as in loss_log.txt, and show the losses in the bar."""
        shown = format_losses_short(losses)
        self.bar.bar_format = f"{self.bar_format}  {shown}"
        if not self.is_terminal:
            print_line(format_losses(epoch, iters, seconds_per_image, data_seconds_per_image, losses))
            return
        share = data_seconds_per_image / max(seconds_per_image + data_seconds_per_image, 1e-9)
        data = f" ({share:.0%} data)" if share > NOTABLE_DATA_SHARE else ""
        seconds = format_short(seconds_per_image + data_seconds_per_image)
        print_line(f"epoch {epoch} image {iters}  {seconds} s{data}  {shown}")

    def close(self) -> None:
        """Close the bar and leave it on the terminal."""
        self.bar.close()
