"""Small generators with random weights, and their checkpoints."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.networks import GENERATORS, GeneratorConfig
from models.networks.layers import init_weights
from models.networks.stylegan2 import NoiseInjection
from util.runtime.rng import fork_rng_seeded
from util.runtime.weights import save_weights


def generator(name: str = "resnet_4blocks", **changes: Any) -> nn.Module:
    """Return a generator in evaluation mode whose norms, noise and last layer have an effect."""
    settings: dict[str, Any] = {
        "input_nc": 3,
        "output_nc": 3,
        "ngf": 4,
        "norm": "instance",
        "dropout": False,
        "antialias": True,
        "antialias_up": True,
        "size": 64,
        "n_downsampling": 1,
    }
    with fork_rng_seeded(0):
        network = GENERATORS[name](GeneratorConfig(**settings | changes))
        if not name.endswith("stylegan2"):
            init_weights(network, "xavier", 1.0)
        for layer in network.modules():
            if isinstance(layer, NoiseInjection):
                nn.init.constant_(layer.weight, 0.3)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


def checkpoint(folder: Path, name: str = "resnet_4blocks", file: str = "latest_net_G.pth", **changes: Any) -> Path:
    """Write the weights of `generator` and return their path."""
    save_weights(generator(name, **changes), folder / file)
    return folder / file


def image(height: int, width: int, channels: int = 3, batch: int = 1) -> torch.Tensor:
    """Return smooth colors with noise in [-1, 1]: local instance norm statistics differ."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    rng = torch.Generator().manual_seed(height)
    noise = torch.randn(batch, channels, height, width, generator=rng) * 0.3
    return (noise + (rows * columns)).clamp(-1, 1)
