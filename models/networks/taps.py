"""What a legal list of encoder taps is, for every generator that has them."""

from collections.abc import Sequence
from itertools import pairwise


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
