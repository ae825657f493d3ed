"""Translate images with a trained model, and write a results page:
`python test.py --dataroot ./datasets/grumpifycat --name grumpycat_CUT --CUT_mode CUT --phase train`.

Results go to `<results_dir>/<name>/<phase>_<epoch>/index.html`; `results_folder` has the exceptions.
"""

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from tqdm import tqdm

from data import ImageDataLoader, create_dataset
from data.base_dataset import source_and_target
from data.dataset_check import value_range_of
from data.domain_folder import has_own_folders
from models import create_model
from models.base_model import BaseModel
from models.inference.exact_results import ExactResults
from models.inference.memory import SizeCheck
from models.networks.base import Generator, check_batch_independence
from options import TestOptions
from options.run_summary import print_test_summary
from options.saved_options import (
    check_run_exists,
    conflicts_with_training,
    inferred_architecture_args,
    saved_architecture_args,
    saved_data_args,
)
from util.browser import open_page
from util.channel_view import ChannelView, parse_channels
from util.cli import configure_stdio
from util.dir_lock import lock_dir
from util.errors import UserError, exit_on_user_error
from util.files import sha256
from util.html.page import captions
from util.html.page_record import describe_results
from util.html.results_page import ResultsPage, remove_leftovers
from util.images import AsyncImageWriter
from util.runtime.ema import EMA_SUFFIX
from util.signals import DeferredInterrupt
from util.terminal import print_line
from util.version import program_version

PHASES = ("train", "val", "test")
MAIN_SUFFIXES = ("", "_A")  # of generators whose results are in the published folder; those of _ema depend on --ema


def parse_with_saved_options(arguments: list[str]) -> Namespace:
    """Parse the command line, with the options that were saved with the run as defaults: architecture, sizes, data root."""
    requested = TestOptions().parse(arguments, is_complete=False)
    check_run_exists(requested, arguments)
    for line in conflicts_with_training(requested):
        print_line(f"note: {line}")
    saved = saved_architecture_args(requested)
    architecture = saved or inferred_architecture_args(requested)
    opt = TestOptions().parse([*architecture, *saved_data_args(requested), *arguments])
    opt.explicit = requested.explicit
    if opt.model == "test" and opt.model_suffix.startswith("_B"):
        if saved and opt.explicit.isdisjoint({"input_nc", "output_nc"}):  # those of the run are for G_A
            opt.input_nc, opt.output_nc = opt.output_nc, opt.input_nc
        if "direction" not in opt.explicit:
            opt.direction = "BtoA" if opt.direction == "AtoB" else "AtoB"
            print_line(f"--model_suffix {opt.model_suffix}: this generator translates back, --direction {opt.direction}")
    return opt


def test(opt: Namespace) -> None:
    """Translate the first --num_test images of the source domain, in order and without random transforms."""
    opt.serial_batches = True
    opt.no_flip = True

    dataset = create_dataset(opt)
    model = create_model(opt)
    model.load_networks(opt.epoch)
    if opt.eval:
        model.eval()
    check_batch_independence(model.networks, opt.batch_size)

    count = min(opt.num_test, len(dataset))
    exact, view = ExactResults(opt), ChannelView(parse_channels(opt.show_channels), dataset.has_wide_range)
    print_test_summary(opt, dataset, model, count, view)

    results_dir = results_folder(opt, Path(dataset.source_folder))
    if older := describe_results(results_dir):
        print_line(f"at its end, this test replaces {results_dir}: {older}")
    with lock_dir(results_dir, "--results_dir and --name") as alone:
        remove_leftovers(results_dir, alone)
        with ResultsPage(
            results_dir,
            title=opt.easy_label if "easy_label" in opt.explicit else opt.name,
            source_root=Path(dataset.source_folder),
            facts={"data": str(dataset.source_folder), "epoch": opt.epoch}
            | ({} if opt.direction == "AtoB" else {"direction": opt.direction})
            | ({"weights": "moving average"} if opt.ema else {})
            | ({"display": view.describe(opt.output_nc)} if view.changes(opt.output_nc) else {}),
            image_width=opt.display_winsize,
            save_image=(writer := AsyncImageWriter(opt.num_threads)).save,
            record=describe_test(opt, dataset, model),
            captions=captions(opt.direction[-1], paired=opt.dataset_mode == "aligned"),
        ) as page:
            with writer:
                results = islice(run_inference(model, dataset), count)
                for paths, visuals in tqdm(results, "testing", count, unit=" images", disable=None):
                    page.add(paths["A"], visuals, exact(paths, visuals), view)
            if not page.rows:
                raise UserError(f"{dataset.source_folder}: no image could be translated. See the messages above.")
            with DeferredInterrupt():
                page.save()
        print(f"results: {page.directory / 'index.html'}")
    if opt.open:
        open_page(page.directory / "index.html")


