"""A trained generator as a function of images: `Translator.from_checkpoint(path)(image)`."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.image_io import MAX_PIXELS
from models.inference.checkpoint import load_generator
from models.inference.image_io import (
    ImageArray,
    from_output,
    from_pil,
    resize,
    to_pil,
    to_tensor_from_array,
)
from models.inference.memory import BYTES_PER_ELEMENT, PROBE_SIZE, elements_per_pixel, images_at_once, largest_map
from models.inference.noise import SeededNoise
from models.inference.sides import reflect_pad_to_multiple
from models.inference.tiling import DEFAULT_TILE, Tiler
from models.networks.base import Generator
from util.errors import UserError
from util.runtime.device import AUTO, format_gib, free_memory, select_device

ImageT = TypeVar("ImageT", Image.Image, np.ndarray, Tensor)


class Translator:
    """A generator in evaluation mode: batch norm uses its running statistics, nothing is dropped, and noise follows from
    the seed, so that an image's translation depends on nothing but the image.

    Any size is taken and given back: images are reflected at their lower and right borders up to the multiple that the
    network needs, and cropped again. Images that do not fit into memory are computed in tiles, with the same values.
    """

    def __init__(
        self,
        generator: Generator,
        input_nc: int = 3,
        device: torch.device | None = None,
        bf16: bool = False,
        tile: int | None = None,
        memory: int | None = None,
        short_side: int | None = None,
        seed: int = 0,
        scratch: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        """
        Args:
            generator: maps (N, input_nc, H, W) to (N, output_nc, H, W), both in [-1, 1].
            bf16: compute in bfloat16 where that is safe; faster on hardware that has it, and less exact.
            tile: side of tiles in pixels, to be used always; None: tiles where memory asks for them.
            memory: bytes that may be used; None: most of what is free at each image.
            short_side: pixels that the shorter side is resized to first; None: never resize.
            seed: of the noise that StyleGAN2 generators inject.
            scratch: folder for the feature maps of tiles, where memory does not do; None: the system's.
            say: told when an image is computed in tiles, and why.
        """
        #: Where the generator came from, for people.
        self.origin = type(generator).__name__
        self.device = device or select_device(AUTO)
        self.generator = generator.to(self.device).eval().requires_grad_(False)
        self.input_nc = input_nc
        self.bf16 = bf16
        self.tile = tile
        self.memory = memory
        self.short_side = short_side
        self.scratch = scratch
        self.say = say
        self.multiple, self.least = generator.size_multiple, generator.min_size
        self.noise = SeededNoise(seed)
        self.generator.set_noise_source(self.noise)
        self.noise.set_full_view(PROBE_SIZE, PROBE_SIZE)
        self.largest_map = largest_map(self.device)
        self.pixel_elements = elements_per_pixel(self.generator, input_nc)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        epoch: str = "latest",
        network: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        gpu_ids: str = AUTO,
        **settings: Any,
    ) -> "Translator":
        """The translator of a weights file, of a run's folder, or of a folder in the Hugging Face hub's layout.

        What the network was built with is told from the weights; `architecture`, such as {"netG": "mine"}, is for
        networks that are not known. `epoch` and `network` ("G_A") choose among a run's files, `gpu_ids` is "auto", "-1" or
        "0". The other `settings` are the constructor's.

        Raises UserError where there is no such checkpoint or device.
        """
        loaded = load_generator(Path(path), epoch, network, architecture)
        translator = cls(loaded.network, loaded.options.input_nc, select_device(gpu_ids), **settings)
        translator.origin = loaded.describe()
        return translator

    def __call__(self, image: ImageT) -> ImageT:
        """The translation of one image, of the same kind and size.

        Args:
            image: a PIL image (alpha and 16-bit gray are kept), an array (H, W[, C]) of uint8 or uint16 (C: gray 1,
                color 3, with alpha 4), or a tensor (C, H, W) or (N, C, H, W) in [-1, 1].
        """
        if isinstance(image, Tensor):
            batch = image if image.ndim == 4 else image[None]
            translation = self.translate(batch.float()).to(image.device)
            return translation if image.ndim == 4 else translation[0]
        if isinstance(image, Image.Image):
            return to_pil(self.translate_samples(from_pil(image)))
        result = self.translate_samples(_samples_of_array(image))
        planes = result.color if result.alpha is None else np.dstack([result.color, result.alpha])
        return planes[:, :, 0] if image.ndim == 2 and planes.shape[2] == 1 else planes

    def translate_samples(self, samples: ImageArray) -> ImageArray:
        """The translation of one image, with its alpha."""
        return from_output(self.translate(to_tensor_from_array(samples, self.input_nc)[None])[0], samples)

    def translate(self, batch: Tensor) -> Tensor:
        """The translations (N, C', H, W) of images (N, C, H, W) in [-1, 1], on the device that computes; on the CPU where
        they were computed in tiles. With `short_side` they have another size.

        Raises UserError where there is not memory enough, or where `short_side` makes an image larger than any file's.
        """
        if self.short_side is not None:
            scale = self.short_side / min(batch.shape[2:])
            height, width = (max(1, round(side * scale)) for side in batch.shape[2:])
            if height * width > MAX_PIXELS:
                raise UserError(f"the shorter side of {self.short_side} pixels would make it {width}x{height}: give less")
            batch = resize(batch, height, width)
        height, width = batch.shape[2:]
        with torch.inference_mode(), self._precision():
            padded = reflect_pad_to_multiple(batch, self.multiple, self.least)
            at_once = self.max_batch_size(*padded.shape[2:])
            tile = self._tile_for(padded.shape[2], padded.shape[3], at_once)
            translation = self._whole(padded, at_once) if tile is None else self._tiled(padded, tile)
        return translation[:, :, :height, :width].float()

    def max_batch_size(self, height: int, width: int) -> int:
        """Return the number of images of this size that one pass can take: 0 if even one is too large for the memory, or
        for the 32-bit indices of GPU kernels."""
        return images_at_once(height * width * self.pixel_elements, self._budget(), self.largest_map)

    def _whole(self, batch: Tensor, at_once: int) -> Tensor:
        self.noise.set_full_view(*batch.shape[2:])
        return torch.cat([self.generator(part.to(self.device, non_blocking=True)) for part in batch.split(max(1, at_once))])

    def _tiled(self, batch: Tensor, tile: int) -> Tensor:
        tiler = Tiler(self.generator, self.multiple, self.noise, tile, self.memory, self.scratch)
        return torch.cat([tiler(image[None].cpu()) for image in batch])

    def _tile_for(self, height: int, width: int, at_once: int) -> int | None:
        """Return the side of the tiles, or None for an image in one piece."""
        if self.tile is not None:
            return self.tile
        if at_once:
            return None
        elements = height * width * self.pixel_elements
        if elements > self.largest_map:
            why = f"in one piece would need a feature map of {elements:.2g} elements, too many for the kernels of a GPU"
        else:
            needed, budget = elements * BYTES_PER_ELEMENT, self._budget()
            why = f"in one piece would take about {format_gib(needed)}, and {format_gib(budget)} may be used"
        self.say(f"{width}x{height} pixels {why}: computing it in tiles of {DEFAULT_TILE} pixels")
        return DEFAULT_TILE

    def _budget(self) -> int:
        return free_memory(self.device) if self.memory is None else self.memory

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def _samples_of_array(array: np.ndarray) -> ImageArray:
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3):
        raise ValueError(f"expected an array (H, W[, C]) of uint8 or uint16, not {array.dtype} {array.shape}")
    planes = array.reshape(*array.shape[:2], -1)
    if planes.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f"expected 1 to 4 channels, not {planes.shape[2]}")
    has_alpha = planes.shape[2] in (2, 4)
    return ImageArray(planes[:, :, :-1], planes[:, :, -1]) if has_alpha else ImageArray(planes)
