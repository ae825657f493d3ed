"""The options of train.py."""

from argparse import ArgumentParser, ArgumentTypeError

from models.losses.gan import GAN_LOSSES
from models.lr_schedules import SCHEDULES
from options.base_options import BaseOptions
from options.metric_options import add_metric_arguments
from util.cli import decay_rate, non_negative_float, non_negative_int, positive_float, positive_int
from util.loggers import add_logger_arguments


def schedule(text: str) -> str:
    """The name of a learning-rate schedule."""
    if text == "plateau":
        raise ArgumentTypeError(
            "plateau needs a figure that says how good the run is, and adversarial losses are none; "
            f"choose one of {', '.join(SCHEDULES)}"
        )
    if text not in SCHEDULES:
        raise ArgumentTypeError(f"{text!r} is not one of {', '.join(SCHEDULES)}")
    return text


class TrainOptions(BaseOptions):
    is_train = True
    description = "Trains a model on the images of two folders."

    def initialize(self, parser: ArgumentParser) -> None:
        super().initialize(parser)
        group = parser.add_argument_group("logging and visualization")
        group.add_argument("--display_freq", type=positive_int, default=400, help="images between two displays of images")
        group.add_argument("--update_html_freq", type=positive_int, default=1000, help="images between updates of the page")
        group.add_argument("--print_freq", type=positive_int, default=100, help="images between two lines of losses")
        group.add_argument("--no_html", action="store_true", help="no training page")
        add_logger_arguments(group)

        group = parser.add_argument_group("checkpoints")
        group.add_argument("--save_latest_freq", type=positive_int, default=5000, help="images between saves of latest")
        group.add_argument("--save_epoch_freq", type=positive_int, default=5, help="epochs between saves under their number")
        group.add_argument("--save_by_iter", action="store_true", help="label those saves iter_<images>, not latest")
        group.add_argument(
            "--keep_checkpoints",
            type=positive_int,
            default=None,
            help="how many numbered checkpoints to keep; by default all",
        )
        group.add_argument("--overwrite", action="store_true", help="start anew in the folder of an earlier run")
        group.add_argument("--continue_train", action="store_true", help="go on where the run stopped")
        group.add_argument("--epoch_count", type=positive_int, default=1, help="number of the first epoch")
        group.add_argument("--pretrained_name", default=None, help="run whose weights --continue_train takes")

        group = parser.add_argument_group(
            "evaluation",
            "metrics are computed every --evaluation_freq images and at the end of the run",
        )
        add_metric_arguments(group)
        group.add_argument(
            "--evaluation_freq",
            type=positive_int,
            default=5000,
            help="images between evaluations, if a metric is requested; the first metric decides which weights are saved as "
            "best",
        )
        group.add_argument("--evaluation_phase", default="test", help="split to evaluate on: <phase>A and <phase>B")
        group.add_argument(
            "--evaluation_pictures", type=positive_int, default=500, help="maximum number of images per domain"
        )

        group = parser.add_argument_group("optimization")
        group.add_argument(
            "--ema",
            type=decay_rate,
            default=0.0,
            metavar="DECAY",
            help="keep a moving average of the generator's weights as well, this much of it from step to step (0.999), in "
            "*_net_G_ema.pth; 0: none. To test it, give test.py --ema, there without a number",
        )
        group.add_argument(
            "--n_epochs", type=non_negative_int, default=200, help="epochs that --lr_policy linear has at the first rate"
        )
        group.add_argument(
            "--n_epochs_decay", type=non_negative_int, default=200, help="epochs after them, in which its rate falls"
        )
        group.add_argument("--beta1", type=decay_rate, default=0.5, help="Adam's first momentum")
        group.add_argument("--beta2", type=decay_rate, default=0.999, help="Adam's second momentum")
        group.add_argument("--lr", type=positive_float, default=0.0002, help="first learning rate")
        group.add_argument("--gan_mode", choices=list(GAN_LOSSES), default="lsgan", help="the adversarial loss")
        group.add_argument(
            "--lambda_gp",
            type=non_negative_float,
            default=0.0,
            help="weight of the gradient penalty of --gan_mode wgangp",
        )
        group.add_argument("--pool_size", type=non_negative_int, default=50, help="translations kept for the discriminator")
        group.add_argument(
            "--lr_policy",
            type=schedule,
            metavar="{" + ",".join(SCHEDULES) + "}",
            default="linear",
            help="how the learning rate falls: linear, towards 0 in the last --n_epochs_decay epochs; step, to a tenth "
            "every --lr_decay_iters epochs; cosine, towards 0 over all epochs",
        )
        group.add_argument(
            "--published_cosine",
            action="store_true",
            help="--lr_policy cosine as published: down within --n_epochs, and up again in the decay phase",
        )
        group.add_argument("--lr_decay_iters", type=positive_int, default=50, help="epochs per stair of --lr_policy step")
