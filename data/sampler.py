"""Which positions of an epoch make up its batches."""

from collections.abc import Iterator

import numpy as np

from data.base_dataset import Position
from data.rng import RngStream, generator
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
