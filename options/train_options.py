"""Options of train.py."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from models.losses.diff_augment import AUGMENTATIONS
from models.losses.gan import GAN_LOSSES
from models.lr_schedules import SCHEDULES
from options.base_options import LOGGING, BaseOptions, argument_group, run_name
from options.metric_options import add_metric_arguments, metric_names
from util.cli import decay_rate, non_negative_float, non_negative_int, positive_float, positive_int
from util.errors import UserError
from util.loggers import add_logger_arguments


def lr_policy(text: str) -> str:
    """Return the name of a learning-rate schedule. Raise ArgumentTypeError if it is unknown."""
    if text == "plateau":
        raise ArgumentTypeError(
            "plateau needs a quality metric, and adversarial losses do not measure quality. "
            f"Use one of {', '.join(SCHEDULES)}"
        )
    if text not in SCHEDULES:
        raise ArgumentTypeError(f"{text!r} is not one of {', '.join(SCHEDULES)}")
    return text


def augmentation_list(text: str) -> str:
    """Parse names of augmentations separated by commas. They stay a text. Raise ArgumentTypeError if one is unknown."""
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in AUGMENTATIONS:
            raise ArgumentTypeError(f"{name!r} is not one of {', '.join(AUGMENTATIONS)}")
    return ",".join(names)


class TrainOptions(BaseOptions):
    """Options of training: the shared ones, logging, checkpoints, evaluation and optimization."""

    is_train = True
    description = "Train a model on the images of two folders."

    def finalize(self, opt: Namespace) -> None:
        if opt.pretrained_name is not None:
            opt.pretrained_name = run_name(opt.pretrained_name, opt.checkpoints_dir)
            if not opt.continue_train:
                raise UserError(
                    "--pretrained_name: only --continue_train loads weights. Add --continue_train, or start from the "
                    "generator alone with --pretrained_G FILE."
                )
        if opt.pretrained_G is not None and opt.continue_train:
            raise UserError("--pretrained_G: starts a new run, but --continue_train resumes one. Leave out one.")
        if opt.open and opt.no_html:
            raise UserError("--open: incompatible with --no_html, which writes no page. Leave out one.")
        super().finalize(opt)

    def initialize(self, parser: ArgumentParser) -> None:
        super().initialize(parser)
        group = argument_group(parser, LOGGING)
        group.add_argument("--display_freq", type=positive_int, default=400, help="images between two displays of images")
        group.add_argument(
            "--update_html_freq", type=positive_int, default=1000, help="images between updates of the training page"
        )
        group.add_argument("--print_freq", type=positive_int, default=100, help="images between two lines of losses")
        group.add_argument("--no_html", action="store_true", help="no HTML training page")
        add_logger_arguments(group)

        group = parser.add_argument_group("checkpoints")
        group.add_argument(
            "--save_latest_freq", type=positive_int, default=5000, help="images between saves of the latest weights"
        )
        group.add_argument("--save_epoch_freq", type=positive_int, default=5, help="epochs between numbered checkpoints")
        group.add_argument(
            "--save_by_iter", action="store_true", help="label iter_<images> for the saves of --save_latest_freq, not latest"
        )
        group.add_argument(
            "--keep_checkpoints",
            type=positive_int,
            default=None,
            help="maximum number of numbered checkpoints to keep; by default all",
        )
        group.add_argument("--overwrite", action="store_true", help="replace an existing run of this name")
        group.add_argument(
            "--continue_train",
            action="store_true",
            help="resume training from the last checkpoint of the run; other options are read from the run",
        )
        group.add_argument("--epoch_count", type=positive_int, default=1, help="number of the starting epoch")
        group.add_argument(
            "--pretrained_name",
            default=None,
            help="name of another run whose weights --continue_train loads; networks that it lacks start from scratch",
        )
        group.add_argument(
            "--pretrained_G",
            metavar="FILE",
            default=None,
            help="weights of a generator, such as latest_net_G.pth, that a new run starts from; the other networks start "
            "from scratch",
        )

        group = parser.add_argument_group(
            "evaluation",
            "metrics are computed every --evaluation_freq images and at the end of the run",
        )
        add_metric_arguments(group)
        group.add_argument(
            "--evaluation_freq",
            type=positive_int,
            default=5000,
            help="images between evaluations, if a metric is requested",
        )
        group.add_argument(
            "--best_by",
            choices=metric_names(),
            metavar="METRIC",
            help="metric that decides which weights are saved as best, such as FID, structure or SSIM; by default the first "
            "one that is computed",
        )
        group.add_argument(
            "--evaluation_phase", default="test", help="split of --dataroot to evaluate on: <phase>A and <phase>B"
        )
        group.add_argument(
            "--evaluation_pictures", type=positive_int, default=500, help="maximum number of images per domain"
        )

        group = parser.add_argument_group("optimization")
        group.add_argument(
            "--ema",
            type=decay_rate,
            default=0.0,
            metavar="DECAY",
            help="decay of the exponential moving average of the generator's weights (such as 0.999), saved as "
            "*_net_G_ema.pth; 0: no average. test.py --ema (without a number) uses it",
        )
        group.add_argument(
            "--n_epochs", type=non_negative_int, default=200, help="number of epochs at the initial learning rate"
        )
        group.add_argument(
            "--n_epochs_decay",
            type=non_negative_int,
            default=200,
            help="number of epochs to linearly decay the learning rate to zero",
        )
        group.add_argument(
            "--steps_per_epoch",
            type=positive_int,
            default=None,
            help="number of steps per epoch, whatever the size of the dataset; samples continue where the last epoch "
            "stopped. By default an epoch is one pass over the dataset",
        )
        group.add_argument(
            "--beta1", type=decay_rate, default=0.5, help="Adam beta1: decay of the first-moment estimate (momentum)"
        )
        group.add_argument("--beta2", type=decay_rate, default=0.999, help="Adam beta2: decay of the second-moment estimate")
        group.add_argument("--lr", type=positive_float, default=0.0002, help="initial learning rate of Adam")
        group.add_argument("--gan_mode", choices=list(GAN_LOSSES), default="lsgan", help="type of GAN loss")
        group.add_argument(
            "--lambda_gp",
            type=non_negative_float,
            default=0.0,
            help="weight of the gradient penalty of --gan_mode wgangp",
        )
        group.add_argument(
            "--lr_warm_up",
            type=non_negative_int,
            default=0,
            metavar="N",
            help="number of images over which the learning rate rises linearly from 0",
        )
        group.add_argument(
            "--warm_up_D",
            type=non_negative_int,
            default=0,
            metavar="N",
            help="number of images at the start on which only the discriminator is trained",
        )
        group.add_argument("--pool_size", type=non_negative_int, default=50, help="size of the image buffer")
        group.add_argument(
            "--lr_policy",
            type=lr_policy,
            metavar="{" + ",".join(SCHEDULES) + "}",
            default="linear",
            help="learning rate policy: linear decays to 0 during the last --n_epochs_decay epochs, step multiplies by 0.1 "
            "every --lr_decay_iters epochs, cosine decays to 0 over all epochs",
        )
        group.add_argument(
            "--published_cosine",
            action="store_true",
            help="--lr_policy cosine as published: decay within --n_epochs, rise again in the following epochs",
        )
        group.add_argument(
            "--lr_decay_iters", type=positive_int, default=50, help="epochs between two decays of --lr_policy step"
        )

        group = parser.add_argument_group("small datasets", "docs/tips.md says when they help")
        group.add_argument(
            "--diffaugment",
            type=augmentation_list,
            nargs="?",
            const=",".join(AUGMENTATIONS),
            default="",
            metavar="LIST",
            help=f"random augmentations of all images before the discriminator, out of {', '.join(AUGMENTATIONS)}; without "
            "LIST: all",
        )
        group.add_argument(
            "--lambda_lecam",
            type=non_negative_float,
            default=0.0,
            help="weight of the LeCam regularization of the discriminator, usually 0.01 to 0.3",
        )
        group.add_argument(
            "--spectral_norm_D", action="store_true", help="spectral normalization of the discriminator's convolutions"
        )
