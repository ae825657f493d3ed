"""First and last lines of train.py and test.py: what runs on what, where its output is, and which command comes next."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from data import ImageDataLoader
from data.domain_folder import DATAROOT_FLAGS, describe_roots, has_own_folders
from data.geometry import CUTS, decay_changes_scale, describe_training_geometry
from data.transforms import parse_preprocess
from models import method_name
from models.base_model import BaseModel
from options.saved_options import NOT_RESTORED, TEXT, describe_options, describe_test_geometry
from util.channel_view import ChannelView
from util.runtime.checkpoint import STATE_FILE
from util.runtime.device import describe_device
from util.runtime.distributed import describe_group
from util.terminal import print_line, wrap_words

WIDTH = 80  # columns of the narrowest usual terminal
LABEL = 10  # columns of "networks: "
MAX_LINES = 3  # of one entry
MORE = " ..."  # after the last one
# Not repeated among the options: other entries show them, or they only say what to do with the run.
SHOWN_ELSEWHERE = {*DATAROOT_FLAGS, "name", "model", "CUT_mode", "load_size", "crop_size", "preprocess", "batch_size"}
SHOWN_ELSEWHERE |= {"continue_train", "overwrite", "verbose"}
# Options of the command that resumes a run: those that are not saved with it, without those that say where it starts.
START = {"continue_train", "overwrite", "epoch", "epoch_count", "pretrained_name", "pretrained_G", "name", "suffix"}


def print_training_summary(
    opt: Namespace, dataset: ImageDataLoader, model: BaseModel, run_dir: Path, view: ChannelView, first_epoch: int
) -> None:
    """Print what train.py is about to do, in some ten lines. With --verbose, print all options and layers first."""
    if opt.verbose:
        print_details(opt, model)
    images = f"{dataset.description}, " if dataset.description else ""
    geometry = describe_training_geometry(opt.preprocess, opt.load_size, opt.crop_size)
    epochs = f"epochs {first_epoch} to {opt.n_epochs + opt.n_epochs_decay}"
    print_entry("run", f"{opt.name}{unnamed(opt)}: {method_name(vars(opt))}, {epochs}")
    print_entry("data", f"{describe_roots(opt)}: {images}{geometry}")
    print_entry("epoch", f"{len(dataset)} training images per epoch, batch size {opt.batch_size}")
    print_entry("networks", model.describe())
    print_entry("device", f"{describe_device(model.device)}{describe_group()}")
    print_display(opt, view)
    print_given_options(opt, f"all: {run_dir / TEXT}")
    if opt.gan_mode == "wgangp" and opt.lambda_gp == 0:
        print_line("note: --gan_mode wgangp is unstable without a gradient penalty, as published. Use --lambda_gp 10.")
    decays = opt.n_epochs_decay > 0 and opt.dataset_mode == "unaligned"
    if decays and decay_changes_scale(opt.preprocess, opt.load_size, opt.crop_size):
        geometry = describe_training_geometry(opt.preprocess, opt.crop_size, opt.crop_size)
        is_cut = CUTS & set(parse_preprocess(opt.preprocess))
        remedy = "resize them beforehand and use --preprocess crop" if is_cut else f"use --crop_size {opt.load_size}"
        print_line(
            f"note: from epoch {opt.n_epochs + 1} on, images are {geometry}, as published. To keep their scale, {remedy}."
        )
    if not opt.no_html:
        print_entry("page", str(run_dir / "web" / "index.html"))


def print_test_summary(opt: Namespace, dataset: ImageDataLoader, model: BaseModel, count: int, view: ChannelView) -> None:
    """Print what test.py is about to do with `count` images. With --verbose, print all options and layers first."""
    if opt.verbose:
        print_details(opt, model)
    hint = " (raise --num_test for more)" if count < len(dataset) else ""
    print_entry("run", f"{opt.name}{unnamed(opt)}, epoch {opt.epoch}{', moving average' if opt.ema else ''}")
    print_entry("data", f"{dataset.source_folder}: {count} of {len(dataset)} images{hint}")
    print_entry("size", describe_test_geometry(opt))
    print_entry("networks", model.describe())
    print_entry("device", describe_device(model.device))
    print_display(opt, view)
    print_given_options(opt, "all: --verbose")


def unnamed(opt: Namespace) -> str:
    """Return text to follow the name of a run if --name is not given."""
    return "" if "name" in opt.explicit else " (the default of --name)"


def print_display(opt: Namespace, view: ChannelView) -> None:
    """Print how images are shown, unless they are shown as they are."""
    if view.changes(opt.output_nc):
        print_entry("display", view.describe(opt.output_nc))


def print_details(opt: Namespace, model: BaseModel) -> None:
    """Print all options, and the layers of the networks."""
    print(describe_options(opt))
    for name, network in model.networks.items():
        print(f"{name}: {network}")


def print_given_options(opt: Namespace, hint: str) -> None:
    """Print the options that are given, except those that other entries show, and where all options are."""
    flags = " ".join(map(shlex.quote, format_flags(opt, opt.explicit - SHOWN_ELSEWHERE)))
    print_entry("options", flags or "defaults")
    print(f"{'':{LABEL}}{hint}")


def describe_training_end(opt: Namespace, run_dir: Path, is_saved: bool, is_finished: bool) -> Iterator[str]:
    """Yield the last lines of train.py: where the run is saved, and the next command."""
    if is_saved:
        yield f"{'saved:':<{LABEL}}{run_dir / 'latest_net_*.pth'}"
    elif (run_dir / STATE_FILE).exists():
        yield "not saved: the last checkpoint is unchanged"
    else:
        yield "not saved: there is no checkpoint"
        return
    if is_finished and not opt.no_html:
        yield f"{'page:':<{LABEL}}{run_dir / 'web' / 'index.html'}"
    yield f"{'test:':<{LABEL}}{test_command(opt)}" if is_finished else f"{'resume:':<{LABEL}}{resume_command(opt)}"


def print_entry(label: str, text: str) -> None:
    """Print a labelled text in lines of at most WIDTH columns. Paths are not broken, so that they can be copied."""
    lines = wrap_words(text, WIDTH - LABEL)
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [wrap_words(lines[MAX_LINES - 1], WIDTH - LABEL - len(MORE))[0] + MORE]
    for number, line in enumerate(lines):
        print(f"{'' if number else f'{label}: ':<{LABEL}}{line}")


def resume_command(opt: Namespace) -> str:
    """Return the command that resumes the run on the same machine, with the options that are not saved with it."""
    return _command(
        "train", ["--continue_train", "--name", opt.name, *format_flags(opt, opt.explicit & NOT_RESTORED - START)]
    )


def test_command(opt: Namespace) -> str:
    """Return the command that tests the run, on the training images if the dataset has no others."""
    is_split = opt.dataset_mode != "singleimage" and not has_own_folders(opt)
    has_test_images = any(path.is_dir() for phase in ("test", "val") for path in Path(opt.dataroot).glob(f"{phase}*"))
    phase = ["--phase", opt.phase] if is_split and not has_test_images else []
    shared = {"checkpoints_dir"} if "," in opt.gpu_ids else {"checkpoints_dir", "gpu_ids"}
    return _command("test", ["--name", opt.name, *phase, *format_flags(opt, opt.explicit & shared)])


def _command(program: str, arguments: Sequence[str]) -> str:
    started = Path(sys.argv[0])
    is_file = started.suffix == ".py"  # not a console command such as cut-train
    start = ["python", str(started.with_name(f"{program}.py"))] if is_file else [f"cut-{program}"]
    return shlex.join([*start, *arguments])


def format_flags(opt: Namespace, names: Collection[str]) -> list[str]:
    """Return the arguments that set these options to their values."""
    values = {name: getattr(opt, name) for name in sorted(names)}
    return [
        argument
        for name, value in values.items()
        if value is not None
        for argument in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
