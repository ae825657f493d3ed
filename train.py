"""Train a model: `python train.py --dataroot ./datasets/grumpifycat --name grumpycat_CUT --CUT_mode CUT`.

Weights, options, logs and the training page go to `<checkpoints_dir>/<name>/`.
"""

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch

from data import ImageDataLoader, create_dataset
from models import create_model, method_name
from models.base_model import BaseModel
from models.evaluation import create_samples, create_validator
from options.metric_options import metric_config
from options.pretrained import parse_pretrained
from options.run_summary import describe_training_end, print_training_summary
from options.saved_options import check_no_existing_run, diff_options, parse_training, save_options
from util.channel_view import ChannelView, parse_channels
from util.cli import configure_stdio
from util.dir_lock import lock_dir
from util.errors import exit_on_user_error
from util.files import remove_stale_temp_files
from util.metrics.validation import Validator
from util.runtime.checkpoint import Checkpointer
from util.runtime.device import parse_gpu_ids, select_device, set_deterministic
from util.runtime.distributed import (
    any_rank,
    barrier,
    is_main_process,
    launch_processes,
    launched_world_size,
    process_group,
    rank,
    world_size,
)
from util.runtime.image_counter import ImageCounter
from util.runtime.monitor import DivergenceMonitor, TrainingDiagnostics
from util.runtime.rng import step_seed
from util.signals import DeferredInterrupt
from util.terminal import print_line
from util.visualizer import Visualizer


def train(opt: Namespace) -> None:
    """Create or resume the run, and train from the first epoch that is left to the last."""
    if opt.deterministic:
        set_deterministic()
    run_dir = Path(opt.checkpoints_dir) / opt.name
    dataset = create_dataset(opt)
    model = create_model(opt)
    # Only rank 0 writes. No other training may even read the directory while this one is about to write to it.
    with lock_dir(run_dir, "--checkpoints_dir and --name") if is_main_process() else nullcontext(False) as locked:
        check_no_existing_run(opt, run_dir)
        validator = create_validator(opt, metric_config(opt), model)
        counter = ImageCounter(opt.epoch_count)
        checkpointer = Checkpointer(
            run_dir, model=model, counter=counter, dataset=dataset, validator=validator, keep=opt.keep_checkpoints
        )
        checkpointer.resume_or_load(opt)
        if opt.continue_train and opt.pretrained_name is None and is_main_process():
            for change in diff_options(opt):
                print_line(f"note: {change}")

        last_epoch = opt.n_epochs + opt.n_epochs_decay
        if counter.epoch > last_epoch:
            print_line(f"nothing left to train: the last epoch is {last_epoch}. Raise --n_epochs or --n_epochs_decay.")
            return

        view = ChannelView(parse_channels(opt.show_channels), dataset.has_wide_range)
        barrier()  # every rank has read what rank 0 overwrites from here on
        if is_main_process():
            remove_stale_temp_files(run_dir.rglob("*part*"), locked)
            save_options(opt, run_dir)
            print_training_summary(opt, dataset, model, run_dir, view, counter.epoch)
        samples = create_samples(opt, model)
        visualizer = Visualizer.from_options(
            opt, run_dir, counter, checkpointer.resumed, len(dataset), view, samples, method_name(vars(opt))
        )
        run_epochs(opt, dataset, model, checkpointer, validator, visualizer)


def run_epochs(
    opt: Namespace,
    dataset: ImageDataLoader,
    model: BaseModel,
    checkpointer: Checkpointer,
    validator: Validator | None,
    visualizer: Visualizer,
) -> None:
    """Train, log, evaluate and save. However the run ends, it is saved as "latest"."""
    counter = checkpointer.counter
    start = counter.state_dict()
    last_epoch = opt.n_epochs + opt.n_epochs_decay
    monitor = DivergenceMonitor(model.device)
    diagnostics = TrainingDiagnostics(model.loss_scales, opt.gan_mode, opt.warm_up_D)

    def save(*labels: str) -> None:
        monitor.check()  # raises DivergedError: a diverged run is not saved
        checkpointer.save(*labels)

    # With several processes a stop signal arrives more than once: from the scheduler, torchrun and the other ranks.
    with DeferredInterrupt(ignore_repeats=world_size() > 1, announces=is_main_process()) as interrupt, visualizer:
        dataset.set_while_waiting(interrupt.raise_if_overdue)
        try:
            for epoch in range(counter.epoch, last_epoch + 1):
                dataset.set_epoch(epoch, counter.images_in_epoch)
                for batch in visualizer.iterate(epoch, dataset, counter.images_in_epoch):
                    torch.manual_seed(step_seed(opt.seed, model.steps_done, rank()))  # for dropout
                    model.set_input(batch)
                    model.optimize_parameters()
                    counter.advance(len(model.image_paths) * world_size())
                    monitor.update(model.losses, counter.position_text, model.image_paths)

                    to_page = counter.crossed(opt.update_html_freq) or (visualizer.lacks_images and bool(model.losses))
                    if to_page or counter.crossed(opt.display_freq):
                        visualizer.log_images(model.visuals_for_display(), to_page)
                    if counter.crossed(opt.print_freq):
                        losses = model.get_current_losses()
                        visualizer.log_losses(losses, model.learning_rate)
                        for warning in diagnostics.check(counter.total_images, losses, model.get_current_visuals()):
                            visualizer.print(warning)
                    if validator and counter.crossed(opt.evaluation_freq):
                        validator.run(epoch, counter.total_images, visualizer)
                    if counter.crossed(opt.save_latest_freq):
                        save(f"iter_{counter.total_images}" if opt.save_by_iter else "latest")
                    if any_rank(interrupt.requested):  # all ranks stop after the same step
                        interrupt.stop()

                if validator and epoch == last_epoch:
                    validator.run(epoch, counter.total_images, visualizer)
                lr = model.learning_rate
                model.update_learning_rate()
                counter.end_epoch()
                if epoch % opt.save_epoch_freq == 0:
                    save("latest", str(epoch))
                visualizer.log_images(model.visuals_for_display(), to_page=True)
                visualizer.end_epoch(lr, model.learning_rate)
            for line in validator.summary() if validator else ():
                visualizer.print(line)
        finally:
            # Before the first step there is nothing to save, and perhaps the "latest" of an older run to overwrite.
            is_saved = counter.state_dict() != start and not model.step_in_progress and not interrupt.forced
            if is_saved:
                save("latest")
            visualizer.end(describe_training_end(opt, checkpointer.run_dir, is_saved, counter.epoch > last_epoch))


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        opt = parse_pretrained(sys.argv[1:]) or parse_training(sys.argv[1:])
        gpus = parse_gpu_ids(opt.gpu_ids)
        if len(gpus) > 1 and launched_world_size() == 1:
            sys.exit(launch_processes(len(gpus), sys.argv))
        with process_group(select_device(opt.gpu_ids)):
            train(opt)


if __name__ == "__main__":
    main()
