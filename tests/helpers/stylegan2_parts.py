"""Small random StyleGAN2 networks and images in float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.networks.stylegan2 import StyleGAN2Generator


def random_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return the network in float64 with random parameters, biases and noise strengths included."""
    torch.manual_seed(seed)
    for parameter in network.double().parameters():
        nn.init.normal_(parameter)
    return network


def small_generator(**settings: int | bool) -> StyleGAN2Generator:
    return randomized(StyleGAN2Generator(3, 3, ngf=1, size=64, **settings))


@contextmanager
def recorded_inputs(layer: nn.Module) -> Iterator[list[torch.Size]]:
    """Record the shapes of the inputs of a layer."""
    shapes: list[torch.Size] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    yield shapes
    hook.remove()
