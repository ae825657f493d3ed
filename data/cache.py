"""Images held in memory, decoded and scaled, so that only crop, flip and scaling of values remain of each reading."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from data.base_dataset import BaseDataset
from data.image_folder import TwoStageTransform
from data.image_io import ImageError, read_image
from data.workers import WorkerDiedError, Workers
from util.errors import EnvironmentFailure

GIGABYTE = 1_000_000_000


class ImageCache:
    """The memory of a dataset: filled once for the epochs before the learning rate decays and, where images are scaled
    otherwise from then on, once for those after.

    It is to be filled while the loader has no workers. Those that start afterwards by fork see this memory; they get no
    copies of it.
    """

    def __init__(self, dataset: BaseDataset, gigabytes: float, num_threads: int) -> None:
        """Args: gigabytes bounds the memory; num_threads is the number of worker processes that decode, 0 for none."""
        self.dataset = dataset
        self.gigabytes = gigabytes
        self.num_threads = num_threads
        self._filled_for: Sequence[TwoStageTransform] | None = None

    def is_valid_for(self, epoch: int) -> bool:
        """Whether the images at hand are prepared as those of `epoch` are."""
        return self._filled_for == self.dataset.transforms_for_epoch(epoch)

    def fill(self, epoch: int, while_waiting: Callable[[], None]) -> None:
        """Reads the images of `epoch` in place of those at hand, until all are there or the memory is used up; says so.

        What cannot be read is not held: it is read again, as without a cache. Raises EnvironmentFailure if a worker dies.
        """
        started, used, is_full = time.monotonic(), 0, False
        domains, transforms = self.dataset.domains, self.dataset.transforms_for_epoch(epoch)
        for domain in domains:
            domain.keep({}, None)  # gives its memory back first
        kept: list[dict[int, np.ndarray]] = [{} for _ in domains]

        places = [(number, index) for number, domain in enumerate(domains) for index in range(len(domain))]
        workers = Workers(DeterministicStage(self.dataset, transforms), self.num_threads, while_waiting=while_waiting)
        prepared = workers.read(places)
        bar = tqdm(prepared, "cache", len(places), unit=" images", leave=False, disable=None)
        try:
            for (number, index), pixels in zip(places, bar, strict=False):
                if pixels is None:
                    continue
                is_full = used + pixels.nbytes > self.gigabytes * GIGABYTE
                if is_full:
                    break
                kept[number][index] = pixels
                used += pixels.nbytes
        except WorkerDiedError:
            raise EnvironmentFailure(
                f"a worker process has died while it read images for --cache, most likely for want of memory: give "
                f"--cache less than {self.gigabytes:g} GB, or lower --num_threads"
            ) from None
        finally:
            bar.close()
            workers.close()

        for domain, images, transform in zip(domains, kept, transforms, strict=True):
            domain.keep(images, transform)
        self._filled_for = transforms
        count = sum(map(len, kept))
        if is_full:
            tqdm.write(
                f"cache: {count} of {len(places)} images fill the {self.gigabytes:g} GB that --cache may take; "
                f"the others are read from their files every time (--cache GB sets how much it may take)"
            )
        else:
            seconds = time.monotonic() - started
            tqdm.write(f"cache: {count} images in {used / GIGABYTE:.3g} GB of memory, read in {seconds:.0f} seconds")


class DeterministicStage(Dataset[np.ndarray | None]):
    """Maps (number of a domain, index of an image) to the prepared image, None where it cannot be used."""

    def __init__(self, dataset: BaseDataset, transforms: Sequence[TwoStageTransform]) -> None:
        """Args: transforms has one for each domain of `dataset`."""
        self.paths = [domain.paths for domain in dataset.domains]
        self.transforms = transforms

    def __getitem__(self, place: tuple[int, int]) -> np.ndarray | None:
        number, index = place
        try:
            return np.ascontiguousarray(self.transforms[number].prepare(read_image(self.paths[number][index])))
        except ImageError:
            return None
