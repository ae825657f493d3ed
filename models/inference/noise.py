"""The noise of StyleGAN2 generators when they translate: one field for a place, whatever tile or batch shows it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.stylegan2 import DoublingLayer, NoiseSource, StyleGAN2Generator

KEPT_FIELDS = 8  # one for each doubling, and no more than a few pictures' worth


@dataclass(frozen=True)
class View:
    """The part of a picture that a pass sees, in pixels; the picture itself is `whole` = (height, width)."""

    whole: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


class SeededNoise(NoiseSource):
    """Noise that follows from the seed and the position in the picture alone: every picture gets the same."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._fields: dict[tuple[int, int], Tensor] = {}  # by height and width
        self.look_at_whole(0, 0)

    def look_at(self, view: View) -> None:
        """Says which part of a picture the next pass sees."""
        self.view = view

    def look_at_whole(self, height: int, width: int) -> None:
        """Says that the next pass sees a whole picture of this size."""
        self.view = View((height, width), 0, 0, height, width)

    def draw(self, features: Tensor) -> Tensor:
        """The noise at the viewed part, for (N, C, H, W): (N, 1, H, W)."""
        height, width = features.shape[2:]
        stride = self.view.height // height
        top, left = self.view.top // stride, self.view.left // stride
        field = self._field(self.view.whole[0] // stride, self.view.whole[1] // stride)
        return field[top : top + height, left : left + width].expand(len(features), 1, -1, -1).to(features)

    def _field(self, height: int, width: int) -> Tensor:
        """The noise of a whole map."""
        if (height, width) not in self._fields:
            if len(self._fields) >= KEPT_FIELDS:
                self._fields.clear()
            generator = torch.Generator().manual_seed(self.seed)
            self._fields[height, width] = torch.randn(height, width, generator=generator)
        return self._fields[height, width]


class NoNoise(NoiseSource):
    """Its mean instead of the noise: for exported networks, which shall be functions of the picture."""

    def draw(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features[:, :1])


def set_noise(generator: nn.Module, source: NoiseSource) -> None:
    """Puts the source in place of the generator's own, where it injects noise at all."""
    if not isinstance(generator, StyleGAN2Generator):
        return
    generator.noise_source = source
    for layer in generator.modules():
        if isinstance(layer, DoublingLayer) and layer.source is not None:
            layer.source = source
