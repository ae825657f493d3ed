"""Fixed source images of a dataset, which the training page shows translated again and again."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from data import DATASETS
from data.base_dataset import BaseDataset, SampleIndex
from data.eval_data import options_of_test
from util.errors import UserError

MAX_SIDE = 1024  # pixels; of larger images the center is used, because training may never have seen a whole one


def load_sample_images(opt: Namespace, count: int, *, any_size: bool = True) -> dict[str, Tensor]:
    """Return up to `count` source images by their paths below their folder, (1, C, H, W) in [-1, 1].

    They are evenly spaced in the test split, or in the training split if there is no other, and read as in a test. The
    choice depends on the files alone, and no random state changes. Unreadable images are left out.

    Args:
        opt: training options.
        any_size: the generator accepts images of any size, see `geometry_for_test`.
    """
    images: dict[str, Tensor] = {}
    for dataset in _splits(opt, any_size):
        for number in range(min(count, len(dataset))):
            sample = dataset[SampleIndex(1, number * len(dataset) // min(count, len(dataset)))]
            if sample is not None:
                path = Path(sample[f"{dataset.source}_paths"])
                images[path.relative_to(dataset.source_folder).as_posix()] = _center(sample[dataset.source])[None]
        if images:
            break
    return images


def _splits(opt: Namespace, any_size: bool) -> Iterator[BaseDataset]:
    """Yield the splits that exist: test, then that of the training."""
    dataset_class = DATASETS[opt.dataset_mode]
    for phase in ("test", opt.phase):
        split = options_of_test(opt, phase, any_size=any_size)
        for create in (dataset_class.eval_source, dataset_class):  # a single pair of images has no evaluation
            try:
                yield create(split)
            except UserError:
                continue


def _center(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    top, left = (max(0, side - MAX_SIDE) // 2 for side in (height, width))
    return image[:, top : top + MAX_SIDE, left : left + MAX_SIDE]
