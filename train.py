"""Trains a model: `python train.py --dataroot ./datasets/grumpifycat --name grumpycat_CUT --CUT_mode CUT`.

Weights, options, log and training page go to `<checkpoints_dir>/<name>/`.
"""

if __name__ == "__main__":
    from util.signals import quiet_sigint_during_import

    quiet_sigint_during_import()

# isort: split

import sys
import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch

from data import ImageDataLoader, create_dataset
from data.eval_data import EvalDataset
from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from options.metric_options import metric_config
from options.saved_options import check_no_existing_run, describe_options, diff_options, save_options
from util.cli import configure_stdio
from util.dir_lock import lock_dir
from util.errors import exit_on_user_error
from util.files import remove_stale_temp_files
from util.loggers import create_loggers
from util.metrics.evaluator import create_evaluator
from util.metrics.validation import Validator
from util.runtime.device import describe_device, parse_gpu_ids, select_device, set_deterministic
from util.runtime.distributed import (
    any_rank,
    barrier,
    describe_group,
    is_main_process,
    launch_processes,
    launched_world_size,
    process_group,
    rank,
    world_size,
)
from util.runtime.image_counter import ImageCounter
from util.runtime.monitor import DivergenceMonitor, create_diagnostics
from util.runtime.rng import step_seed
from util.signals import DeferredInterrupt
from util.train_log import truncate_loss_log
from util.visualizer import Visualizer


def train(opt: Namespace) -> None:
    """Runs the epochs from the first that is left to the last. Whatever ends it, what it has learnt is saved as "latest"."""
    if opt.deterministic:
        set_deterministic()
    run_dir = Path(opt.checkpoints_dir) / opt.name
    dataset = create_dataset(opt)
    model = create_model(opt)
    images = ImageCounter(opt.epoch_count)
    # Of several processes only the first one writes. Another training must not even read what this one is about to write.
    with lock_dir(run_dir, "--checkpoints_dir and --name") if is_main_process() else nullcontext(False) as alone:
        train_in(run_dir, alone, opt, dataset, model, images)


def train_in(
    run_dir: Path, alone: bool, opt: Namespace, dataset: ImageDataLoader, model: BaseModel, images: ImageCounter
) -> None:
    """Start or resume the run in `run_dir`, `alone` if no other process can write there, and train to its last epoch."""
    check_no_existing_run(opt, run_dir)
    validator = create_validator(opt, model)
    model.stateful |= {"images": images, "pictures": dataset}
    if validator:
        model.stateful["evaluation"] = validator
    if opt.continue_train:
        resume_or_load(opt, run_dir, model, images)

    last_epoch = opt.n_epochs + opt.n_epochs_decay
    if images.epoch > last_epoch:
        print(
            f"nothing left to train: epoch {images.epoch} would be next, and {last_epoch} is the last; raise --n_epochs or "
            "--n_epochs_decay"
        )
        return

    barrier()  # from here on the first process writes, and the others have read what they need
    if is_main_process():
        remove_stale_temp_files(run_dir.rglob("*part*"), alone)
        save_options(opt, run_dir)
    print(describe_options(opt))
    print(model.describe(opt.verbose))
    if opt.gan_mode == "wgangp" and opt.lambda_gp == 0:
        print("note: --gan_mode wgangp without a gradient penalty, as published, is unstable; --lambda_gp 10 adds it")
    print(f"{len(dataset)} training images per epoch, on {describe_device(model.device)}{describe_group()}")
    if not opt.no_html:
        print(f"curves and images: {run_dir / 'web' / 'index.html'}")

    visualizer = Visualizer(
        run_dir,
        opt.name,
        images.epoch,
        last_epoch,
        len(dataset),
        web_page=not opt.no_html,
        loggers=create_loggers(opt, run_dir),
        image_width=opt.display_winsize,
    )
    losses = DivergenceMonitor(model.device)
    state_at_start = images.state_dict()
    # Several processes are asked by the scheduler, by torchrun, and again as soon as one of them has left.
    with DeferredInterrupt(ignore_repeats=world_size() > 1) as interrupt, visualizer:
        dataset.set_while_waiting(interrupt.raise_if_overdue)
        try:
            run_epochs(opt, model, dataset, visualizer, images, losses, validator, interrupt, last_epoch)
        finally:
            # Before the first step there is nothing to keep, and perhaps an older run's "latest" to spoil.
            if images.state_dict() != state_at_start and model.is_between_steps and not interrupt.forced:
                save(model, losses, "latest")
                visualizer.print(f"the newest weights: {run_dir / 'latest_net_*.pth'}")


