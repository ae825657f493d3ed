"""The options by which figures are asked for, of scripts/evaluate.py and, during training, of train.py."""

from argparse import ArgumentParser, Namespace, _ArgumentGroup

from util.metrics.evaluator import CACHE, MetricConfig
from util.metrics.paired import BACKBONES


def add_metric_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
    """Declares which figures to compute; by default none."""
    group.add_argument(
        "--inception",
        nargs="?",
        const=CACHE,
        default=None,
        metavar="PATH",
        help="FID (clean and legacy resize), KID, precision and recall by FID's Inception, weights-inception-2015-12-05"
        "-6726825d.pth; without PATH from torch's cache, or fetched into it",
    )
    group.add_argument(
        "--features",
        default=None,
        metavar="PATH",
        help="the same by another network: SqueezeNet 1.1's features as a state dict, or a program of torch.jit or "
        "torch.export, uint8 images (N, 3, H, W) to (N, D); a program is run, so trust its author",
    )
    group.add_argument(
        "--paired", action="store_true", help="PSNR and SSIM against the image of the same name in the target domain"
    )
    group.add_argument(
        "--lpips",
        nargs="?",
        const="alex",
        default=None,
        choices=list(BACKBONES),
        help="LPIPS against the image of the same name; torchvision's weights, from torch's cache, or fetched into it",
    )


def metric_config(opt: Namespace) -> MetricConfig:
    """The figures that the options ask for."""
    return MetricConfig(opt.inception, opt.features, opt.paired, opt.lpips)