def results_folder(opt: Namespace, source_folder: Path) -> Path:
    """Return the folder of the results page, by default the published `<results_dir>/<name>/<phase>_<epoch>`.

    - A folder or an image that belongs to no dataset gives the name instead of --phase, unless that is given too.
    - A generator other than the run's first one is named: `_G_B` for --model_suffix _B, and `_ema` for --ema.
    """
    split, dataroot = opt.phase, Path(opt.dataroot)
    is_own = dataroot.is_file() or source_folder == dataroot or has_own_folders(opt)
    if "phase" not in opt.explicit and is_own:
        own = dataroot.resolve() if dataroot.is_file() else source_folder.resolve()
        split = own.stem if dataroot.is_file() else own.name or opt.phase
        if split in PHASES:  # the folders of a dataset have these names
            split = f"{own.parent.name}_{split}"
    is_other = opt.model == "test" and opt.model_suffix not in MAIN_SUFFIXES
    network = f"_G{opt.model_suffix}" if is_other else ""
    return Path(opt.results_dir) / opt.name / f"{split}_{opt.epoch}{network}{EMA_SUFFIX if opt.ema else ''}"


def describe_test(opt: Namespace, dataset: ImageDataLoader, model: BaseModel) -> dict[str, Any]:
    """Return what `page.json` says about a test, besides its results."""
    source, target = source_and_target(opt)
    folder = Path(os.path.abspath(dataset.source_folder))  # noqa: PTH100 - a link keeps its name, such as testA
    if has_own_folders(opt):
        own_partner = getattr(opt, f"dataroot_{target}")
        partner = Path(own_partner).resolve() if own_partner else None
    else:
        partner = folder.with_name(folder.name.removesuffix(source) + target)
        partner = partner if folder.name.endswith(source) and partner.is_dir() else None
    return {
        "program": program_version(),
        "name": opt.name,
        "model": opt.model,
        "netG": opt.netG,
        "epoch": opt.epoch,
        "phase": opt.phase,
        "direction": opt.direction,
        "dataroot": str(folder.parent if has_own_folders(opt) else Path(opt.dataroot).resolve()),
        "dataset_mode": opt.dataset_mode,
        "source": str(folder),
        "target": str(partner) if partner else None,
        **{name: getattr(opt, name) for name in ("preprocess", "load_size", "crop_size")},
        "weights": [
            {"network": name, "file": str(file.resolve()), "sha256": sha256(file)}
            for name, file in model.weights_files(opt.epoch).items()
        ],
        "images": len(dataset),
        # The model calls its source domain A, whatever the direction.
        "value_range": {"A": opt_range(opt, source), "B": opt_range(opt, target)},
        **{name: getattr(opt, name) for name in ("show_channels", "tiff_pages", "max_megapixels", "to_srgb")},
    }


def opt_range(opt: Namespace, domain: str) -> str | None:
    """Return the value range of a domain as text, None for the full range of 8- or 16-bit samples."""
    found = value_range_of(opt, domain)
    return None if found is None else str(found)


def run_inference(model: BaseModel, dataset: ImageDataLoader) -> Iterator[tuple[dict[str, str], dict[str, Tensor]]]:
    """Yield the files and the visuals of each sample, in order: (1, C, H, W) tensors by their published names.

    As in the visuals, the source domain is A, whatever the direction.
    """
    source, target = source_and_target(model.opt)
    generator = cast(Generator, next(iter(model.generators.values())))
    check_size = SizeCheck(generator, model.opt.input_nc, model.device)
    for batch in dataset:
        model.set_input(batch)
        for images in (model.real_A, model.real_B)[: len(model.generators)]:  # CycleGAN translates B, too
            check_size(images, model.image_paths[0])
        model.test()
        visuals = model.get_current_visuals()
        files: dict[str, Any] = {"A": batch[f"{source}_paths"], "B": batch.get(f"{target}_paths")}
        for number in range(len(model.image_paths)):
            paths = {domain: found[number] for domain, found in files.items() if found}
            yield paths, {name: images[number : number + 1] for name, images in visuals.items()}


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        test(parse_with_saved_options(sys.argv[1:]))


if __name__ == "__main__":
    main()
