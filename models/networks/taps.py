"""What it takes to be a generator whose encoder PatchNCE can look into."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class TappedGenerator(nn.Module, ABC):
    """A generator with taps: `G(x)` is the translation, `G(x, layers)` the translation and the features at these layers,
    `G(x, layers, encode_only=True)` the features alone."""

    @abstractmethod
    def feature_widths(self, layers: Sequence[int]) -> list[int]:
        """Channels of the feature maps tapped at `layers`. Raises ValueError where these are no legal taps."""


def check_taps(layers: Sequence[int], entries: int) -> None:
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
