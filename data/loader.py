"""Reads batches in worker processes ahead of the training, and reports what went wrong there."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from data.base_dataset import BaseDataset, Position, Sample
from data.cache import ImageCache
from data.rng import RngStream, generator
from data.workers import WorkerDiedError, Workers
from util.errors import EnvironmentFailure, UserError
from util.runtime.distributed import local_shard


class EpochBatchSampler:
    """The batches of the current epoch, as lists of positions; their order follows from seed and epoch alone.

    `batch_size` is that of all processes together; each gets the positions of its own images.

    Positions carry the epoch, so that a loader's worker, which lives longer than an epoch, always knows it.
    """

    def __init__(self, n_samples: int, batch_size: int, *, shuffle: bool, drop_last: bool, seed: int) -> None:
        """Args: drop_last leaves out a last batch of less than `batch_size` samples."""
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 1
        self.start_sample = 0  # of the epoch, in its order; more than 0 where a run goes on in its midst

    def __len__(self) -> int:
        remaining = self.n_samples - self.start_sample
        return remaining // self.batch_size if self.drop_last else -(-remaining // self.batch_size)

    def __iter__(self) -> Iterator[list[Position]]:
        epoch, first = self.epoch, self.start_sample
        order = np.arange(self.n_samples)
        if self.shuffle:
            generator(RngStream.ORDER, self.seed, epoch).shuffle(order)
        for batch in range(len(self)):
            chosen = order[first + batch * self.batch_size : first + (batch + 1) * self.batch_size]
            yield [Position(epoch, int(index)) for index in local_shard(chosen)]


# So many times workers are replaced that die before they have delivered anything.
MAX_WORKER_RESTARTS = 3

Batch = dict[str, torch.Tensor | list[str]]  # "A", "B": (N, C, H, W) in [-1, 1]; "A_paths", "B_paths"


class WorkerResult(NamedTuple):
    """What a worker hands over: a batch, or several in a test of unequal images, and what went wrong on the way."""

    batches: list[Batch]  # none where there was nothing readable
    skipped: dict[str, str]  # path -> why the image could not be used
    error: UserError | None  # returned, since an exception raised in a worker arrives as a traceback in a string


class BatchDataset(Dataset[WorkerResult]):
    """Maps the positions of a batch to the batch; runs in the workers."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, positions: list[Position]) -> WorkerResult:
        batches: list[Batch] = []
        mistake = None
        try:
            samples = [sample for position in positions if (sample := self.dataset[position]) is not None]
            groups = [samples] if self.dataset.is_train else group_by_size(samples)
            batches = [collate(group) for group in groups if group]
        except UserError as error:
            mistake = error
        return WorkerResult(batches, self.dataset.pop_skipped(), mistake)


