"""How much memory a translation takes."""

import torch
from torch import Tensor, nn

# While a layer works, its input, its output and working copies are there. Measured: 3.3 of the largest map for
# resnet_9blocks, 3.6 for smallstylegan2.
LARGEST_MAPS_AT_ONCE = 4
PROBE_SIDE = 256  # pixels; a multiple of what any generator asks for


def bytes_per_pixel(generator: nn.Module, input_nc: int) -> float:
    """Memory that translating a picture in one piece takes, float32, over its pixels: estimated by the largest feature map.

    Shapes alone: on the meta device nothing is computed.
    """
    largest = 0

    def note(layer: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [layer.register_forward_hook(note) for layer in generator.modules()]
    state = {key: value.to("meta") for key, value in generator.state_dict().items()}
    picture = torch.empty(1, input_nc, PROBE_SIDE, PROBE_SIDE, device="meta")
    try:
        torch.func.functional_call(generator, state, (picture,))
    finally:
        for hook in hooks:
            hook.remove()
    return largest * 4 * LARGEST_MAPS_AT_ONCE / PROBE_SIDE**2
