"""Flicker of translated videos: measured, and smoothed away where the source stands still.

Each frame is translated by itself, so noise that the eye does not see in the source can change the translation. *Flicker*
is the mean absolute change of the translation from one frame to the next, in levels of 0…255, over those pixels where the
source changes by less than two levels: where it stands still, the translation should too.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEVEL = 2 / 255  # one of 256 levels in [-1, 1]
STATIC_THRESHOLD = 2 * LEVEL  # a smaller change of the source is none
MOTION_SCALE = 8 * LEVEL  # a change of the source at which smoothing falls to 1/e
NEIGHBOURHOOD = 5  # pixels; motion is judged by their mean, which noise of single pixels does not move


class Flicker:
    """The figure above, gathered frame by frame."""

    def __init__(self) -> None:
        self.change = 0.0
        self.pixels = 0
        self._last: Tensor | None = None

    def add(self, translation: Tensor, still: Tensor | None) -> None:
        """Takes a frame (C, H, W) into account; `still` (H, W) marks the pixels where the source did not change."""
        if self._last is not None and still is not None:
            changes = (translation - self._last).abs().mean(0)[still]
            self.change += float(changes.sum()) / LEVEL
            self.pixels += changes.numel()
        self._last = translation

    @property
    def levels(self) -> float:
        """Mean change in levels of 0…255; not a number where nothing ever stood still."""
        return self.change / self.pixels if self.pixels else math.nan


class TemporalSmoothing:
    """Mixes each translated frame with the one before, as far as the source stands still.

    Where the source does not change, `strength` of the frame before is kept; where it moves, nothing. `before` and `after`
    are the flicker without and with it.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.before, self.after = Flicker(), Flicker()
        self._last_source: Tensor | None = None
        self._last_result: Tensor | None = None

    def __call__(self, source: Tensor, translation: Tensor) -> Tensor:
        """The smoothed frame (C', H, W), for the source (C, H, W) and its translation, in [-1, 1] all."""
        if source.shape[1:] != translation.shape[1:]:  # --short_side
            source = F.interpolate(source[None], translation.shape[1:], mode="area")[0]
        result, still = translation, None
        if self._last_source is not None and self._last_result is not None:
            change = (source - self._last_source).abs().mean(0)
            still = change < STATIC_THRESHOLD
            if self.strength:
                motion = F.avg_pool2d(change[None], NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False)
                kept = self.strength * torch.exp(-((motion / MOTION_SCALE) ** 2))
                result = torch.lerp(translation, self._last_result, kept)
        self.before.add(translation, still)
        self.after.add(result, still)
        self._last_source, self._last_result = source, result
        return result
