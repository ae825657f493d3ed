"""Spectral normalization of discriminators (Miyato et al., ICLR 2018), with plain state-dict keys."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from util.errors import UserError

POWER_ITERATIONS = 15  # after new weights, as torch does at the start
ORIGINAL, VECTORS = ".parametrizations.weight.original", (".parametrizations.weight.0._u", ".parametrizations.weight.0._v")


def add_spectral_norm(network: nn.Module, option: str) -> None:
    """Divide the weights of every convolution by their largest singular value, in place.

    Its state dict keeps the keys of the plain network and holds the weights before the division. The singular vectors, which
    power iteration improves in every forward pass, are not part of it; see `SpectralNormState`.

    Raises:
        UserError: the network has no plain convolutions. The message names `option`.
    """
    convolutions = _convolutions(network)
    if not convolutions:
        raise UserError(
            f"{option}: the discriminator has no plain convolutions. Use --netD basic, n_layers, pixel or patch."
        )
    for layer in convolutions.values():
        spectral_norm(layer)

    def to_plain(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
        for name in convolutions:
            for vector in VECTORS:
                del state[f"{prefix}{name}{vector}"]
        renamed = {key.replace(ORIGINAL, ".weight"): value for key, value in state.items()}
        state.clear()
        state.update(renamed)

    def from_plain(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        vectors = _vectors(network)
        for name in convolutions:
            if f"{prefix}{name}.weight" in state:
                state[f"{prefix}{name}{ORIGINAL}"] = state.pop(f"{prefix}{name}.weight")
            for suffix in VECTORS:
                state[f"{prefix}{name}{suffix}"] = vectors[f"{name}{suffix}"]

    def fit_vectors(module: nn.Module, _: Any) -> None:
        with torch.no_grad():
            for layer in convolutions.values():
                for _ in range(POWER_ITERATIONS):
                    layer.weight  # noqa: B018  # computing it in training mode does one iteration

    network.register_state_dict_post_hook(to_plain)
    network.register_load_state_dict_pre_hook(from_plain)
    network.register_load_state_dict_post_hook(fit_vectors)


class SpectralNormState:
    """The singular vectors of discriminators, which an exact resume needs besides the weights.

    Args:
        networks: discriminators with spectral normalization, by name.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = networks

    def state_dict(self) -> dict[str, Any]:
        """Return the vectors by network and layer."""
        return {name: {key: vector.cpu() for key, vector in _vectors(each).items()} for name, each in self.networks.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned. Raise an exception if it does not fit."""
        for name, network in self.networks.items():
            for key, vector in _vectors(network).items():
                vector.copy_(state[name][key])


def _convolutions(network: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}


def _vectors(network: nn.Module) -> dict[str, Tensor]:
    return {key: buffer for key, buffer in network.named_buffers() if key.endswith(VECTORS)}
