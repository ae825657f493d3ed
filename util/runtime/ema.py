"""Exponential moving averages of weights: a smoother translator than the newest one, kept beside it."""

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

SUFFIX = "_ema"  # what is appended to a network's name for its average


class Averages(Protocol):
    """Averages of some networks; `networks` holds them under names of their own."""

    networks: dict[str, nn.Module]

    def update(self) -> None:
        """Takes the newest weights in; to be called after every step."""


class NoEMA:
    """Stands in for averages that are not wanted."""

    def __init__(self) -> None:
        self.networks: dict[str, nn.Module] = {}

    def update(self) -> None:
        """Does nothing."""


class ModelEMA:
    """For each network a copy that follows it: after a step, average = decay · average + (1 - decay) · weights.

    The first step sets the averages. Buffers, which are no weights, are those of the network.

    Args:
        networks: those to follow, by name.
        decay: in (0, 1); 0.999 looks back over some thousand steps.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.networks = {name + SUFFIX: copy.deepcopy(network).requires_grad_(False) for name, network in networks.items()}
        self.initialized = False
        # Collected once: an update is then two launches on a GPU, whatever the number of layers, and waits for nothing.
        copies = self.networks.values()
        self._averages: list[Tensor] = [parameter for network in copies for parameter in network.parameters()]
        self._weights: list[Tensor] = [parameter for network in networks.values() for parameter in network.parameters()]
        self._own_buffers = [buffer for network in copies for buffer in network.buffers()]
        self._buffers = [buffer for network in networks.values() for buffer in network.buffers()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the newest weights in."""
        if self.initialized:
            torch._foreach_lerp_(self._averages, self._weights, 1 - self.decay)
        else:
            torch._foreach_copy_(self._averages, self._weights)
            self.initialized = True
        if self._buffers:
            torch._foreach_copy_(self._own_buffers, self._buffers)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and whether there are any yet."""
        return {"begun": self.initialized} | {name: network.state_dict() for name, network in self.networks.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.initialized = state["begun"]
        for name, network in self.networks.items():
            network.load_state_dict(state[name])
