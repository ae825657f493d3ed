"""Small images, datasets of them, and options that read them."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.base_dataset import Sample
from data.loader import Batch


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an RGB image of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ramp(width: int = 256, height: int = 256) -> Image.Image:
    """Return an RGB image: red is the column and green is the row, scaled to 0…255."""
    columns, rows = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], 2).round().astype(np.uint8))


def fill(folder: Path, count: int, size: tuple[int, int] = (20, 16), seed: int = 0) -> list[Path]:
    """Write `count` images of noise, 00.png …, to `folder`. Return their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02}.png" for number in range(count)]
    for number, path in enumerate(paths):
        noise(*size, seed=1000 * seed + number).save(path)
    return paths


def two_domains(root: Path, phase: str = "train", n_A: int = 5, n_B: int = 3, size: tuple[int, int] = (20, 16)) -> Path:
    """Create the unpaired dataset <phase>A, <phase>B in `root`. Return `root`."""
    fill(root / f"{phase}A", n_A, size, seed=1)
    fill(root / f"{phase}B", n_B, size, seed=2)
    return root


def options(dataroot: Path, is_train: bool = True, **changes: Any) -> Namespace:
    """Return the options of a dataset as the command line sets them, with small sizes."""
    opt = Namespace(
        dataroot=str(dataroot),
        dataroot_A=None,
        dataroot_B=None,
        dataset_mode="unaligned",
        isTrain=is_train,
        phase="train" if is_train else "test",
        direction="AtoB",
        explicit=frozenset(),
        value_range=None,
        show_channels=None,
        value_range_A=None,
        value_range_B=None,
        tiff_pages="largest",
        max_megapixels=None,
        to_srgb=False,
        input_nc=3,
        output_nc=3,
        serial_batches=not is_train,
        num_threads=0,
        prefetch_factor=2,
        gpu_ids="-1",
        batch_size=1,
        load_size=20,
        crop_size=16,
        max_dataset_size=float("inf"),
        preprocess="resize_and_crop",
        no_flip=not is_train,
        random_scale_max=3.0,
        seed=0,
        singleimage_published_sampling=False,
    )
    if is_train:
        opt.n_epochs = 100
        opt.cache = None
        opt.steps_per_epoch = None
    vars(opt).update(changes)
    return opt


def pixels(batch: Batch | Sample, domain: str = "A") -> np.ndarray:
    """Return the images of `domain` as uint8, channels first."""
    return np.round((np.asarray(batch[domain], dtype=np.float64) + 1) * 127.5).astype(np.uint8)
