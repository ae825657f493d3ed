"""A trained generator as a function of images: `Translator(path)(image)`."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.image_array import MAX_PIXELS, BandCountError, ImageArray, ImageError, UndefinedRangeError, clean_samples
from data.image_writer import to_pil
from data.value_range import ValueRange
from models.inference.checkpoint import LoadedGenerator, load_generator
from models.inference.image_io import from_output, from_pil, resize, to_tensor
from models.inference.memory import describe_excess, elements_per_pixel, max_images, max_map_elements
from models.inference.noise import SeededNoise
from models.inference.tiling import DEFAULT_TILE, Tiler
from models.networks.base import Generator
from util.errors import UserError
from util.runtime.device import AUTO, free_memory, select_device

ImageT = TypeVar("ImageT", Image.Image, np.ndarray, Tensor)


class Translator:
    """A generator in evaluation mode, for images of any size.

    Batch norm uses its running statistics, dropout is off, and injected noise depends on the seed only. The output for an
    image therefore depends on nothing but the image.

    Images are reflection-padded at the lower and right borders to the sizes that the network needs, and outputs are
    cropped. Images that do not fit into memory are computed in tiles, with the same values.
    """

    def __init__(
        self,
        generator: Generator | LoadedGenerator | str | PathLike[str],
        input_nc: int = 3,
        device: torch.device | str | None = None,
        bf16: bool = False,
        tile: int | None = None,
        memory_limit: int | None = None,
        short_side: int | None = None,
        seed: int = 0,
        tmp_dir: Path | None = None,
        log: Callable[[str], None] = print,
        input_range: ValueRange | None = None,
        output_range: ValueRange | None = None,
        output_nc: int | None = None,
    ) -> None:
        """Move the generator to the device and prepare it for inference.

        Args:
            generator: maps (N, input_nc, H, W) to (N, output_nc, H, W), both in [-1, 1]; or a checkpoint or its path, as in
                `from_checkpoint`, which has further arguments.
            input_nc: input channels of the generator; a checkpoint defines them itself.
            device: device to compute on; None: a GPU if there is one.
            bf16: compute in bfloat16: faster on hardware that supports it, but less exact.
            tile: tile size in pixels, for images of any size; None: tiles only if memory is too small.
            memory_limit: bytes of memory to use; None: most of what is free at each image.
            short_side: size in pixels to resize the shorter side to; None: do not resize.
            seed: random seed of the noise that StyleGAN2 generators inject.
            tmp_dir: folder for feature maps that do not fit into memory; None: the system's temporary folder.
            log: called with a message if an image is computed in tiles.
            input_range: sample values of the input that map to -1 and 1; None: those of the checkpoint, or the full range
                of uint8 or uint16.
            output_range: sample values of the output that -1 and 1 map to; None: those of the checkpoint, or the full range
                of the input's dtype.
            output_nc: output channels of the generator; None: as many as input channels. A checkpoint defines them itself.
        Raises:
            UserError: there is no generator at the path.
            TypeError: `generator` is neither a generator nor a path.
        """
        #: Description of the checkpoint, for messages.
        self.source = type(generator).__name__
        #: Options of the training run; empty if unknown.
        self.saved_options: Mapping[str, Any] = {}
        if isinstance(generator, str | PathLike):
            generator = load_generator(Path(generator))
        if isinstance(generator, LoadedGenerator):
            self.source, self.saved_options = generator.describe(), generator.saved_options
            input_nc, output_nc = generator.options.input_nc, generator.options.output_nc
            input_range, output_range = input_range or generator.input_range, output_range or generator.output_range
            generator = generator.network
        if not isinstance(generator, Generator):
            raise TypeError(f"expected a generator or the path of a checkpoint, got {type(generator).__name__}")
        self.device = select_device(AUTO) if device is None else torch.device(device)
        self.generator = generator.to(self.device).eval().requires_grad_(False)
        self.input_nc = input_nc
        self.output_nc = output_nc or input_nc
        self.bf16 = bf16
        self.tile = tile
        self.memory_limit = memory_limit
        self.short_side = short_side
        self.tmp_dir = tmp_dir
        self.input_range = input_range
        self.output_range = output_range
        self.log = log
        self.noise = SeededNoise(seed)
        self.generator.set_noise_source(self.noise)
        self.elements_per_pixel = elements_per_pixel(self.generator, input_nc)
        self.max_map_elements = max_map_elements(self.device)

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
        """Load a weights file, a run's folder, or a folder in the layout of the Hugging Face Hub.

        Args:
            path: file or folder.
            epoch: checkpoint of a run's folder.
            network: generator of a run's folder, such as "G_A"; None: G, or else G_A.
            architecture: options such as {"netG": "mine"}, for networks that cannot be inferred from the weights.
            gpu_ids: "auto", "-1" for the CPU, or a GPU index such as "0".
            settings: further arguments of the constructor.
        Raises:
            UserError: there is no such checkpoint or device.
        """
        checkpoint = load_generator(Path(path), epoch, network, architecture)
        return cls(checkpoint, device=select_device(gpu_ids), **settings)

    def __repr__(self) -> str:
        """Return the checkpoint, its architecture and the device."""
        return f"Translator({self.source}, on {self.device})"

    def __call__(self, image: ImageT) -> ImageT:
        """Translate one image. Return an image of the same type and size.

        Args:
            image: a PIL image (alpha and 16-bit gray are kept), an array (H, W[, C]), or a tensor (C, H, W) or
                (N, C, H, W) in [-1, 1]. An array has as many bands as the generator has input channels, and may have alpha
                as one more band. Its dtype is uint8 or uint16, or any other if the generator has a value range.
        Raises:
            TypeError: `image` is of another type.
            ValueError: an array has another number of bands, samples that are no finite real numbers, or a dtype that needs
                a value range.
        """
        if isinstance(image, Tensor):
            batch = self._check_tensor(image)
            output = self.translate(batch.float()).to(image.device)
            return output if image.ndim == 4 else output[0]
        if isinstance(image, Image.Image):
            return to_pil(self.translate_array(from_pil(image)))
        if not isinstance(image, np.ndarray):
            hint = ". Open the file first: translator(Image.open(path))" if isinstance(image, str | PathLike) else ""
            raise TypeError(f"expected a PIL image, a NumPy array or a tensor, got {type(image).__name__}{hint}")
        try:
            result = self.translate_array(self._from_numpy(image))
        except ImageError as error:
            wanted = " of uint8 or uint16" if self.input_range is None else ""
            raise ValueError(f"expected an array (H, W[, C]){wanted}, got {image.dtype} {image.shape}: it {error}") from None
        pixels = result.pixels if result.alpha is None else np.dstack([result.pixels, result.alpha])
        return pixels[:, :, 0] if image.ndim == 2 and pixels.shape[2] == 1 else pixels

    def _check_tensor(self, image: Tensor) -> Tensor:
        """Return the tensor as a batch (N, C, H, W). Raise ValueError if it is no image in [-1, 1] for this generator."""
        if not image.is_floating_point():
            raise ValueError(f"expected a tensor of floats in [-1, 1], got {image.dtype}. Use an array for uint8 images.")
        if image.ndim not in (3, 4) or image.shape[-3] != self.input_nc:
            raise ValueError(
                f"expected a tensor (C, H, W) or (N, C, H, W) with C = {self.input_nc}, got shape {tuple(image.shape)}"
            )
        return image if image.ndim == 4 else image[None]

    def translate_array(self, array: ImageArray) -> ImageArray:
        """Translate an image. Keep alpha, dtype and file properties. Raise ImageError if it is unsuitable."""
        return self.from_output(self.translate(self.to_tensor(array)[None])[0], array)

    def check(self, array: ImageArray) -> None:
        """Raise ImageError if the image has another number of bands, or if its dtype needs a value range."""
        if not array.fits(self.input_nc):
            raise BandCountError(array.bands, self.input_nc, array.info.pages)
        if self.input_range is None and ValueRange.of_dtype(array.pixels.dtype) is None:
            raise UndefinedRangeError(array.pixels.dtype)

    def to_tensor(self, array: ImageArray) -> Tensor:
        """Return the input (C, H, W) of the generator in [-1, 1]."""
        return to_tensor(array, self.input_nc, self.input_range)

    def from_output(self, output: Tensor, source: ImageArray) -> ImageArray:
        """Return an output (C, H, W) of the generator as an image like its source."""
        return from_output(output, source, self.output_range, source_range=self.input_range)

    def _from_numpy(self, array: np.ndarray) -> ImageArray:
        found = f"got {array.dtype} {array.shape}"
        if array.ndim not in (2, 3) or not array.size:
            raise ValueError(f"expected an array (H, W[, C]), {found}")
        try:
            pixels = clean_samples(array).reshape(*array.shape[:2], -1)
        except ImageError as error:
            raise ValueError(f"expected an array of finite real numbers, {found}: {error}") from None
        bands = pixels.shape[2]
        if bands != self.input_nc and bands in (2, 4, self.input_nc + 1) and pixels.dtype in (np.uint8, np.uint16):
            return ImageArray(pixels[:, :, :-1], pixels[:, :, -1])
        return ImageArray(pixels)

    def translate(self, batch: Tensor) -> Tensor:
        """Translate images (N, C, H, W) in [-1, 1]. Return (N, C', H, W).

        The output is on the compute device, or on the CPU if it was computed in tiles. `short_side` changes its size.

        Raises:
            UserError: memory is too small, or `short_side` makes an image larger than files can be.
        """
        if self.short_side is not None:
            scale = self.short_side / min(batch.shape[2:])
            height, width = (max(1, round(side * scale)) for side in batch.shape[2:])
            if height * width > MAX_PIXELS:
                raise UserError(
                    f"--short_side {self.short_side}: the image would have {width}x{height} pixels. Use a smaller value."
                )
            batch = resize(batch, height, width)
        height, width = batch.shape[2:]
        with torch.inference_mode(), self._precision():
            padded = reflect_pad_to_multiple(batch, self.generator.size_multiple, self.generator.min_size)
            max_batch_size = self.max_batch_size(padded.shape[2], padded.shape[3])
            tile = self._tile_for(padded.shape[2], padded.shape[3], max_batch_size)
            output = self._whole(padded, max_batch_size) if tile is None else self._tiled(padded, tile)
        return output[:, :, :height, :width].float()

    def max_batch_size(self, height: int, width: int) -> int:
        """Return the number of images of this size that one forward pass can take.

        It is 0 if even one is too large for the memory, or for the 32-bit indices of GPU kernels.
        """
        return max_images(height * width * self.elements_per_pixel, self._usable_memory(), self.max_map_elements)

    def _whole(self, batch: Tensor, max_batch_size: int) -> Tensor:
        self.noise.set_full_view(*batch.shape[2:])
        parts = batch.split(max(1, max_batch_size))
        return torch.cat([self.generator(part.to(self.device, non_blocking=True)) for part in parts])

    def _tiled(self, batch: Tensor, tile: int) -> Tensor:
        tiler = Tiler(self.generator, self.noise, tile, self.memory_limit, self.tmp_dir)
        return torch.cat([tiler(image[None].cpu()) for image in batch])

    def _tile_for(self, height: int, width: int, max_batch_size: int) -> int | None:
        """Return the tile size for an image, or None to compute it as a whole."""
        if self.tile is not None:
            return self.tile
        if max_batch_size:
            return None
        elements = height * width * self.elements_per_pixel
        reason = describe_excess(elements, self._usable_memory(), self.max_map_elements)
        self.log(f"{width}x{height} pixels {reason}; computing in tiles of {DEFAULT_TILE} pixels")
        return DEFAULT_TILE

    def _usable_memory(self) -> int:
        return free_memory(self.device) if self.memory_limit is None else self.memory_limit

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def reflect_pad_to_multiple(batch: Tensor, multiple: int, min_size: int) -> Tensor:
    """Reflection-pad (N, C, H, W) at the lower and right borders.

    Both sides become multiples of `multiple` and at least `min_size`. Unlike `F.pad`, the padding may be larger than the
    image: the reflection repeats.
    """
    height, width = (max(min_size, -(-side // multiple) * multiple) for side in batch.shape[2:])
    if (height, width) == tuple(batch.shape[2:]):
        return batch
    rows, columns = (
        _reflected_indices(old, new).to(batch.device) for old, new in zip(batch.shape[2:], (height, width), strict=True)
    )
    return batch[:, :, rows[:, None], columns]


def _reflected_indices(length: int, padded: int) -> Tensor:
    """Return the source index of each of `padded` positions: 0 1 2 3 2 1 0 1 … for a length of 4."""
    period = max(1, 2 * (length - 1))
    phase = torch.arange(padded) % period
    return torch.minimum(phase, period - phase)
