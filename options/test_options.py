"""Options of test.py."""

from argparse import ArgumentParser, Namespace

from options.base_options import BaseOptions
from util.cli import positive_int, set_declared_defaults


class TestOptions(BaseOptions):
    """Options of testing: --load_size is --crop_size unless it is set, so that whole images are not enlarged."""

    __test__ = False  # otherwise pytest collects the class because of its name

    is_train = False
    description = "Translate images with a trained model and write a results page."

    def initialize(self, parser: ArgumentParser) -> None:
        super().initialize(parser)
        group = parser.add_argument_group("testing")
        group.add_argument("--results_dir", default="./results/", help="folder of results")
        group.add_argument("--eval", action="store_true", help="eval mode: no dropout, running statistics in batch norm")
        group.add_argument(
            "--ema",
            action="store_true",
            help="use the moving average of the generator's weights, *_net_G_ema.pth, of a training with --ema DECAY",
        )
        group.add_argument("--num_test", type=positive_int, default=50, help="maximum number of images to translate")
        set_declared_defaults(parser, load_size=None)

    def finalize(self, opt: Namespace) -> None:
        if opt.load_size is None:
            opt.load_size = opt.crop_size
        super().finalize(opt)
