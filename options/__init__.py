"""Command-line options: `TrainOptions().parse(argv)` and `TestOptions().parse(argv)`."""

from options.test_options import TestOptions
from options.train_options import TrainOptions

__all__ = ["TestOptions", "TrainOptions"]
