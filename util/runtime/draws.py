"""The random draws of a training step: made on the right device, and in one place.

A step asks for a draw where it needs it, and gets it there and then. Where its computation is a recording that is played
back, what it asks for was drawn before (util/runtime/step_graphs.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Draws:
    """What a draw decides on the device follows from `generator`, which is there too; what the program itself has to know,
    from `host_generator` on the CPU: asking the device would mean to wait for it."""

    def __init__(self, generator: torch.Generator, host_generator: torch.Generator) -> None:
        self.generator = generator
        self.host_generator = host_generator

    def tensors(self, draw: Callable[..., list[Tensor]], features: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
        """`draw(features, *arguments, generator)`, which looks at the sizes and the device of `features` alone."""
        return draw(features, *arguments, self.generator)

    def decision(self, draw: Callable[[torch.Generator], bool]) -> bool:
        """`draw(host_generator)`, by which the step goes one way or another."""
        return draw(self.host_generator)