class ImageDataLoader:
    """An iterable of the batches of an epoch: call `set_epoch`, then iterate, and so on for every epoch."""

    def __init__(
        self,
        dataset: BaseDataset,
        batches: EpochBatchSampler,
        num_threads: int,
        prefetch_factor: int,
        cache_gigabytes: float | None,
        to_gpu: bool,
    ) -> None:
        """Nothing of this but time depends on what follows `batches`.

        Args:
            num_threads: worker processes, 0 to read in this one.
            prefetch_factor: batches that each worker reads ahead.
            cache_gigabytes: memory for decoded images; None: each is read from its file every time.
            to_gpu: batches lie in pinned memory, which a GPU copies from while it computes.

        Raises:
            UserError: workers could not share the cache.
        """
        if cache_gigabytes is not None and num_threads > 0 and not hasattr(os, "fork"):
            raise UserError("--cache: worker processes cannot share memory on this system; add --num_threads 0")
        self.n_images = len(dataset)
        self.source_folder = dataset.source_folder
        self.skipped: dict[str, str] = {}  # path -> why; every unusable image met so far
        self._dataset = dataset
        self._positions = batches
        self._num_threads = num_threads
        self._to_gpu = to_gpu
        self._cache = None if cache_gigabytes is None else ImageCache(dataset, cache_gigabytes, num_threads)
        start_method = "fork" if self._cache is not None and num_threads > 0 else None
        self._workers = Workers(BatchDataset(dataset), num_threads, prefetch_factor, start_method)

    def __len__(self) -> int:
        """Images in an epoch, the last incomplete batch and unreadable images included."""
        return self.n_images

    def set_epoch(self, epoch: int, start_sample: int = 0) -> None:
        """Chooses the epoch (from 1) of the next iteration, and how many of its samples are left out because they were
        trained on before the run was interrupted."""
        self._positions.epoch = epoch
        self._positions.start_sample = start_sample

    def set_while_waiting(self, while_waiting: Callable[[], None]) -> None:
        """Have `while_waiting` called several times a second while a batch is waited for; it may raise to stop that."""
        self._workers.while_waiting = while_waiting

    @cached_property
    def _names(self) -> list[list[str]]:
        return self._dataset.names()

    def state_dict(self) -> dict[str, Any]:
        """Which images the run is about: their names below --dataroot, domain by domain."""
        return {"pictures": self._names, "limit": self._dataset.limit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the images that the run began with: others that have come since would change the order of all.
        Images that have gone are met, and replaced, where it is their turn. Another dataset stays what it is.

        Raises ValueError where these are no names of images.
        """
        names, before = self._names, state["pictures"]
        if len(names) != len(before) or not all(before) or not all(map(is_relative_safe, chain(*before))):
            raise ValueError("these are not the images of such a dataset")
        another = state["limit"] != self._dataset.limit or any(map(set.isdisjoint, map(set, names), before))
        if another or names == before:
            return
        come, gone = count_missing(names, before), count_missing(before, names)
        print(f"note: {come} images have come and {gone} have gone since the run began; it goes on with those of then")
        self._dataset.restore_paths(before)
        self._names = before
        self.n_images = self._positions.n_samples = len(self._dataset)

    def __iter__(self) -> Iterator[Batch]:
        """Raises a UserError where the images leave nothing to go on with."""
        for batches, skipped, error in self._iter_with_restarts():
            self._report(skipped)
            if error is not None:
                raise error
            yield from map(pinned, batches) if self._to_gpu else batches

    def _iter_with_restarts(self) -> Iterator[WorkerResult]:
        """The deliveries of the epoch, each once. Where a worker dies, others go on with what is waited for.

        Raises EnvironmentFailure where those die as well.
        """
        deaths, next_sample = 0, self._positions.start_sample
        while True:
            try:
                for delivery in self._workers_deliveries():
                    deaths = 0
                    next_sample += self._positions.batch_size
                    yield delivery
                return
            except WorkerDiedError:
                self._positions.start_sample = next_sample
                deaths += 1
                if deaths > MAX_WORKER_RESTARTS:
                    raise EnvironmentFailure(
                        f"worker processes that read images have died {deaths} times in a row, most likely for want of "
                        f"memory: lower --num_threads {self._num_threads} (0 reads without workers) or --batch_size"
                    ) from None
                print("a worker process that reads images has died; others take its place", file=sys.stderr)

    def _workers_deliveries(self) -> Iterator[WorkerResult]:
        """Return the deliveries of the epoch, from the workers of the previous one if possible."""
        if self._cache is not None and not self._cache.is_valid_for(self._positions.epoch):
            self._workers.close()  # they see the memory as it was when they started
            self._cache.fill(self._positions.epoch, self._workers.while_waiting)
        return self._workers.read(self._positions)

    def _report(self, skipped: dict[str, str]) -> None:
        """Names each unusable image once, with the number of them so far."""
        for path, reason in skipped.items():
            if path not in self.skipped:
                self.skipped[path] = reason
                print(f"skipped {path!r}: {reason} ({len(self.skipped)} skipped so far)", file=sys.stderr)


def count_missing(names: list[list[str]], others: list[list[str]]) -> int:
    """How many names, domain by domain, are not among the others."""
    return sum(len(set(here) - set(there)) for here, there in zip(names, others, strict=True))


def is_relative_safe(name: str) -> bool:
    """Whether a path leads to what lies below the folder that it is taken from. Raises TypeError for what is no path."""
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts


def collate(samples: list[Sample]) -> Batch:
    """Stacks the images of `samples` and lists their paths.

    Raises:
        UserError: the images of a domain differ in size.
    """
    batch: Batch = {}
    for domain in [name for name in ("A", "B") if name in samples[0]]:
        images, paths = zip(*((sample[domain], sample[f"{domain}_paths"]) for sample in samples), strict=True)
        sizes = [f"{image.shape[2]}x{image.shape[1]}" for image in images]
        if len(set(sizes)) > 1:
            other = next(number for number, size in enumerate(sizes) if size != sizes[0])
            raise UserError(
                f"a batch needs images of one size, but {paths[0]!r} comes out as {sizes[0]} and {paths[other]!r} as "
                f"{sizes[other]}: end --preprocess with crop, as in scale_shortside_and_crop, or give --batch_size 1"
            )
        # A single image need not be copied; and torch.stack would start threads, as in to_tensor.
        batch[domain] = torch.from_numpy(np.stack(images)) if len(images) > 1 else images[0][None]
        batch[f"{domain}_paths"] = list(paths)
    return batch


def pinned(batch: Batch) -> Batch:
    """Return the batch in pinned memory."""
    return {name: value.pin_memory() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def group_by_size(samples: list[Sample]) -> list[list[Sample]]:
    """The samples in order, in groups whose images have one size."""
    groups: list[list[Sample]] = []
    for sample in samples:
        if groups and sizes(sample) == sizes(groups[-1][0]):
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups


def sizes(sample: Sample) -> list[torch.Size]:
    return [sample[domain].shape for domain in ("A", "B") if domain in sample]
