"""Noise of StyleGAN2 generators at inference: a function of the seed and the position in the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.base import NoiseSource

MAX_CACHED_NOISE = 8  # noise maps: one for each upsampling layer and image size


@dataclass(frozen=True)
class CropView:
    """The crop of an image that the generator sees, in pixels. `image_size` is the image's (height, width)."""

    image_size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


class SeededNoise(NoiseSource):
    """Noise that depends on the seed and the position in the image only, so that tiles agree and all images share it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._cache: dict[tuple[int, int], Tensor] = {}  # by (height, width)
        self.set_full_view(0, 0)

    def set_view(self, view: CropView) -> None:
        """Set the crop that the next forward pass sees."""
        self.view = view

    def set_full_view(self, height: int, width: int) -> None:
        """Set the next forward pass to see a whole image of this size in pixels."""
        self.view = CropView((height, width), 0, 0, height, width)

    def sample(self, features: Tensor) -> Tensor:
        """Return the noise (N, 1, H, W) of the current view for feature maps (N, C, H, W)."""
        height, width = features.shape[2:]
        stride = self.view.height // height
        top, left = self.view.top // stride, self.view.left // stride
        noise = self._noise_map(self.view.image_size[0] // stride, self.view.image_size[1] // stride)
        return noise[top : top + height, left : left + width].expand(len(features), 1, -1, -1).to(features)

    def _noise_map(self, height: int, width: int) -> Tensor:
        """Return the noise (height, width) of a feature map of the whole image."""
        if (height, width) not in self._cache:
            if len(self._cache) >= MAX_CACHED_NOISE:
                self._cache.clear()
            rng = torch.Generator().manual_seed(self.seed)
            self._cache[height, width] = torch.randn(height, width, generator=rng)
        return self._cache[height, width]


class ZeroNoise(NoiseSource):
    """Zeros instead of noise: an exported network must be a function of the image."""

    def sample(self, features: Tensor) -> Tensor:
        """Return zeros (N, 1, H, W) for feature maps (N, C, H, W)."""
        return torch.zeros_like(features[:, :1])
