"""The buffer of generated images that CycleGAN's discriminators are trained on (Shrivastava et al., 2017)."""

from typing import Any

import torch
from torch import Tensor

from util.runtime.distributed import all_gather_batch, local_shard


class ImagePool:
    """A buffer of up to `size` images; 0 disables it.

    A full pool returns, with probability 1/2 for each image, a buffered image and stores the new one in its place. In
    distributed training every rank has the buffer of the whole batches.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size = size
        self.generator = generator  # on the CPU, so that sampling does not synchronize with the device
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        """Return N images for the discriminator, some of them from earlier steps. `images` (N, C, H, W) must be detached."""
        if self.size == 0:
            return images
        return local_shard(torch.stack([self._swap(image) for image in all_gather_batch(images)]))

    def state_dict(self) -> dict[str, Any]:
        """Return the buffered images in order."""
        return {"images": [image.clone() for image in self.images]}  # an image may be a view of a whole batch

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the buffer, up to `size` images, on any device. Raise ValueError if the state is not a list of images."""
        if not all(isinstance(image, Tensor) and image.dim() == 3 for image in state["images"]):
            raise ValueError("the image pool of the checkpoint does not contain images")
        self.images = state["images"][: self.size]

    def _swap(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if torch.rand((), generator=self.generator) < 0.5:
            return image
        index = int(torch.randint(self.size, (), generator=self.generator))
        buffered, self.images[index] = self.images[index], image
        return buffered.to(image.device)
