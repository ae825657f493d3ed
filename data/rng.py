"""Random generators that are pure functions of their purpose and position, so that any sample can be repeated."""

from enum import IntEnum

import numpy as np


class RngStream(IntEnum):
    """Purpose of a generator. Two purposes never share a stream."""

    ORDER = 0  # order of the images in an epoch
    IMAGE = 1  # partner, crop, zoom and flip of one sample
    ZOOM = 2  # zoom and crop offsets of one minibatch of the single-image dataset


def make_rng(stream: RngStream, seed: int, *key: int) -> np.random.Generator:
    """Return the generator of `stream` at `key` (epoch, index ...) for a run with `seed`. All integers are at least 0."""
    return np.random.default_rng([stream, seed, *key])
