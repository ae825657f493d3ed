"""Cache of decoded and resized images in memory, for --cache: each epoch then only crops, flips and scales values."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from data.base_dataset import BaseDataset
from data.image_array import ImageError
from data.image_folder import TwoStageTransform
from data.workers import WorkerDiedError, Workers
from util.errors import EnvironmentFailure
from util.terminal import print_line

GIGABYTE = 1_000_000_000


class ImageCache:
    """Results of the deterministic stage of a dataset's transforms.

    The cache is filled once for the epochs with a constant learning rate, and a second time for the decay if images are
    resized differently there.

    Fill it while the loader has no workers. Workers that are forked afterwards share its memory and copy nothing.
    """

    def __init__(self, dataset: BaseDataset, gigabytes: float, num_threads: int) -> None:
        """Args: gigabytes is the maximum size; num_threads is the number of worker processes that decode, 0 for none."""
        self.dataset = dataset
        self.gigabytes = gigabytes
        self.num_threads = num_threads
        self._filled_for: Sequence[TwoStageTransform] | None = None

    def is_valid_for(self, epoch: int) -> bool:
        """Return True if the cached images were computed by the transforms of `epoch`."""
        return self._filled_for == self.dataset.transforms_for_epoch(epoch)

    def fill(self, epoch: int, while_waiting: Callable[[], None]) -> None:
        """Replace the cached images by those of `epoch`, until all are cached or the memory is used up, and print a line.

        Unreadable images are not cached; they are tried again whenever they are needed.

        Raises:
            EnvironmentFailure: a worker process died.
        """
        start, used, is_full = time.monotonic(), 0, False
        domains, transforms = self.dataset.domains, self.dataset.transforms_for_epoch(epoch)
        for folder in domains:
            folder.set_cache({}, None)  # frees the memory first
        cached: list[dict[int, np.ndarray]] = [{} for _ in domains]

        keys = [(domain, index) for domain, images in enumerate(domains) for index in range(len(images))]
        workers = Workers(DeterministicStage(self.dataset, transforms), self.num_threads, while_waiting=while_waiting)
        results = tqdm(workers.read(keys), "cache", len(keys), unit=" images", leave=False, disable=None)
        try:
            for (domain, index), pixels in zip(keys, results, strict=False):
                if pixels is None:
                    continue
                is_full = used + pixels.nbytes > self.gigabytes * GIGABYTE
                if is_full:
                    break
                cached[domain][index] = pixels
                used += pixels.nbytes
        except WorkerDiedError:
            raise EnvironmentFailure(
                f"--cache: a worker process died while it read images, probably because memory ran out. Use less than "
                f"{self.gigabytes:g} GB, or lower --num_threads."
            ) from None
        finally:
            results.close()
            workers.close()

        for folder, arrays, transform in zip(domains, cached, transforms, strict=True):
            folder.set_cache(arrays, transform)
        self._filled_for = transforms
        count = sum(map(len, cached))
        if is_full:
            print_line(
                f"cache: full with {count} of {len(keys)} images in {self.gigabytes:g} GB; the other images are read from "
                f"disk in every epoch (--cache GB sets the size)"
            )
        else:
            seconds = time.monotonic() - start
            dtypes = " and ".join(sorted({str(pixels.dtype) for arrays in cached for pixels in arrays.values()}))
            print_line(
                f"cache: {count} images ({dtypes}) in {used / GIGABYTE:.3g} GB of memory, read in {seconds:.0f} seconds"
            )


class DeterministicStage(Dataset[np.ndarray | None]):
    """Map (index of a domain, index of an image) to the result of the deterministic stage, None if it is unreadable."""

    def __init__(self, dataset: BaseDataset, transforms: Sequence[TwoStageTransform]) -> None:
        """Args: transforms has one element for each domain of `dataset`."""
        self.domains = dataset.domains
        self.transforms = transforms

    def __getitem__(self, key: tuple[int, int]) -> np.ndarray | None:
        domain, index = key
        try:
            images = self.domains[domain]
            return np.ascontiguousarray(self.transforms[domain].apply_deterministic(images.read(images.paths[index])))
        except ImageError:
            return None
