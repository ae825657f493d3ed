"""The adversarial losses that --gan_mode chooses from (CUT, section 3, adversarial loss; equation 1)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def lsgan(pred: Tensor, target_is_real: bool) -> Tensor:
    """Least squares (Mao et al., 2017): the mean squared distance to 1 for real, 0 for fake; a scalar."""
    return F.mse_loss(pred, torch.full_like(pred, float(target_is_real)))


def vanilla(pred: Tensor, target_is_real: bool) -> Tensor:
    """Cross-entropy on logits (Goodfellow et al., 2014); a scalar."""
    return F.binary_cross_entropy_with_logits(pred, torch.full_like(pred, float(target_is_real)))


def wgangp(pred: Tensor, target_is_real: bool) -> Tensor:
    """The critic's mean score, negated for real (Arjovsky et al., 2017); a scalar."""
    return -pred.mean() if target_is_real else pred.mean()


def nonsaturating(pred: Tensor, target_is_real: bool) -> Tensor:
    """Softplus of the score, negated for real, as StyleGAN2 has it; one mean for every entry of the batch, (N,)."""
    return F.softplus(-pred if target_is_real else pred).flatten(1).mean(dim=1)


GAN_LOSSES: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "lsgan": lsgan,
    "vanilla": vanilla,
    "wgangp": wgangp,
    "nonsaturating": nonsaturating,
}
