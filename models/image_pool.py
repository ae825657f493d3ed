"""The history of translations that CycleGAN shows its discriminators (Shrivastava et al., 2017)."""

from typing import Any

import torch
from torch import Tensor

from util.runtime.distributed import all_gather_batch, local_shard


class ImagePool:
    """Keeps up to `size` images. A full pool answers, with probability 1/2 for each image, with one that it kept,
    and keeps the new one in its place. `size` 0 keeps nothing.

    Where several processes share the batches, each keeps the history of the whole batches.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size = size
        self.generator = generator  # on the CPU: a draw must not wait for the device
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        """(N, C, H, W) detached translations -> as many, some of them older ones."""
        if self.size == 0:
            return images
        return local_shard(torch.stack([self._swap(image) for image in all_gather_batch(images)]))

    def state_dict(self) -> dict[str, Any]:
        """The images that are kept, in their places."""
        return {"images": [image.clone() for image in self.images]}  # an image may be a view of a whole batch

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes images back, as many as this pool may keep. They may lie on another device than those to come. Raises
        ValueError where they are no images."""
        if not all(isinstance(image, Tensor) and image.dim() == 3 for image in state["images"]):
            raise ValueError("what the pool kept are no images")
        self.images = state["images"][: self.size]

    def _swap(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if torch.rand((), generator=self.generator) < 0.5:
            return image
        index = int(torch.randint(self.size, (), generator=self.generator))
        kept, self.images[index] = self.images[index], image
        return kept.to(image.device)
