"""Reads batches in worker processes ahead of the training, and reports what went wrong there."""

import signal
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.base_dataset import BaseDataset, Position, Sample
from data.sampler import EpochBatches
from util.errors import UserError

Batch = dict[str, torch.Tensor | list[str]]  # "A", "B": (N, C, H, W) in [-1, 1]; "A_paths", "B_paths"

# --num_threads is the user's choice, and the published 4 is above the cores of many a machine.
warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes")


class Delivery(NamedTuple):
    """What a worker hands over: a batch, unless there was nothing readable, and what went wrong on the way."""

    batch: Batch | None
    skipped: dict[str, str]  # path -> why the picture could not be used
    error: UserError | None  # returned, since an exception raised in a worker arrives as a traceback in a string


class BatchReader(Dataset[Delivery]):
    """Maps the positions of a batch to the batch; runs in the workers."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, positions: list[Position]) -> Delivery:
        batch, mistake = None, None
        try:
            samples = [sample for position in positions if (sample := self.dataset[position]) is not None]
            batch = collate(samples) if samples else None
        except UserError as error:
            mistake = error
        return Delivery(batch, self.dataset.take_skipped(), mistake)


class PictureLoader:
    """An iterable of the batches of an epoch: call `set_epoch`, then iterate, and so on for every epoch."""

    def __init__(self, dataset: BaseDataset, batches: EpochBatches, num_threads: int) -> None:
        """Args: num_threads is the number of worker processes, 0 to read in this one. Batches do not depend on it."""
        self.n_images = len(dataset)
        self.source_folder = dataset.source_folder
        self.skipped: dict[str, str] = {}  # path -> why; every unusable picture met so far
        self._positions = batches
        self._deliveries = DataLoader(
            BatchReader(dataset),
            batch_size=None,  # the reader makes the batches
            sampler=batches,
            num_workers=num_threads,
            persistent_workers=num_threads > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_interrupts,
            generator=torch.Generator(),  # keeps torch from advancing the global generator at each epoch
        )

    def __len__(self) -> int:
        """Images in an epoch, the last incomplete batch and unreadable pictures included."""
        return self.n_images

    def set_epoch(self, epoch: int, first_sample: int = 0) -> None:
        """Chooses the epoch (from 1) of the next iteration, and how many of its samples are left out because they were
        trained on before the run was interrupted."""
        self._positions.epoch = epoch
        self._positions.first_sample = first_sample

    def __iter__(self) -> Iterator[Batch]:
        """Raises a UserError where the pictures leave nothing to go on with."""
        for batch, skipped, error in self._deliveries:
            self._report(skipped)
            if error is not None:
                raise error
            if batch is not None:
                yield batch

    def _report(self, skipped: dict[str, str]) -> None:
        """Names each unusable picture once, with the number of them so far."""
        for path, reason in skipped.items():
            if path not in self.skipped:
                self.skipped[path] = reason
                print(f"skipped {path!r}: {reason} ({len(self.skipped)} skipped so far)", file=sys.stderr)


def ignore_interrupts(worker: int) -> None:
    """Leaves Ctrl-C, which a terminal sends to the workers as well, to the program that they work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def collate(samples: list[Sample]) -> Batch:
    """Stacks the pictures of `samples` and lists their paths.

    Raises:
        UserError: the pictures of a domain differ in size.
    """
    batch: Batch = {}
    for domain in [name for name in ("A", "B") if name in samples[0]]:
        pictures, paths = zip(*((sample[domain], sample[f"{domain}_paths"]) for sample in samples), strict=True)
        sizes = [f"{picture.shape[2]}x{picture.shape[1]}" for picture in pictures]
        if len(set(sizes)) > 1:
            other = next(number for number, size in enumerate(sizes) if size != sizes[0])
            raise UserError(
                f"a batch needs pictures of one size, but {paths[0]!r} comes out as {sizes[0]} and {paths[other]!r} as "
                f"{sizes[other]}: end --preprocess with crop, as in scale_shortside_and_crop, or give --batch_size 1"
            )
        batch[domain] = torch.from_numpy(np.stack(pictures))  # torch.stack would start threads, as in to_tensor
        batch[f"{domain}_paths"] = list(paths)
    return batch
