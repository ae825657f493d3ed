"""Measure how many images per second one core reads, compared with the published transforms.

    python scripts/benchmarks/benchmark_data.py

The augmentation is the default one: resize to 286x286 pixels, random 256x256 crop, random horizontal flip. The
configurations are timed in interleaved rounds of one process, by the CPU time of a single thread.

    python scripts/benchmarks/benchmark_data.py --formats

compares files of other bit depths and band counts with JPEG, by megapixels times bands.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from measure_step import synchronize, timed
from training_steps import make_step_fn

from data import ImageDataLoader, create_dataset
from data.image_array import ImageArray
from data.image_folder import list_images
from data.image_io import read_array
from data.image_writer import write_array
from models import create_model
from options import TrainOptions
from util.cli import CLIParser, positive_int
from util.errors import exit_on_user_error
from util.files import prepare_output_file

LOAD_SIZE, CROP_SIZE = 286, 256
NUM_PHOTOS, PHOTO_SIZE = 60, 256  # per domain; side in pixels
# Ending, bands and dtype of the formats to compare.
FORMATS = {
    "8-bit RGB JPEG": (".jpg", 3, "uint8"),
    "5-band uint16 TIFF": (".tif", 5, "uint16"),
    "5-band uint16 .npy": (".npy", 5, "uint16"),
    "3-band float32 .npy": (".npy", 3, "float32"),
}
PUBLISHED, DEFAULT, CACHED = "as published", "default", "--cache"


def load_published(path: str) -> torch.Tensor:
    """Load an image with the published transforms, one after another. Return (3, H, W) in [-1, 1]."""
    image = Image.open(path).convert("RGB")
    image = image.resize((LOAD_SIZE, LOAD_SIZE), Image.Resampling.BICUBIC)
    left, top = random.randint(0, LOAD_SIZE - CROP_SIZE), random.randint(0, LOAD_SIZE - CROP_SIZE)
    image = image.crop((left, top, left + CROP_SIZE, top + CROP_SIZE))
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return tensor.sub(0.5).div(0.5)


class PublishedDataset(Dataset[dict[str, torch.Tensor]]):
    """Pairs each image of A with a random image of B, as the published unaligned dataset does."""

    def __init__(self, dataroot: Path) -> None:
        self.A, self.B = (list_images(str(dataroot / f"train{domain}")) for domain in "AB")

    def __len__(self) -> int:
        return len(self.A)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"A": load_published(self.A[index]), "B": load_published(random.choice(self.B))}


def create_loader(dataroot: Path, *arguments: str) -> ImageDataLoader:
    """Create the project's data loader without worker processes."""
    return create_dataset(
        TrainOptions().parse(["--dataroot", str(dataroot), "--num_threads", "0", "--gpu_ids", "-1", *arguments])
    )


