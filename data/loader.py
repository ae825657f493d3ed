"""Data loader: batches of a dataset, prefetched by worker processes."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from data.base_dataset import BaseDataset, Sample, SampleIndex
from data.cache import ImageCache
from data.rng import RngStream, make_rng
from data.workers import WorkerDiedError, Workers
from util.errors import EnvironmentFailure, UserError
from util.runtime.distributed import local_shard
from util.terminal import print_line

MAX_LISTED = 8  # skipped images with one reason
MAX_WORKER_RESTARTS = 3  # in a row, without a result in between

Batch = dict[str, torch.Tensor | list[str]]  # "A", "B": (N, C, H, W) in [-1, 1]; "A_paths", "B_paths"


class EpochBatchSampler:
    """The batches of the current epoch, as lists of sample indices. Their order is a function of seed and epoch.

    An epoch is one pass over the dataset. With `batches_per_epoch` it is that many batches: each pass over the dataset
    follows the one before, and an epoch continues where the last one stopped. A batch may then contain the end of one pass
    and the start of the next.

    `batch_size` counts the samples of all processes together; each process gets the indices of its own shard.

    A sample index includes the epoch, so that loader workers, which live longer than an epoch, always know it.
    """

    def __init__(
        self,
        n_samples: int,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        batches_per_epoch: int | None = None,
    ) -> None:
        """Args: n_samples is the size of the dataset; drop_last drops a last batch with fewer than `batch_size` samples."""
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.batches_per_epoch = batches_per_epoch
        self.epoch = 1
        self.start_sample = 0  # number of samples of the epoch to leave out, if a run resumes within an epoch

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples in an epoch, including a dropped last batch."""
        return self.n_samples if self.batches_per_epoch is None else self.batches_per_epoch * self.batch_size

    def __len__(self) -> int:
        remaining = max(0, self.samples_per_epoch - self.start_sample)  # the epoch may have become shorter
        return remaining // self.batch_size if self.drop_last else -(-remaining // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        epoch, first, end = self.epoch, self.start_sample, self.samples_per_epoch
        samples = self._pass(epoch) if self.batches_per_epoch is None else self._endless((epoch - 1) * end)
        remaining = islice(samples, first, end)
        for _ in range(len(self)):
            yield local_shard(list(islice(remaining, self.batch_size)))

    def _pass(self, data_pass: int) -> Iterator[SampleIndex]:
        """Yield the samples of a pass that is an epoch."""
        return (SampleIndex(data_pass, position) for position in self._order(data_pass))

    def _endless(self, first: int) -> Iterator[SampleIndex]:
        """Yield the samples of the current epoch from number `first` of the run on, pass after pass."""
        epoch = self.epoch
        data_pass, start = divmod(first, self.n_samples)
        while True:
            data_pass += 1
            yield from (SampleIndex(epoch, position, data_pass) for position in self._order(data_pass)[start:])
            start = 0

    def _order(self, data_pass: int) -> list[int]:
        """Return the positions of a pass in their order."""
        order = np.arange(self.n_samples)
        if self.shuffle:
            make_rng(RngStream.ORDER, self.seed, data_pass).shuffle(order)
        return order.tolist()


class WorkerResult(NamedTuple):
    """Result of a worker for one list of sample indices."""

    batches: list[Batch]  # one; none if no image is readable; several in a test of images that differ in size
    skipped: dict[str, str]  # unusable images, path -> reason
    error: UserError | None  # returned instead of raised, because an exception reaches the main process as a string


