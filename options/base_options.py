"""The options that training and testing share, and how a command line becomes options."""

import os
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from data import DATASETS
from data.transforms import OPS, parse_preprocess
from models import MODELS
from models.networks import DISCRIMINATORS, GENERATORS
from models.networks.layers import INIT_FUNCTIONS, NORMS
from options.performance_options import add_performance_arguments, validate_performance
from util.cli import (
    CLIParser,
    boolean,
    float_ge_1,
    non_negative_float,
    non_negative_int,
    num_downsampling,
    positive_float,
    positive_int,
    seed,
    set_declared_defaults,
)
from util.errors import UserError
from util.runtime.device import AUTO

ARCHITECTURE = "architecture"
LONGEST_FILE_NAME = 255  # bytes, on all usual file systems


def check_name(name: str) -> None:
    """Raises UserError where `name` is no folder below the one of all runs, so that no run lies among or outside others."""
    path = Path(name)
    too_long = any(len(os.fsencode(part)) > LONGEST_FILE_NAME for part in path.parts)
    if not path.parts or path.is_absolute() or ".." in path.parts or too_long:
        raise UserError(
            f"argument --name: {name!r} names no folder below --checkpoints_dir; give a short name, such as horse2zebra_CUT"
        )


class BaseOptions:
    """Parses in stages, because options depend on options: --model and --dataset_mode bring along options of their own and
    other defaults. What the command line says beats a mode's defaults, which beat the model's, which beat those here.

    Parsing is a pure function of the command line: it looks at no file and no device.
    """

    is_train: ClassVar[bool]
    description: ClassVar[str]

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        """The options of the command line `argv`, or of the program's own where it is None.

        `explicit` in the result holds the names of the options that the command line sets. Ends the program with status 2
        and one sentence where the command line is wrong.
        """
        arguments = sys.argv[1:] if argv is None else list(argv)
        parser = self.parser(arguments)
        opt = parser.parse_args(arguments)
        try:
            self.finalize(opt)
        except UserError as error:
            parser.error(str(error))
        opt.explicit = self._explicit_options(parser, arguments)
        opt.isTrain = self.is_train
        return opt

    def parser(self, arguments: Sequence[str]) -> ArgumentParser:
        """The parser for this command line, with the options of the model and dataset that it names."""
        parser = CLIParser(
            usage="%(prog)s --dataroot FOLDER --name RUN [options]",
            description=self.description,
            epilog="--model, --dataset_mode and --CUT_mode bring options and defaults of their own: put them before --help.",
            formatter_class=ArgumentDefaultsHelpFormatter,  # all of them: they are the published ones
            add_help=False,  # not before all options are known
        )
        self.initialize(parser)

        model = MODELS[parser.parse_known_args(arguments)[0].model]
        model.modify_commandline_options(parser, self.is_train)
        set_declared_defaults(parser, **model.dependent_defaults(parser.parse_known_args(arguments)[0]))

        dataset_class = DATASETS[parser.parse_known_args(arguments)[0].dataset_mode]
        dataset_class.modify_commandline_options(parser, self.is_train)

        parser.add_argument("-h", "--help", action="help", help="show this message and exit")
        return parser

    def initialize(self, parser: ArgumentParser) -> None:
        """Declares the shared options."""
        group = parser.add_argument_group("run")
        group.add_argument("--dataroot", default="placeholder", help="folder of the images: trainA, trainB, testA, testB")
        group.add_argument("--name", default="experiment_name", help="name of the run, and of its folder")
        group.add_argument(
            "--easy_label", default="experiment_name", help="readable name for the page of results, by default --name"
        )
        group.add_argument(
            "--gpu_ids",
            default=AUTO,
            help="number of the GPU, such as 0, or of several that share the training, such as 0,1; -1 for the CPU; auto: a "
            "GPU if there is one",
        )
        group.add_argument("--checkpoints_dir", default="./checkpoints", help="where the folders of runs are")
        group.add_argument("--epoch", default="latest", help="which checkpoint to load: latest, best, or an epoch")
        group.add_argument("--suffix", default="", help="appended to the name, e.g. {model}_{netG}_size{load_size}")
        group.add_argument("--seed", type=seed, default=0, help="what every random draw follows from")
        group.add_argument("--verbose", action="store_true", help="print the networks layer by layer")

        group = parser.add_argument_group(ARCHITECTURE, "written beside the weights; test.py takes them over from there")
        group.add_argument("--model", choices=list(MODELS), default="cut", help="the method")
        group.add_argument("--input_nc", type=positive_int, default=3, help="channels of input images: 3 color, 1 gray")
        group.add_argument("--output_nc", type=positive_int, default=3, help="channels of output images")
        group.add_argument("--ngf", type=positive_int, default=64, help="width of the generator's first layer")
        group.add_argument("--ndf", type=positive_int, default=64, help="width of the discriminator's first layer")
        group.add_argument("--netD", choices=list(DISCRIMINATORS), default="basic", help="the discriminator")
        group.add_argument("--netG", choices=list(GENERATORS), default="resnet_9blocks", help="the generator")
        group.add_argument("--n_layers_D", type=num_downsampling, default=3, help="layers of --netD n_layers")
        group.add_argument("--D_patch_size", type=positive_int, default=64, help="side of the tiles of --netD tilestylegan2")
        group.add_argument("--normG", choices=list(NORMS), default="instance", help="the generator's normalization")
        group.add_argument("--normD", choices=list(NORMS), default="instance", help="the discriminator's normalization")
        group.add_argument("--no_dropout", type=boolean, nargs="?", const=True, default=True, help="no dropout in G")
        group.add_argument("--no_antialias", action="store_true", help="strided convolutions instead of blurred ones")
        group.add_argument("--no_antialias_up", action="store_true", help="transposed convolutions instead of blurred ones")
        group.add_argument(
            "--stylegan2_G_num_downsampling", type=num_downsampling, default=1, help="halvings in StyleGAN2 generators"
        )
        group.add_argument(
            "--net_size",
            type=positive_int,
            default=None,
            help="side of the images that StyleGAN2's layers are laid out for; by default that of the training images",
        )
        group.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="which way to translate")

        group = parser.add_argument_group("initialization")
        group.add_argument("--init_type", choices=list(INIT_FUNCTIONS), default="xavier", help="first weights")
        group.add_argument("--init_gain", type=non_negative_float, default=0.02, help="scale of the first weights")

        group = parser.add_argument_group("data")
        phase = "train" if self.is_train else "test"
        group.add_argument("--phase", default=phase, help="which folders to read: <phase>A and <phase>B")
        group.add_argument("--dataset_mode", choices=list(DATASETS), default="unaligned", help="how folders become batches")
        group.add_argument("--serial_batches", action="store_true", help="images in order instead of shuffled")
        group.add_argument("--num_threads", type=non_negative_int, default=4, help="processes that load images")
        group.add_argument(
            "--prefetch_factor", type=positive_int, default=2, help="batches that each of these processes reads ahead"
        )
        group.add_argument("--batch_size", type=positive_int, default=1, help="images per step, on all GPUs together")
        group.add_argument(
            "--load_size", type=positive_int, default=286, help="pixels that images are scaled to; None: as --crop_size"
        )
        group.add_argument("--crop_size", type=positive_int, default=256, help="pixels that they are then cropped to")
        group.add_argument("--max_dataset_size", type=positive_int, default=float("inf"), help="use only the first images")
        group.add_argument(
            "--preprocess",
            default="resize_and_crop",
            help=f"steps joined by _and_, out of {', '.join(OPS)}; or none",
        )
        group.add_argument("--no_flip", action="store_true", help="no mirroring at random")
        group.add_argument(
            "--random_scale_max", type=float_ge_1, default=3.0, help="how far zoom shrinks: to 1/this at most"
        )

        if self.is_train:
            group.add_argument(
                "--cache",
                metavar="GB",
                type=positive_float,
                nargs="?",
                const=4.0,
                default=None,
                help="hold decoded images in memory, in at most so many gigabytes (4 if none is given); off by default",
            )

        add_performance_arguments(parser, self.is_train)

        group = parser.add_argument_group("display")
        group.add_argument("--display_winsize", type=positive_int, default=256, help="pixels an image is shown with")

    def finalize(self, opt: Namespace) -> None:
        """Settles what follows from several options together. Raises UserError where they do not fit."""
        if opt.net_size is None:
            opt.net_size = min(opt.load_size, opt.crop_size)
        validate_performance(opt)
        steps = parse_preprocess(opt.preprocess)
        scales = {"resize", "scale_width", "scale_shortside"} & set(steps)
        if scales and "crop" in steps and opt.load_size < opt.crop_size:
            raise UserError(
                f"--load_size {opt.load_size} is below --crop_size {opt.crop_size}: images scaled to the first are too "
                f"small for crops of the second; give --load_size {opt.crop_size} or more"
            )

        if opt.suffix:
            try:
                opt.name = f"{opt.name}_{opt.suffix.format(**vars(opt))}"
            except (LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
                raise UserError(f"argument --suffix: {opt.suffix!r} cannot be filled in from the options: {error}") from None
        check_name(opt.name)

    @staticmethod
    def _explicit_options(parser: ArgumentParser, arguments: Sequence[str]) -> frozenset[str]:
        """The names of the options that the command line itself sets."""
        untouched = object()
        values = Namespace(**dict.fromkeys((action.dest for action in parser._actions), untouched))
        parser.parse_args(arguments, values)
        return frozenset(name for name, value in vars(values).items() if value is not untouched)
