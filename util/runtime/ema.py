"""Exponential moving averages (EMA) of the generators' weights."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

EMA_SUFFIX = "_ema"  # added to the name of a network for its average: latest_net_G_ema.pth


class ModelEMA:
    """Moving averages of networks: after a step, average = decay * average + (1 - decay) * weights.

    The first step initializes the averages. Buffers are copied.

    Args:
        networks: networks to follow, by name.
        decay: in (0, 1); 0.999 averages over roughly 1000 steps.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.networks = {
            name + EMA_SUFFIX: copy.deepcopy(network).requires_grad_(False) for name, network in networks.items()
        }
        self.initialized = False
        # Collected once: an update then takes two launches on a GPU for any number of layers, and waits for nothing.
        copies = self.networks.values()
        self._averages: list[Tensor] = [parameter for network in copies for parameter in network.parameters()]
        self._weights: list[Tensor] = [parameter for network in networks.values() for parameter in network.parameters()]
        self._own_buffers = [buffer for network in copies for buffer in network.buffers()]
        self._buffers = [buffer for network in networks.values() for buffer in network.buffers()]

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the current weights. Call it after every step."""
        if self.initialized:
            torch._foreach_lerp_(self._averages, self._weights, 1 - self.decay)
        else:
            torch._foreach_copy_(self._averages, self._weights)
            self.initialized = True
        if self._buffers:
            torch._foreach_copy_(self._own_buffers, self._buffers)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, and whether they are initialized ("begun" in the training state)."""
        return {"begun": self.initialized} | {name: network.state_dict() for name, network in self.networks.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.initialized = state["begun"]
        for name, network in self.networks.items():
            network.load_state_dict(state[name])
