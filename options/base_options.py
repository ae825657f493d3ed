"""Options that training and testing share, and the parsing of command lines."""

import os
import sys
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from data import DATASETS
from data.geometry import training_side
from data.image_folder import DATAROOT_UNSET
from data.transforms import OPS, RESIZE_OPS, parse_preprocess
from data.value_range import parse_value_range
from models import MODELS
from models.networks import DISCRIMINATORS, GENERATORS
from models.networks.layers import INIT_FUNCTIONS, NORMS
from options.performance_options import add_performance_arguments, validate_performance
from options.reading_options import add_reading_arguments
from util.channel_view import parse_channels
from util.cli import (
    CLIParser,
    OptionFormatter,
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

# Titles of option groups that other modules refer to.
RUN, ARCHITECTURE, LOGGING = "run", "architecture", "logging and visualization"
MAX_NAME_BYTES = 255  # longest file name on all usual file systems


class DefaultsFormatter(OptionFormatter):
    """Print all defaults, as published, except None, empty text and the placeholder of --dataroot."""

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default in (None, "", DATAROOT_UNSET) else super()._get_help_string(action)


def value_range(text: str) -> str:
    """Parse LO,HI or percentile:LOW,HIGH. The range stays a text, as it is saved."""
    try:
        return str(parse_value_range(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def shown_channels(text: str) -> str:
    """Parse one or three numbers from 1, separated by commas. They stay a text, as they are saved."""
    try:
        return ",".join(map(str, parse_channels(text) or ()))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not one or three channel numbers from 1, such as 3,2,1") from None


def check_name(name: str) -> None:
    """Raise UserError unless `name` is a relative path below the folder of all runs."""
    path = Path(name)
    too_long = any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts)
    if not path.parts or path.is_absolute() or ".." in path.parts or too_long:
        raise UserError(f"--name {name!r}: not a folder name below --checkpoints_dir. Use a short name such as cat2dog_CUT.")


def run_name(name: str, checkpoints_dir: str) -> str:
    """Return the name of a run that may be given with its folder: "cat" for "checkpoints/cat"."""
    try:
        below = os.path.relpath(name, checkpoints_dir)
    except ValueError:  # empty, or on another drive
        return name
    return name if below.startswith(os.pardir) or below == os.curdir else below


def check_sizes(opt: Namespace) -> None:
    """Raise UserError if images are resized to less than a crop."""
    ops = parse_preprocess(opt.preprocess)
    is_cut = {"crop", "patch"} & set(ops) and "zoom" not in ops  # zoom keeps room for a crop
    if RESIZE_OPS.keys() & set(ops) and is_cut and opt.load_size < opt.crop_size:
        raise UserError(
            f"--load_size {opt.load_size}: smaller than --crop_size {opt.crop_size}, so resized images do not contain a "
            f"crop. Use --load_size {opt.crop_size} or more."
        )


def argument_group(parser: ArgumentParser, title: str) -> _ArgumentGroup:
    """Return the group of options with this title, a new one if there is none."""
    groups = [group for group in parser._action_groups if group.title == title]
    return groups[0] if groups else parser.add_argument_group(title)


class BaseOptions:
    """Parser of a command line.

    It parses in stages, because --model and --dataset_mode add options and change defaults. The command line overrides
    the defaults of a mode (such as --CUT_mode), which override those of the model, which override those declared here.

    Parsing is a pure function of the command line. It reads no file and uses no device.
    """

    is_train: ClassVar[bool]
    description: ClassVar[str]

    def parse(self, argv: Sequence[str] | None = None, is_complete: bool = True) -> Namespace:
        """Return the options of `argv`, or of sys.argv if it is None.

        `explicit` in the result contains the names of the options that the command line sets, `isTrain` is True in
        training, and `training_side` is the side of training images in pixels. If the command line is wrong, print a
        one-line error and exit with status 2.

        Args:
            is_complete: False if the options of a run will be added to `argv`. Unknown options are then ignored, because
                the run's method may have them, and options are not compared with each other.
        """
        arguments = sys.argv[1:] if argv is None else list(argv)
        parser = self.parser(arguments)
        opt = parser.parse_args(arguments) if is_complete else parser.parse_known_args(arguments)[0]
        try:
            self.finalize(opt)
            if is_complete:
                validate_performance(opt)
                check_sizes(opt)
        except UserError as error:
            parser.error(str(error))
        opt.explicit = explicit_options(parser, arguments)
        opt.isTrain = self.is_train
        return opt

    def parser(self, arguments: Sequence[str]) -> CLIParser:
        """Return the parser for this command line, including the options of its model and dataset."""
        parser = CLIParser(
            usage="%(prog)s --dataroot FOLDER --name RUN [options]",
            description=self.description,
            epilog="--model, --dataset_mode and --CUT_mode change options and defaults: put them before --help. --help WORD "
            "prints the options whose name or help contains the word.",
            formatter_class=DefaultsFormatter,
            add_help=False,  # added when all options are known
            find_elsewhere=self._find_elsewhere,
        )
        self.initialize(parser)
        shared_groups = list(parser._action_groups)

        model = MODELS[parser.parse_known_args(arguments)[0].model]
        model.modify_commandline_options(parser, self.is_train)
        set_declared_defaults(parser, **model.dependent_defaults(parser.parse_known_args(arguments)[0]))
        # --help shows the method's own options second, after the group "run".
        second = 1 + shared_groups.index(argument_group(parser, RUN))
        model_groups = parser._action_groups[len(shared_groups) :]
        parser._action_groups[:] = [*shared_groups[:second], *model_groups, *shared_groups[second:]]

        dataset_class = DATASETS[parser.parse_known_args(arguments)[0].dataset_mode]
        dataset_class.modify_commandline_options(parser, self.is_train)

        parser.add_help_option()
        return parser

    def _find_elsewhere(self, flag: str) -> str | None:
        """Return the methods that have the option, such as "--model sincut", or None."""
        methods = [name for name in MODELS if flag in self.parser(["--model", name])._option_string_actions]
        return " and ".join(f"--model {name}" for name in methods) or None

    def initialize(self, parser: ArgumentParser) -> None:
        """Declare the shared options."""
        group = parser.add_argument_group(RUN)
        group.add_argument(
            "--dataroot",
            default=DATAROOT_UNSET,
            help="path to the images (required, or else --dataroot_A and --dataroot_B); has folders trainA, trainB, testA, "
            "testB",
        )
        for domain in "AB":
            group.add_argument(
                f"--dataroot_{domain}",
                metavar="DIR",
                default=None,
                help=f"folder of the images of domain {domain}, instead of --dataroot",
            )
        group.add_argument("--name", default="experiment_name", help="name of the run and of its folder")
        group.add_argument(
            "--easy_label", default="experiment_name", help="title of the results page, if it is not to be --name"
        )
        group.add_argument(
            "--gpu_ids",
            default=AUTO,
            help="index of the GPU, such as 0, or of several GPUs for training, such as 0,1; -1: CPU; auto: GPU if any",
        )
        group.add_argument("--checkpoints_dir", default="./checkpoints", help="folder of all runs")
        group.add_argument("--epoch", default="latest", help="checkpoint to load: latest, best, or the number of an epoch")
        group.add_argument("--suffix", default="", help="suffix of --name, for example {model}_{netG}_size{load_size}")
        group.add_argument("--seed", type=seed, default=0, help="random seed")
        group.add_argument("--verbose", action="store_true", help="print all options and the layers of the networks")

        group = parser.add_argument_group(ARCHITECTURE, "saved next to the weights; test.py reads them from there")
        group.add_argument("--model", choices=list(MODELS), default="cut", help="method")
        for flag, side in (("--input_nc", "input"), ("--output_nc", "output")):
            group.add_argument(
                flag, type=positive_int, default=3, help=f"number of {side} channels: 3 for RGB, 1 for gray, or any other"
            )
        for flag, domain in (("--value_range", "both domains"), ("--value_range_A", "A"), ("--value_range_B", "B")):
            group.add_argument(
                flag,
                type=value_range,
                metavar="LO,HI",
                help=f"sample values of {domain} that map to -1 and 1, or percentile:LOW,HIGH to compute them from the "
                f"training images; by default the full range of 8- or 16-bit samples",
            )
        group.add_argument("--ngf", type=positive_int, default=64, help="number of generator filters in the first layer")
        group.add_argument("--ndf", type=positive_int, default=64, help="number of discriminator filters in the first layer")
        group.add_argument("--netD", choices=list(DISCRIMINATORS), default="basic", help="discriminator architecture")
        group.add_argument(
            "--netG",
            choices=list(GENERATORS),
            default="resnet_9blocks",
            metavar="NAME",  # all names are wider than a terminal
            help=f"generator architecture: {', '.join(GENERATORS)}",
        )
        group.add_argument(
            "--n_layers_D", type=num_downsampling, default=3, help="number of downsampling layers of --netD n_layers"
        )
        group.add_argument(
            "--D_patch_size", type=positive_int, default=64, help="patch size of --netD tilestylegan2 in pixels"
        )
        group.add_argument("--normG", choices=list(NORMS), default="instance", help="normalization layers of the generator")
        group.add_argument(
            "--normD", choices=list(NORMS), default="instance", help="normalization layers of the discriminator"
        )
        group.add_argument(
            "--no_dropout", type=boolean, nargs="?", const=True, default=True, help="no dropout in the generator"
        )
        group.add_argument(
            "--no_antialias", action="store_true", help="strided convolutions instead of antialiased downsampling"
        )
        group.add_argument(
            "--no_antialias_up", action="store_true", help="transposed convolutions instead of antialiased upsampling"
        )
        group.add_argument(
            "--stylegan2_G_num_downsampling",
            type=num_downsampling,
            default=1,
            help="number of downsampling layers of StyleGAN2 generators",
        )
        group.add_argument(
            "--net_size",
            type=positive_int,
            default=None,
            help="image size in pixels that StyleGAN2 networks are built for; by default the size of the training images",
        )
        group.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="direction of the translation")

        group = parser.add_argument_group("weight initialization")
        group.add_argument("--init_type", choices=list(INIT_FUNCTIONS), default="xavier", help="initialization method")
        group.add_argument(
            "--init_gain",
            type=non_negative_float,
            default=0.02,
            help="scaling factor for the methods normal, xavier and orthogonal",
        )

        group = parser.add_argument_group("data")
        phase = "train" if self.is_train else "test"
        group.add_argument("--phase", default=phase, help="split of --dataroot to read: folders <phase>A and <phase>B")
        group.add_argument("--dataset_mode", choices=list(DATASETS), default="unaligned", help="how images are loaded")
        group.add_argument("--serial_batches", action="store_true", help="images in order instead of shuffled")
        group.add_argument("--num_threads", type=non_negative_int, default=4, help="number of data loader workers")
        group.add_argument(
            "--prefetch_factor", type=positive_int, default=2, help="number of batches prefetched by each worker"
        )
        group.add_argument("--batch_size", type=positive_int, default=1, help="batch size, on all GPUs together")
        group.add_argument("--load_size", type=positive_int, default=286, help="size in pixels to resize images to first")
        group.add_argument("--crop_size", type=positive_int, default=256, help="size in pixels to crop images to afterwards")
        group.add_argument(
            "--max_dataset_size", type=positive_int, default=float("inf"), help="maximum number of images per domain"
        )
        group.add_argument(
            "--preprocess",
            default="resize_and_crop",
            help=f"operations joined by _and_, out of {', '.join(OPS)}; or none",
        )
        add_reading_arguments(group)
        group.add_argument("--no_flip", action="store_true", help="no random horizontal flip")
        group.add_argument(
            "--random_scale_max", type=float_ge_1, default=3.0, help="maximum factor by which zoom shrinks an image"
        )

        if self.is_train:
            group.add_argument(
                "--cache",
                metavar="GB",
                type=positive_float,
                nargs="?",
                const=4.0,
                default=None,
                help="size in gigabytes of a cache of decoded images in memory (4 without a number); off by default",
            )

        add_performance_arguments(parser, self.is_train)

        group = argument_group(parser, LOGGING)
        group.add_argument(
            "--show_channels",
            type=shown_channels,
            default=None,
            metavar="R,G,B",
            help="numbers of the channels, from 1, to show on pages, in loggers and to metrics that take three channels; "
            "by default 1,2,3, or 1 of one or two channels",
        )
        group.add_argument("--open", action="store_true", help="open the page in a browser")
        group.add_argument("--display_winsize", type=positive_int, default=256, help="width of displayed images in pixels")

    def finalize(self, opt: Namespace) -> None:
        """Set options that depend on several others. Raise UserError if they are incompatible."""
        opt.training_side = training_side(opt.preprocess, opt.load_size, opt.crop_size)
        if opt.net_size is None:
            opt.net_size = opt.training_side
        opt.name = run_name(opt.name, opt.checkpoints_dir)
        if opt.suffix:
            try:
                opt.name = f"{opt.name}_{opt.suffix.format(**vars(opt))}"
            except (LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
                raise UserError(
                    f"--suffix {opt.suffix!r}: cannot be formatted with the options ({error}). "
                    f"Use option names in braces, such as {{model}}_{{netG}}."
                ) from None
        check_name(opt.name)


def explicit_options(parser: ArgumentParser, arguments: Sequence[str]) -> frozenset[str]:
    """Return the names of the options that the command line itself sets. Unknown options are ignored."""
    unset = object()
    values = Namespace(**dict.fromkeys((action.dest for action in parser._actions), unset))
    parser.parse_known_args(arguments, values)
    return frozenset(name for name, value in vars(values).items() if value is not unset)
