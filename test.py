"""Translate images with a trained model, and write a results page:
`python test.py --dataroot ./datasets/grumpifycat --name grumpycat_CUT --CUT_mode CUT --phase train`.

Results go to `<results_dir>/<name>/<phase>_<epoch>/index.html`.
"""

if __name__ == "__main__":
    from util.signals import quiet_sigint_during_import

    quiet_sigint_during_import()

# isort: split

import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from torch import Tensor

from data import ImageDataLoader, create_dataset
from models import create_model
from models.base_model import BaseModel
from models.networks.base import check_batch_independence
from options import TestOptions
from options.saved_options import (
    conflicts_with_training,
    describe_options,
    describe_test_geometry,
    saved_architecture_args,
    saved_data_args,
)
from util.cli import configure_stdio
from util.dir_lock import lock_dir
from util.errors import UserError, exit_on_user_error
from util.files import remove_stale_temp_files
from util.html.results_page import ResultsPage
from util.images import AsyncImageWriter
from util.runtime.device import describe_device
from util.runtime.ema import EMA_SUFFIX


def parse_with_saved_options(arguments: list[str]) -> Namespace:
    """Parse the command line, with the options that were saved with the run as defaults: architecture, sizes, data root."""
    requested = TestOptions().parse(arguments, is_complete=False)
    for line in conflicts_with_training(requested):
        print(f"note: {line}")
    opt = TestOptions().parse([*saved_architecture_args(requested), *saved_data_args(requested), *arguments])
    opt.explicit = requested.explicit
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
    print(describe_options(opt))
    print(model.describe(opt.verbose))

    count = min(opt.num_test, len(dataset))
    hint = " (raise --num_test for more)" if count < len(dataset) else ""
    print(describe_test_geometry(opt))
    print(f"{count} of {len(dataset)} images{hint}, on {describe_device(model.device)}")

    results_dir = Path(opt.results_dir) / opt.name / f"{opt.phase}_{opt.epoch}{EMA_SUFFIX if opt.ema else ''}"
    with lock_dir(results_dir, "--results_dir and --name") as alone:
        remove_stale_temp_files(results_dir.rglob("*part*"), alone)
        with AsyncImageWriter(opt.num_threads) as writer:
            page = ResultsPage(
                results_dir,
                title=opt.easy_label if "easy_label" in opt.explicit else opt.name,
                source_root=Path(dataset.source_folder),
                facts={"phase": opt.phase, "epoch": opt.epoch} | ({"weights": "moving average"} if opt.ema else {}),
                image_width=opt.display_winsize,
                save_image=writer.save,
            )
            translated = 0
            for path, visuals in islice(run_inference(model, dataset), count):
                page.add(path, visuals)
                translated += 1
        if translated == 0:
            raise UserError(f"{dataset.source_folder}: no image could be translated. See the messages above.")
        page.save()
        print(f"results: {page.directory / 'index.html'}")


def run_inference(model: BaseModel, dataset: ImageDataLoader) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the path and the visuals of each image, in order: (1, C, H, W) tensors by their published names."""
    for batch in dataset:
        model.set_input(batch)
        model.test()
        visuals = model.get_current_visuals()
        for number, path in enumerate(model.image_paths):
            yield path, {name: images[number : number + 1] for name, images in visuals.items()}


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        test(parse_with_saved_options(sys.argv[1:]))


if __name__ == "__main__":
    main()