def create_validator(opt: Namespace, model: BaseModel) -> Validator | None:
    """Create the validator for the requested metrics. Skip metrics whose weights are unavailable, with a warning."""
    config = metric_config(opt)
    if not config or not is_main_process():
        return None
    evaluator = create_evaluator(
        config, opt.seed, model.device, lambda error: print(f"warning: metric skipped, training continues: {error}")
    )
    if not evaluator.metrics:
        return None
    name, generator = next(iter(model.generators.items()))
    generators = {name: generator} | {a: network for a, network in model.averages.networks.items() if a.startswith(name)}

    def save_best(best: str) -> None:
        model.save_networks("best", *(model.networks if best == name else model.averages.networks))

    return Validator(evaluator, EvalDataset(opt), generators, save_best, model.device)


def resume_or_load(opt: Namespace, run_dir: Path, model: BaseModel, images: ImageCounter) -> None:
    """--continue_train: goes on where the run stopped. Where that is not known, or --epoch, --epoch_count or
    --pretrained_name ask for another beginning, starts from weights alone."""
    goes_on = opt.epoch == "latest" and opt.pretrained_name is None and "epoch_count" not in opt.explicit
    if goes_on and model.resume():
        print(f"going on in epoch {images.epoch}, after {images.seen_in_epoch} of its images and {images.seen} in all")
        for change in diff_options(opt):
            print(f"note: {change}")
        if is_main_process():
            truncate_loss_log(images.epoch, images.seen_in_epoch, run_dir / "loss_log.txt")
        return
    model.load_networks(opt.epoch, opt.pretrained_name)
    print(f"starting from the weights of {opt.pretrained_name or opt.name}, {opt.epoch}; the optimizers start anew")


def run_epochs(
    opt: Namespace,
    model: BaseModel,
    dataset: ImageDataLoader,
    visualizer: Visualizer,
    images: ImageCounter,
    losses: DivergenceMonitor,
    validator: Validator | None,
    interrupt: DeferredInterrupt,
    last_epoch: int,
) -> None:
    warnings = create_diagnostics(opt)
    for epoch in range(images.epoch, last_epoch + 1):
        started = time.monotonic()
        dataset.set_epoch(epoch, images.seen_in_epoch)
        for batch in visualizer.iterate(epoch, dataset, images.seen_in_epoch):
            torch.manual_seed(step_seed(opt.seed, model.steps_done, rank()))  # dropout has no generator of its own
            model.set_input(batch)
            model.optimize_parameters()
            images.advance(len(model.image_paths) * world_size())
            losses.update(model.losses, images.place, model.image_paths)

            to_page = images.crossed(opt.update_html_freq)
            if to_page or images.crossed(opt.display_freq):
                visualizer.log_images(model.visuals_for_display(), to_page)
            if images.crossed(opt.print_freq):
                current = model.get_current_losses()
                visualizer.log_losses(current, model.learning_rate)
                for warning in warnings.check(images.seen, current, model.get_current_visuals()):
                    visualizer.print(warning)
            if validator and images.crossed(opt.evaluation_freq):
                validator.run(epoch, images.seen, visualizer)
            if images.crossed(opt.save_latest_freq):
                save(model, losses, f"iter_{images.seen}" if opt.save_by_iter else "latest")
            if any_rank(interrupt.requested):  # all processes stop after the same step
                interrupt.stop()

        if validator and epoch == last_epoch:
            validator.run(epoch, images.seen, visualizer)
        rate = model.learning_rate
        model.update_learning_rate()
        images.end_epoch()
        if epoch % opt.save_epoch_freq == 0:
            save(model, losses, "latest", str(epoch))
        visualizer.log_images(model.visuals_for_display(), to_page=True)
        visualizer.print(
            f"End of epoch {epoch} / {last_epoch} \t Time Taken: {time.monotonic() - started:.0f} sec \t "
            f"learning rate {rate:.7f} -> {model.learning_rate:.7f}"
        )

    for line in validator.summary() if validator else ():
        visualizer.print(line)


def save(model: BaseModel, losses: DivergenceMonitor, *labels: str) -> None:
    """Saves the run under these labels. Raises DivergedError where it is not worth saving."""
    losses.check()
    model.save_run(*labels)


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        opt = TrainOptions().parse()
        gpus = parse_gpu_ids(opt.gpu_ids)
        if len(gpus) > 1 and launched_world_size() == 1:
            sys.exit(launch_processes(len(gpus), sys.argv))
        with process_group(select_device(opt.gpu_ids)):
            train(opt)


if __name__ == "__main__":
    main()
