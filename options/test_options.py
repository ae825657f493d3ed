"""The options of test.py."""

from argparse import ArgumentParser, Namespace

from options.base_options import BaseOptions
from util.cli import positive_int, set_declared_defaults


class TestOptions(BaseOptions):
    __test__ = False  # the name says what it is for; pytest shall not take it for a test

    is_train = False
    description = "Translates images with a trained model, onto a page."

    def initialize(self, parser: ArgumentParser) -> None:
        super().initialize(parser)
        group = parser.add_argument_group("test")
        group.add_argument("--results_dir", default="./results/", help="where results go")
        group.add_argument("--eval", action="store_true", help="running statistics and no dropout, for batch norm")
        group.add_argument(
            "--ema",
            action="store_true",
            help="test the generator's moving average, *_net_G_ema.pth, which training with --ema DECAY has kept",
        )
        group.add_argument("--num_test", type=positive_int, default=50, help="how many images to translate")
        set_declared_defaults(parser, load_size=None)

    def finalize(self, opt: Namespace) -> None:
        if opt.load_size is None:
            opt.load_size = opt.crop_size
        super().finalize(opt)
