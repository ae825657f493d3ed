"""Feature map sizes of a translation: the memory it takes, and the number of elements that GPU kernels can index."""

import sys

import torch
from torch import Tensor, nn

# A layer needs its input, its output and working copies at once. Measured: 3.3 times the largest feature map for
# resnet_9blocks, 3.6 times for smallstylegan2.
LIVE_ACTIVATIONS = 4
BYTES_PER_ELEMENT = 4 * LIVE_ACTIVATIONS  # of the largest feature map, in float32
PROBE_SIZE = 256  # pixels; a multiple of what any generator asks for
# GPU kernels such as reflection_pad2d index a tensor with 32-bit integers, and a layer may pad its maps by a few pixels.
LARGEST_GPU_MAP = int(0.95 * 2**31)  # elements


def elements_per_pixel(generator: nn.Module, input_nc: int) -> float:
    """Return the number of elements of the largest feature map, divided by the number of pixels of the image.

    The generator runs on the meta device, where only shapes are computed.
    """
    largest = 0

    def note(layer: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [layer.register_forward_hook(note) for layer in generator.modules()]
    state = {key: value.to("meta") for key, value in generator.state_dict().items()}
    image = torch.empty(1, input_nc, PROBE_SIZE, PROBE_SIZE, device="meta")
    try:
        torch.func.functional_call(generator, state, (image,))
    finally:
        for hook in hooks:
            hook.remove()
    return largest / PROBE_SIZE**2


def largest_map(device: torch.device) -> int:
    """Return the number of elements that a feature map may have on this device."""
    return sys.maxsize if device.type == "cpu" else LARGEST_GPU_MAP


def images_at_once(elements: float, budget: int, largest: int) -> int:
    """Return the number of images that one pass can take, 0 if even one is too large.

    Args:
        elements: of the largest feature map of one image.
        budget: bytes of memory that may be used.
        largest: elements that a feature map may have (`largest_map`).
    """
    return int(min(budget // (elements * BYTES_PER_ELEMENT), largest // elements))
