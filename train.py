"""Trains a model: `python train.py --dataroot ./datasets/grumpifycat --name grumpycat_CUT --CUT_mode CUT`.

Weights, options, log and training page go to `<checkpoints_dir>/<name>/`.
"""

import sys
import time
from argparse import Namespace
from pathlib import Path

import torch

from data import PictureLoader, create_dataset
from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from options.record import describe_options, write_options
from util.errors import INTERRUPTED_STATUS, exit_on_user_error
from util.report.console import print_any_name
from util.report.training_report import TrainingReport
from util.report.visdom_view import open_visdom
from util.runtime.deferred_interrupt import DeferredInterrupt
from util.runtime.device import describe_device
from util.runtime.image_counter import ImageCounter
from util.runtime.output_folder import make_output_folder


def train(opt: Namespace) -> None:
    """Runs the epochs from --epoch_count to the last. Whatever ends it, what it has learnt is saved as "latest"."""
    torch.manual_seed(opt.seed)  # dropout has no generator of its own
    dataset = create_dataset(opt)
    model = create_model(opt)
    if opt.continue_train:
        model.load_networks(opt.epoch, opt.pretrained_name)

    last_epoch = opt.n_epochs + opt.n_epochs_decay
    if opt.epoch_count > last_epoch:
        print(
            f"nothing left to train: --epoch_count {opt.epoch_count} is past the last epoch, {last_epoch}; raise --n_epochs"
        )
        return

    run_dir = Path(opt.checkpoints_dir) / opt.name
    make_output_folder(run_dir, "--checkpoints_dir and --name")
    write_options(opt, run_dir)
    print(describe_options(opt))
    print(model.describe(opt.verbose))
    if opt.gan_mode == "wgangp" and opt.lambda_gp == 0:
        print("note: --gan_mode wgangp without a gradient penalty, as published, is unstable; --lambda_gp 10 adds it")
    print(f"{len(dataset)} training images per epoch, on {describe_device(model.device)}")

    live_view = open_visdom(
        opt.name,
        opt.display_id,
        opt.display_server,
        opt.display_port,
        opt.display_env,
        opt.display_ncols,
        opt.display_winsize,
    )
    images = ImageCounter()
    report = TrainingReport(
        run_dir, opt.name, opt.epoch_count, last_epoch, len(dataset), web_page=not opt.no_html, live_view=live_view
    )
    with DeferredInterrupt() as interrupt, report:
        try:
            run_epochs(opt, model, dataset, report, images, interrupt, last_epoch)
        finally:
            if images.seen:  # before the first step there is nothing to keep, and perhaps an older run's "latest" to spoil
                model.save_networks("latest")
                report.say(f"the newest weights: {run_dir / 'latest_net_*.pth'}")


def run_epochs(
    opt: Namespace,
    model: BaseModel,
    dataset: PictureLoader,
    report: TrainingReport,
    images: ImageCounter,
    interrupt: DeferredInterrupt,
    last_epoch: int,
) -> None:
    for epoch in range(opt.epoch_count, last_epoch + 1):
        started = time.monotonic()
        dataset.set_epoch(epoch)
        for batch in report.epoch(epoch, dataset):
            model.set_input(batch)
            model.optimize_parameters()
            images.advance(len(model.image_paths))

            to_page = images.crossed(opt.update_html_freq)
            if to_page or images.crossed(opt.display_freq):
                report.visuals(model.get_current_visuals(), to_page)
            if images.crossed(opt.print_freq):
                report.losses(model.get_current_losses(), model.learning_rate)
            if images.crossed(opt.save_latest_freq):
                model.save_networks(f"iter_{images.seen}" if opt.save_by_iter else "latest")
            interrupt.raise_if_asked()

        if epoch % opt.save_epoch_freq == 0:
            model.save_networks("latest")
            model.save_networks(str(epoch))
        report.visuals(model.get_current_visuals(), to_page=True)
        rate = model.learning_rate
        model.update_learning_rate()
        report.say(
            f"End of epoch {epoch} / {last_epoch} \t Time Taken: {time.monotonic() - started:.0f} sec \t "
            f"learning rate {rate:.7f} -> {model.learning_rate:.7f}"
        )


def main() -> None:
    print_any_name()
    with exit_on_user_error():
        opt = TrainOptions().parse()
        try:
            train(opt)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED_STATUS)


if __name__ == "__main__":
    main()
