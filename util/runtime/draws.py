"""The random draws of a training step: made on the right device, and in one place.

A step asks for a draw where it needs it, and gets it there and then. Where its computation is a recording that is played
back (util/runtime/recorded_steps.py), what it asks for was drawn before, into the memory that the recording reads.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DrawTensors = Callable[..., list[Tensor]]
Decide = Callable[[torch.Generator], bool]


class Draws:
    """What a draw decides on the device follows from `generator`, which is there too; what the program itself has to know,
    from `host_generator` on the CPU: asking the device would mean to wait for it."""

    def __init__(self, generator: torch.Generator, host_generator: torch.Generator) -> None:
        self.generator = generator
        self.host_generator = host_generator

    def tensors(self, draw: DrawTensors, features: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
        """`draw(features, *arguments, generator)`, which looks at the sizes and the device of `features` alone."""
        return draw(features, *arguments, self.generator)

    def decision(self, draw: Decide) -> bool:
        """`draw(host_generator)`, by which the step goes one way or another."""
        return draw(self.host_generator)


@dataclass(frozen=True)
class Kept:
    """Tensors that a step asked for, and how to draw them anew."""

    draw: Callable[[], list[Tensor]]
    tensors: list[Tensor]


class KeptDraws(Draws):
    """Draws that can be made before the step that asks for them.

    What steps ask for is learnt from steps that run as usual: their decisions, which come in the same order in every step,
    and their tensors (`keeping`). Then decisions are made ahead (`decide`), tensors drawn anew in their place (`renew`), and
    a step gets those (`giving`).
    """

    def __init__(self, generator: torch.Generator, host_generator: torch.Generator) -> None:
        super().__init__(generator, host_generator)
        self._known_decisions: list[Decide] = []
        self._decided: Iterator[bool] = iter(())
        self._keeping: list[Kept] = []
        self._giving: Iterator[Kept] | None = None

    def tensors(self, draw: DrawTensors, features: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
        if self._giving is not None:
            return next(self._giving).tensors
        tensors = draw(features, *arguments, self.generator)
        sizes = [size_of(feature) for feature in features]
        self._keeping.append(Kept(lambda: draw(sizes, *arguments, self.generator), tensors))
        return tensors

    def decision(self, draw: Decide) -> bool:
        decided = next(self._decided, None)
        if decided is None:
            self._known_decisions.append(draw)
            decided = draw(self.host_generator)
        return decided

    def decide(self) -> tuple[bool, ...]:
        """The decisions of the coming step, as far as it is known what it will ask."""
        decisions = tuple(draw(self.host_generator) for draw in self._known_decisions)
        self._decided = iter(decisions)
        return decisions

    @contextmanager
    def keeping(self) -> Iterator[list[Kept]]:
        """Yields a list that the tensors drawn in the body are added to."""
        self._keeping = []
        yield self._keeping

    @staticmethod
    def renew(kept: Sequence[Kept]) -> None:
        """Draws all of `kept` anew, in their order, each tensor in its place."""
        for one in kept:
            for old, new in zip(one.tensors, one.draw(), strict=True):
                old.copy_(new)

    @contextmanager
    def giving(self, kept: Sequence[Kept]) -> Iterator[None]:
        """In the body, whoever asks for tensors gets `kept`, in their order."""
        self._giving = iter(kept)
        yield
        self._giving = None


def size_of(feature: Tensor) -> Tensor:
    """A tensor of the same shape, type and device that takes no memory; its values mean nothing."""
    return torch.empty((), dtype=feature.dtype, device=feature.device).expand(feature.shape)
