"""LeCam regularization of discriminators (Tseng et al., Regularizing GANs under Limited Data, CVPR 2021)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from util.runtime.distributed import all_reduce_mean

DECAY = 0.99


class LeCam:
    """Penalty on the distance of D's logits from moving averages of its logits on images of the other kind.

        E |D(real) - a_F|² + E |D(fake) - a_R|²

    a_R and a_F are exponential moving averages, with decay 0.99, of the mean logits on real and fake images. The first
    batch initializes them. They belong to the state of a run.

    Args:
        names: names of the discriminators; each has its own averages.
        device: where the averages are stored.
    """

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        #: a_R, a_F, and 1 after the first batch. Tensors, because a captured CUDA graph reads and updates them.
        self.averages = {name: torch.zeros(3, device=device) for name in names}

    def __call__(self, name: str, pred_real: Tensor, pred_fake: Tensor) -> Tensor:
        """Update the averages of a discriminator with its logits, of any shape, and return the penalty, a scalar."""
        state = self.averages[name]
        batch = torch.stack([pred.detach().to(state).mean() for pred in (pred_real, pred_fake)])
        state[:2] = torch.lerp(all_reduce_mean(batch), state[:2], DECAY * state[2])
        state[2].fill_(1)
        average_real, average_fake = state[:2].clone()
        return (pred_real - average_fake).square().mean() + (pred_fake - average_real).square().mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the averages as numbers, by discriminator."""
        return {name: state.tolist() for name, state in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned. Raise an exception if it does not fit."""
        for name, averages in self.averages.items():
            averages.copy_(torch.tensor(state[name], dtype=averages.dtype))
