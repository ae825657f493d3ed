"""Measures how many images a second one core reads, beside the published transforms.

Default augmentation: images are scaled to 286x286 pixels, cropped to 256x256 at random and mirrored at random. The ways
are timed in one run, in turns, by the CPU time of a single thread. All read the same, apart from what is drawn.
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

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the script is run from anywhere

from data import ImageDataLoader, create_dataset
from data.image_folder import list_images
from options import TrainOptions
from util.cli import (
    CLIParser,
    positive_int,
)
from util.errors import exit_on_user_error

LOAD_SIZE, CROP_SIZE = 286, 256
PHOTOGRAPHS, SIDE = 60, 256  # that are drawn of each domain, and their side in pixels
PUBLISHED, HERE, CACHED = "as published", "here", "here, --cache"


def published_image(path: str) -> torch.Tensor:
    """The published transforms, step by step."""
    image = Image.open(path).convert("RGB")
    image = image.resize((LOAD_SIZE, LOAD_SIZE), Image.Resampling.BICUBIC)
    left, top = random.randint(0, LOAD_SIZE - CROP_SIZE), random.randint(0, LOAD_SIZE - CROP_SIZE)
    image = image.crop((left, top, left + CROP_SIZE, top + CROP_SIZE))
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return tensor.sub(0.5).div(0.5)


class PublishedPairs(Dataset[dict[str, torch.Tensor]]):
    """Each image of A with a random one of B, as the published dataset gives them."""

    def __init__(self, dataroot: Path) -> None:
        self.A, self.B = (list_images(str(dataroot / f"train{domain}")) for domain in "AB")

    def __len__(self) -> int:
        return len(self.A)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"A": published_image(self.A[index]), "B": published_image(random.choice(self.B))}


def loader(dataroot: Path, *arguments: str) -> ImageDataLoader:
    """The loader of the project, reading in this process."""
    return create_dataset(
        TrainOptions().parse(["--dataroot", str(dataroot), "--num_threads", "0", "--gpu_ids", "-1", *arguments])
    )


def measure(dataroot: Path, rounds: int = 5) -> dict[str, float]:
    """Images per second of one core, by way of reading; medians over `rounds` epochs of each way, taken in turns."""
    ways: dict[str, Callable[[], Iterator]] = {
        PUBLISHED: DataLoader(PublishedPairs(dataroot), shuffle=True).__iter__,
        HERE: loader(dataroot).__iter__,
        CACHED: loader(dataroot, "--cache").__iter__,
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        list(ways[CACHED]())  # fills the cache
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in tqdm(range(rounds), "rounds", disable=None):
            for way, epoch in ways.items():
                started = time.process_time()
                images = sum(2 for _ in epoch())
                rates[way].append(images / (time.process_time() - started))
    finally:
        torch.set_num_threads(threads)
    return {way: median(each) for way, each in rates.items()}


def draw_photographs(dataroot: Path) -> None:
    """Fills trainA and trainB with JPEG files of as much detail as photographs have."""
    rng = np.random.default_rng(0)
    for domain in "AB":
        (dataroot / f"train{domain}").mkdir()
        for number in range(PHOTOGRAPHS):
            image = np.zeros((SIDE, SIDE, 3))
            for cells in (4, 16, 64, SIDE):  # the finer the weaker
                noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
                image += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / cells
            pixels = (image / image.max() * 255).astype(np.uint8)
            Image.fromarray(pixels).save(dataroot / f"train{domain}" / f"{number:03}.jpg", quality=90)


@exit_on_user_error()
def main() -> None:
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataroot", type=Path, help="dataset with trainA and trainB; by default one is drawn")
    parser.add_argument("--rounds", type=positive_int, default=5, help="epochs of each way")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as drawn:
        if arguments.dataroot is None:
            draw_photographs(Path(drawn))
        rates = measure(arguments.dataroot or Path(drawn), arguments.rounds)
    for way, rate in rates.items():
        print(f"{way:>15}: {rate:6.0f} images per second and core, {rate / rates[PUBLISHED]:.2f} of the published")
    if arguments.json:
        arguments.json.write_text(json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
