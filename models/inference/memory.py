"""Feature map sizes: the memory that a forward pass needs, and the number of elements that GPU kernels can index."""

import sys

import torch
from torch import Tensor, nn

from models.networks.base import Generator

# A layer needs its input, its output and working copies at once. Measured: 3.3 times the largest feature map for
# resnet_9blocks, 3.6 times for smallstylegan2.
LIVE_ACTIVATIONS = 4
BYTES_PER_ELEMENT = 4 * LIVE_ACTIVATIONS  # of the largest feature map, in float32
PROBE_SIZE = 256  # pixels
# GPU kernels such as reflection_pad2d index a tensor with 32-bit integers, and a layer may pad its maps by a few pixels.
MAX_GPU_ELEMENTS = int(0.95 * 2**31)


def probe_size(generator: Generator) -> int:
    """Return the side in pixels of a square image that the generator accepts: `PROBE_SIZE`, or the next larger one."""
    return -(-max(PROBE_SIZE, generator.min_size) // generator.size_multiple) * generator.size_multiple


def elements_per_pixel(generator: Generator, input_nc: int) -> float:
    """Return the number of elements of the largest feature map, divided by the number of pixels of the image.

    The generator runs on the meta device, where only shapes are computed, on an image of `probe_size`.
    """
    largest = 0

    def track_largest(layer: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [layer.register_forward_hook(track_largest) for layer in generator.modules()]
    state = {key: value.to("meta") for key, value in generator.state_dict().items()}
    size = probe_size(generator)
    try:
        torch.func.functional_call(generator, state, (torch.empty(1, input_nc, size, size, device="meta"),))
    finally:
        for hook in hooks:
            hook.remove()
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
