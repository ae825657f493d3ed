"""The noise of StyleGAN2 generators when they translate: one field for a place, whatever tile or batch shows it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.base import NoiseSource

MAX_CACHED_NOISE = 8  # one for each doubling, and no more than a few images' worth


@dataclass(frozen=True)
class CropView:
    """The part of an image that a pass sees, in pixels; the image itself is `whole` = (height, width)."""

    whole: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


class SeededNoise(NoiseSource):
    """Noise that follows from the seed and the position in the image alone: every image gets the same."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._fields: dict[tuple[int, int], Tensor] = {}  # by height and width
        self.set_full_view(0, 0)

    def set_view(self, view: CropView) -> None:
        """Says which part of an image the next pass sees."""
        self.view = view

    def set_full_view(self, height: int, width: int) -> None:
        """Says that the next pass sees a whole image of this size."""
        self.view = CropView((height, width), 0, 0, height, width)

    def sample(self, features: Tensor) -> Tensor:
        """The noise at the viewed part, for (N, C, H, W): (N, 1, H, W)."""
        height, width = features.shape[2:]
        stride = self.view.height // height
        top, left = self.view.top // stride, self.view.left // stride
        field = self._field(self.view.whole[0] // stride, self.view.whole[1] // stride)
        return field[top : top + height, left : left + width].expand(len(features), 1, -1, -1).to(features)

    def _field(self, height: int, width: int) -> Tensor:
        """The noise of a whole map."""
        if (height, width) not in self._fields:
            if len(self._fields) >= MAX_CACHED_NOISE:
                self._fields.clear()
            generator = torch.Generator().manual_seed(self.seed)
            self._fields[height, width] = torch.randn(height, width, generator=generator)
        return self._fields[height, width]


class ZeroNoise(NoiseSource):
    """Its mean instead of the noise: for exported networks, which shall be functions of the image."""

    def sample(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features[:, :1])
