"""What it takes to be a generator whose encoder PatchNCE can look into."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class EncoderGenerator(nn.Module, ABC):
    """A generator with taps: `G(x)` is the translation, `G(x, layers)` the translation and the features at these layers,
    `G(x, layers, encode_only=True)` the features alone."""

    #: Whether what a stage computes on the way is computed again for its gradient, instead of being kept in memory.
    gradient_checkpointing: bool = False

    def checkpointed(self, stage: Callable[..., Any], features: Tensor, *arguments: Any) -> Any:
        """`stage(features, *arguments)`, a part of the generator that draws nothing but dropout."""
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return stage(features, *arguments)
        drops = any(isinstance(layer, nn.Dropout) for layer in self.modules())
        return checkpoint(stage, features, *arguments, use_reentrant=False, preserve_rng_state=drops)

    @abstractmethod
    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """Channels of the feature maps tapped at `layers`. Raises ValueError where these are no legal taps."""


def validate_nce_layers(layers: Sequence[int], entries: int) -> None:
    """Raises ValueError unless `layers` are strictly increasing indices below `entries`, and at least one."""
    legal = f"taps are strictly increasing numbers from 0 to {entries - 1}"
    if not layers:
        raise ValueError(f"no layer is named; {legal}")
    if any(layer < 0 or layer >= entries for layer in layers):
        raise ValueError(f"{_listed(layers)} leave this generator, which has {entries} entries; {legal}")
    if any(later <= earlier for earlier, later in pairwise(layers)):
        raise ValueError(f"{_listed(layers)} are not in order; {legal}")


def _listed(layers: Sequence[int]) -> str:
    return ",".join(map(str, layers))
