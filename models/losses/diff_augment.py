"""DiffAugment: random, differentiable augmentation of the images that a discriminator sees.

Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS 2020. Real and translated images get the
same kinds of transforms, in the update of D and in that of G. Thus D cannot memorize a few images, and G does not learn to
produce augmented ones.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from util.runtime.distributed import local_shard, world_size

TRANSLATION = 1 / 8  # largest shift, of height and width
CUTOUT = 1 / 2  # side of the masked rectangle, of height and width

#: Samples uniform numbers in [0, 1): `sample(n)` returns (N, n), one row per image.
Sampler = Callable[[int], Tensor]


def color(images: Tensor, sample: Sampler) -> Tensor:
    """Add up to 1/2 to the brightness, and scale the saturation by up to 2 and the contrast by 1/2 to 3/2."""
    brightness, saturation, contrast = sample(3)[:, :, None, None, None].to(images.dtype).unbind(1)
    images = images + (brightness - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (saturation * 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def translation(images: Tensor, sample: Sampler) -> Tensor:
    """Shift by up to 1/8 of the height and width. Fill with 0, which is medium gray."""
    offsets = sample(2)
    for dim, offset in zip((2, 3), offsets.unbind(1), strict=True):
        size = images.shape[dim]
        largest = int(size * TRANSLATION + 0.5)
        shifts = (offset * (2 * largest + 1)).long() - largest
        positions = _along(dim, torch.arange(size, device=images.device) + shifts[:, None])
        inside = (positions >= 0) & (positions < size)
        images = images.gather(dim, positions.clamp(0, size - 1).expand_as(images)) * inside
    return images


def cutout(images: Tensor, sample: Sampler) -> Tensor:
    """Set a rectangle of half the height and width to 0. Its center is anywhere in the image."""
    centers = sample(2)
    masked = torch.ones((), dtype=torch.bool, device=images.device)
    for dim, center in zip((2, 3), centers.unbind(1), strict=True):
        size = images.shape[dim]
        length = int(size * CUTOUT + 0.5)
        starts = (center * (size + 1 - length % 2)).long() - length // 2
        positions = torch.arange(size, device=images.device) - starts[:, None]
        masked = masked & _along(dim, (positions >= 0) & (positions < length))
    return images * ~masked


def _along(dim: int, values: Tensor) -> Tensor:
    """Return values (N, size) of the rows (`dim` 2) or columns (3), broadcastable to images (N, C, H, W)."""
    return values[:, None, :, None] if dim == 2 else values[:, None, None, :]


AUGMENTATIONS: dict[str, Callable[[Tensor, Sampler], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


class DiffAugment:
    """Apply augmentations to images (N, C, H, W) in [-1, 1], each image with its own random numbers.

    Args:
        names: keys of `AUGMENTATIONS`, in the order of application; none: return the images as they are.
        rng: source of the random numbers.
    """

    def __init__(self, names: Sequence[str], rng: torch.Generator) -> None:
        self.names = names
        self.rng = rng

    def __call__(self, images: Tensor) -> Tensor:
        """Return the augmented images, of the same shape. Their values may leave [-1, 1]."""

        def sample(count: int) -> Tensor:
            numbers = torch.rand(len(images) * world_size(), count, generator=self.rng, device=self.rng.device)
            return local_shard(numbers).to(images.device)

        for name in self.names:
            images = AUGMENTATIONS[name](images, sample)
        return images
