"""Feature map sizes: the memory that a forward pass needs, and the number of elements that GPU kernels can index."""

import sys
from copy import deepcopy
from functools import cached_property

import torch
from torch import Tensor, nn

from models.networks.base import Generator, NoiseSource
from util.errors import UserError
from util.runtime.device import format_gib, free_memory
from util.terminal import print_line

# A layer needs its input, its output and working copies at once. Measured: 3.3 times the largest feature map for
# resnet_9blocks, 3.6 times for smallstylegan2.
LIVE_ACTIVATIONS = 4
BYTES_PER_ELEMENT = 4 * LIVE_ACTIVATIONS  # of the largest feature map, in float32
PROBE_SIZE = 256  # pixels
# GPU kernels such as reflection_pad2d index a tensor with 32-bit integers, and a layer may pad its maps by a few pixels.
MAX_GPU_ELEMENTS = int(0.95 * 2**31)
MIN_CHECKED_PIXELS = 2**20  # smaller batches fit everywhere


def probe_size(generator: Generator) -> int:
    """Return the side in pixels of a square image that the generator accepts: `PROBE_SIZE`, or the next larger one."""
    return -(-max(PROBE_SIZE, generator.min_size) // generator.size_multiple) * generator.size_multiple


def elements_per_pixel(generator: Generator, input_nc: int) -> float:
    """Return the number of elements of the largest feature map, divided by the number of pixels of the image.

    A copy of the generator runs on the meta device, where only shapes are computed, on an image of `probe_size`.
    """
    largest = 0

    def track_largest(layer: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    on_meta, size = deepcopy(generator).to("meta"), probe_size(generator)
    on_meta.set_noise_source(NoiseSource())
    for layer in on_meta.modules():
        layer.register_forward_hook(track_largest)
    on_meta(torch.empty(1, input_nc, size, size, device="meta"))
    return largest / size**2


def max_map_elements(device: torch.device) -> int:
    """Return the number of elements that a feature map may have on this device."""
    return sys.maxsize if device.type == "cpu" else MAX_GPU_ELEMENTS


def max_images(elements: float, memory: int, max_elements: int) -> int:
    """Return the number of images that one forward pass can take, 0 if even one is too large.

    Args:
        elements: size of the largest feature map of one image.
        memory: usable memory in bytes.
        max_elements: number of elements that a feature map may have (`max_map_elements`).
    """
    return int(min(memory // (elements * BYTES_PER_ELEMENT), max_elements // elements))


def describe_excess(elements: float, memory: int, max_elements: int) -> str | None:
    """Return why an image is too large for one forward pass, as a predicate; None if it is not. Args: see `max_images`."""
    if elements > max_elements:
        return f"need a feature map of {elements:.2g} elements, too many for GPU kernels"
    if elements * BYTES_PER_ELEMENT > memory:
        return f"need about {format_gib(elements * BYTES_PER_ELEMENT)} of memory, but only {format_gib(memory)} can be used"
    return None


class SizeCheck:
    """Check that the images of a test are not too large for one forward pass, before a kernel or an allocation fails."""

    def __init__(self, generator: Generator, input_nc: int, device: torch.device) -> None:
        self.generator = generator
        self.input_nc = input_nc
        self.device = device
        self.max_elements = max_map_elements(device)
        self.is_noted = False

    @cached_property
    def elements_per_pixel(self) -> float:
        """Number of elements of the largest feature map per pixel."""
        return elements_per_pixel(self.generator, self.input_nc)

    def __call__(self, images: Tensor | None, name: str) -> None:
        """Check a batch (N, C, H, W), if there is one. `name` is that of its first file.

        Memory is estimated. Therefore too little of it is a note, printed once.

        Raises:
            UserError: a feature map has more elements than GPU kernels can index.
        """
        if images is None or images[:, 0].numel() < MIN_CHECKED_PIXELS:
            return
        count, _, height, width = images.shape
        elements = count * height * width * self.elements_per_pixel
        reason = describe_excess(elements, free_memory(self.device), self.max_elements)
        if reason is None:
            return
        size = f"{count} images of {width}x{height}" if count > 1 else f"{width}x{height}"
        if elements > self.max_elements:
            raise UserError(
                f"{name}: {size} pixels {reason}. "
                "Use scripts/translate.py, which computes in tiles, or smaller images or batches."
            )
        if not self.is_noted:
            print_line(f"note: {name}: {size} pixels {reason}. scripts/translate.py computes large images in tiles")
        self.is_noted = True