class BatchDataset(Dataset[WorkerResult]):
    """Map a list of sample indices to their batch. Runs in the workers."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[SampleIndex]) -> WorkerResult:
        batches: list[Batch] = []
        failure = None
        try:
            samples = [sample for index in indices if (sample := self.dataset[index]) is not None]
            groups = [samples] if self.dataset.is_train else group_by_size(samples)
            batches = [collate(group) for group in groups if group]
        except UserError as error:
            failure = error
        return WorkerResult(batches, self.dataset.pop_skipped(), failure)


class ImageDataLoader:
    """An iterable of the batches of an epoch. Call `set_epoch` before each iteration.

    Attributes:
        n_images: number of samples in an epoch.
        description: number and sizes of the images, such as "A 120, B 120 images of 256x256"; empty in a test.
        source_folder: the folder of the images to translate.
        has_wide_range: images have other than 8-bit samples.
        skipped: all unusable images found so far, path -> reason.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        batch_sampler: EpochBatchSampler,
        num_threads: int,
        prefetch_factor: int,
        cache_gigabytes: float | None,
        to_gpu: bool,
        description: str = "",
    ) -> None:
        """Create the loader. Arguments after `batch_sampler` affect the speed, not the batches.

        Args:
            dataset: maps indices to samples.
            batch_sampler: the batches as lists of indices.
            num_threads: number of worker processes, 0 to load in this process.
            prefetch_factor: number of batches that each worker prefetches.
            cache_gigabytes: size of the cache of decoded images; None: no cache.
            to_gpu: return batches in pinned memory, from which a GPU can copy during computation.
            description: number and sizes of the images, for the first screen of a training.

        Raises:
            UserError: workers cannot share the cache on this system.
        """
        if cache_gigabytes is not None and num_threads > 0 and not hasattr(os, "fork"):
            raise UserError("--cache: worker processes cannot share memory on this system. Add --num_threads 0.")
        self.n_images = batch_sampler.samples_per_epoch
        self.description = description
        self.source_folder = dataset.source_folder
        self.has_wide_range = dataset.has_wide_range
        self.skipped: dict[str, str] = {}
        self._reasons: Counter[str] = Counter()  # number of skipped images of each reason
        self._dataset = dataset
        self._batch_sampler = batch_sampler
        self._num_threads = num_threads
        self._to_gpu = to_gpu
        self._cache = None if cache_gigabytes is None else ImageCache(dataset, cache_gigabytes, num_threads)
        start_method = "fork" if self._cache is not None and num_threads > 0 else None
        self._workers = Workers(BatchDataset(dataset), num_threads, prefetch_factor, start_method)

    def __len__(self) -> int:
        """Return the number of samples in an epoch, including a dropped last batch and unreadable images."""
        return self.n_images

    def set_epoch(self, epoch: int, start_sample: int = 0) -> None:
        """Set the epoch (from 1) of the next iteration, and how many samples to leave out at its start.

        A run that resumes within an epoch leaves out the samples that it has trained on.
        """
        self._batch_sampler.epoch = epoch
        self._batch_sampler.start_sample = start_sample

    def set_while_waiting(self, while_waiting: Callable[[], None]) -> None:
        """Set a function that is called several times a second while the loader waits for a batch; it may raise."""
        self._workers.while_waiting = while_waiting

    @cached_property
    def _relative_paths(self) -> list[list[str]]:
        return self._dataset.relative_paths()

    def state_dict(self) -> dict[str, Any]:
        """Return the image paths of each domain, relative to --dataroot, and --max_dataset_size."""
        return {"pictures": self._relative_paths, "limit": self._dataset.limit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the images that the run started with, because added images would change the order of all.

        Removed images are replaced when their turn comes. If the state belongs to another dataset, nothing changes.

        Raises:
            ValueError: the state does not contain image paths.
        """
        found, saved = self._relative_paths, state["pictures"]
        if len(found) != len(saved) or not all(saved) or not all(map(is_relative_safe, chain(*saved))):
            raise ValueError("the saved image paths do not fit this dataset")
        is_other = state["limit"] != self._dataset.limit or any(map(set.isdisjoint, map(set, found), saved))
        if is_other or found == saved:
            return
        added, removed = count_missing(found, saved), count_missing(saved, found)
        print_line(
            f"note: dataset changed since the run started ({added} added, {removed} removed); "
            f"continuing with the original file list"
        )
        if added:
            print_line(
                f"note: to train on the {added} added images as well, add --epoch_count with the next epoch. "
                f"The run then starts from its weights alone, with new optimizers."
            )
        self._dataset.restore_paths(saved)
        self._relative_paths = saved
        self._batch_sampler.n_samples = len(self._dataset)
        self.n_images = self._batch_sampler.samples_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch. Raise UserError if no usable image is left."""
        for batches, skipped, error in self._iter_with_restarts():
            self._report(skipped)
            if error is not None:
                raise error
            yield from map(pin_memory, batches) if self._to_gpu else batches

    def _iter_with_restarts(self) -> Iterator[WorkerResult]:
        """Yield each result of the epoch once. If a worker dies, start new ones and continue with the missing batch.

        Raises:
            EnvironmentFailure: the new workers died as well.
        """
        deaths, next_sample = 0, self._batch_sampler.start_sample
        while True:
            try:
                for result in self._read_results():
                    deaths = 0
                    next_sample += self._batch_sampler.batch_size
                    yield result
                return
            except WorkerDiedError:
                self._batch_sampler.start_sample = next_sample
                deaths += 1
                if deaths > MAX_WORKER_RESTARTS:
                    raise EnvironmentFailure(
                        f"--num_threads {self._num_threads}: data loader workers died {deaths} times in a row, probably "
                        f"because memory ran out. Lower --num_threads (0: no workers) or --batch_size."
                    ) from None
                print_line("a data loader worker died; starting new workers", file=sys.stderr)

    def _read_results(self) -> Iterator[WorkerResult]:
        """Return the results of the epoch, from the workers of the previous epoch if possible."""
        if self._cache is not None and not self._cache.is_valid_for(self._batch_sampler.epoch):
            self._workers.close()  # they see the memory as it was when they were forked
            self._cache.fill(self._batch_sampler.epoch, self._workers.while_waiting)
        return self._workers.read(self._batch_sampler)

    def _report(self, skipped: dict[str, str]) -> None:
        """Print each unusable image once, with the number of unusable images so far.

        After the first images with one reason, only their number is printed, when it is a power of ten.
        """
        for path, reason in skipped.items():
            if path in self.skipped:
                continue
            self.skipped[path] = reason
            self._reasons[reason] += 1
            count = self._reasons[reason]
            if count <= MAX_LISTED or count == 10 ** (len(str(count)) - 1):
                image = repr(path) if count <= MAX_LISTED else f"{count} images"
                line = f"skipped {image}: {reason} ({len(self.skipped)} skipped so far)"
                print_line(line, file=sys.stderr)  # above a progress bar


def count_missing(paths: list[list[str]], others: list[list[str]]) -> int:
    """Return the number of paths that are not among the others of the same domain."""
    return sum(len(set(here) - set(there)) for here, there in zip(paths, others, strict=True))


def is_relative_safe(path: str) -> bool:
    """Return True if a relative path stays below its folder. Raise TypeError if it is not a path."""
    return not PurePath(path).is_absolute() and ".." not in PurePath(path).parts


def collate(samples: list[Sample]) -> Batch:
    """Stack the images of `samples` and list their paths.

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
                f"--batch_size: all images of a batch must have one size, but {paths[0]!r} has {sizes[0]} and "
                f"{paths[other]!r} has {sizes[other]} pixels after --preprocess. "
                f"End --preprocess with crop, as in scale_shortside_and_crop, or use --batch_size 1."
            )
        # A single image need not be copied. torch.stack would start threads, see to_tensor.
        batch[domain] = torch.from_numpy(np.stack(images)) if len(images) > 1 else images[0][None]
        batch[f"{domain}_paths"] = list(paths)
    return batch


def pin_memory(batch: Batch) -> Batch:
    """Return the batch in pinned memory."""
    return {name: value.pin_memory() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def group_by_size(samples: list[Sample]) -> list[list[Sample]]:
    """Split the samples into consecutive groups whose images have one size."""
    groups: list[list[Sample]] = []
    for sample in samples:
        if groups and image_shapes(sample) == image_shapes(groups[-1][0]):
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups


def image_shapes(sample: Sample) -> list[torch.Size]:
    """Return the shapes of the sample's images."""
    return [sample[domain].shape for domain in ("A", "B") if domain in sample]
