"""How images of any size come to the sizes that a generator accepts."""

import torch
from torch import Tensor


def reflect_pad_to_multiple(batch: Tensor, multiple: int, least: int) -> Tensor:
    """(N, C, H, W), reflected at its lower and right borders until both sides are multiples of `multiple`, and at least
    `least`. The reflection goes to and fro as often as it takes, so that one pixel is enough of an image.
    """
    height, width = (max(least, -(-side // multiple) * multiple) for side in batch.shape[2:])
    if (height, width) == tuple(batch.shape[2:]):
        return batch
    rows, columns = (
        _reflected(old, new).to(batch.device) for old, new in zip(batch.shape[2:], (height, width), strict=True)
    )
    return batch[:, :, rows[:, None], columns]


def _reflected(length: int, padded: int) -> Tensor:
    """Which of `length` positions each of `padded` shows: 0 1 2 3 2 1 0 1 … for 4."""
    period = max(1, 2 * (length - 1))
    phase = torch.arange(padded) % period
    return torch.minimum(phase, period - phase)