def measure_loading(dataroot: Path, rounds: int = 5) -> dict[str, float]:
    """Return images per second of one core, by configuration: medians over `rounds` interleaved epochs."""
    epochs: dict[str, Callable[[], Iterator]] = {
        PUBLISHED: DataLoader(PublishedDataset(dataroot), shuffle=True).__iter__,
        DEFAULT: create_loader(dataroot).__iter__,
        CACHED: create_loader(dataroot, "--cache").__iter__,
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        list(epochs[CACHED]())  # fill the cache
        rates: dict[str, list[float]] = {config: [] for config in epochs}
        for _ in tqdm(range(rounds), "rounds", disable=None):
            for config, iterate in epochs.items():
                start = time.process_time()
                images = sum(2 for _ in iterate())
                rates[config].append(images / (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    return {config: median(each) for config, each in rates.items()}


def measure_formats(folder: Path, photos: Path, rounds: int = 5) -> dict[str, float]:
    """Return megapixels times bands per second of one core by file format, for the same photos in every format."""
    loaders: dict[str, ImageDataLoader] = {}
    paths = list_images(str(photos))
    for name, (suffix, bands, dtype) in FORMATS.items():
        for path in paths:
            pixels = np.tile(read_array(path).pixels, 2)[:, :, :bands].astype(dtype)
            target = folder / name / Path(path).relative_to(photos).with_suffix(suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_array(ImageArray(pixels), target)
        arguments = [f"--input_nc={bands}", f"--output_nc={bands}", "--value_range=0,255"]
        loaders[name] = create_loader(folder / name, *([] if suffix == ".jpg" else arguments))
    rates: dict[str, list[float]] = {name: [] for name in FORMATS}
    for _ in tqdm(range(rounds), "rounds", disable=None):
        for name, loader in loaders.items():
            start = time.process_time()
            images = sum(2 for _ in loader)
            megapixels = images * PHOTO_SIZE**2 * FORMATS[name][1] / 10**6
            rates[name].append(megapixels / (time.process_time() - start))
    return {name: median(each) for name, each in rates.items()}


def measure_loop(dataroot: Path, device: torch.device, steps: int) -> dict[str, float]:
    """Return images per second of CUT at 256 px from image files: the step alone, and the loop with the data loader."""
    arguments = ["--dataroot", str(dataroot), "--num_threads", "2", "--gpu_ids", "-1" if device.type == "cpu" else "0"]
    model = create_model(TrainOptions().parse(arguments))
    loader = create_dataset(model.opt)
    step = make_step_fn(model)
    step()
    steps_alone, loop_steps = [], []
    loader.set_epoch(1)
    batches = iter(loader)
    next(batches)
    for _ in tqdm(range(steps), "loop", disable=None):
        steps_alone.append(timed(step, device))
        start = time.perf_counter()
        model.set_input(next(batches))
        model.optimize_parameters()
        synchronize(device)
        loop_steps.append(time.perf_counter() - start)
    return {"step alone": 1 / median(steps_alone), "whole loop": 1 / median(loop_steps)}


def make_photo_dataset(dataroot: Path) -> None:
    """Fill trainA and trainB with JPEG files that have about as much detail as photos."""
    rng = np.random.default_rng(0)
    for domain in "AB":
        (dataroot / f"train{domain}").mkdir()
        for number in range(NUM_PHOTOS):
            image = np.zeros((PHOTO_SIZE, PHOTO_SIZE, 3))
            for cells in (4, 16, 64, PHOTO_SIZE):  # noise at several scales, with 1/f amplitudes
                noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
                image += np.asarray(noise.resize((PHOTO_SIZE, PHOTO_SIZE), Image.Resampling.BICUBIC)) / cells
            pixels = (image / image.max() * 255).astype(np.uint8)
            Image.fromarray(pixels).save(dataroot / f"train{domain}" / f"{number:03}.jpg", quality=90)


@exit_on_user_error()
def main() -> None:
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--dataroot", type=Path, help="dataset with trainA and trainB; default: generated images")
    images.add_argument("--formats", action="store_true", help="compare file formats instead, on generated images")
    parser.add_argument("--rounds", type=positive_int, default=5, help="epochs per configuration")
    parser.add_argument("--json", type=Path, help="results file")
    arguments = parser.parse_args()
    if arguments.json:
        prepare_output_file(arguments.json, "--json")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.dataroot is None:
            make_photo_dataset(Path(folder))
        if arguments.formats:
            torch.set_num_threads(1)
            for name, rate in measure_formats(Path(folder, "formats"), Path(folder), arguments.rounds).items():
                print(f"{name:>20}: {rate:4.0f} megapixels times bands per second and core")
            return
        rates = measure_loading(arguments.dataroot or Path(folder), arguments.rounds)
    for config, rate in rates.items():
        print(f"{config:>15}: {rate:6.0f} images per second and core, {rate / rates[PUBLISHED]:.2f} x published")
    if arguments.json:
        arguments.json.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
