"""Random generators that are pure functions of what they draw for: any point of a run can be drawn again."""

from enum import IntEnum

import numpy as np


class RngStream(IntEnum):
    """What a generator is for; two purposes never share a stream."""

    ORDER = 0  # the order of the images in an epoch
    IMAGE = 1  # partner, crop, zoom and flip of one element of an epoch
    ZOOM = 2  # zoom and crop locations of one minibatch of the single-image dataset


def generator(purpose: RngStream, seed: int, *key: int) -> np.random.Generator:
    """The generator for `purpose` at `key` (epoch, index …) of a run with `seed`; all integers, none negative."""
    return np.random.default_rng([purpose, seed, *key])
