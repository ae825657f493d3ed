"""The adversarial losses that --gan_mode chooses from (CUT, section 3, adversarial loss; equation 1)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def lsgan(scores: Tensor, is_real: bool) -> Tensor:
    """Least squares (Mao et al., 2017): the mean squared distance to 1 for real, 0 for fake; a scalar."""
    return F.mse_loss(scores, torch.full_like(scores, float(is_real)))


def vanilla(scores: Tensor, is_real: bool) -> Tensor:
    """Cross-entropy on logits (Goodfellow et al., 2014); a scalar."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(is_real)))


def wgangp(scores: Tensor, is_real: bool) -> Tensor:
    """The critic's mean score, negated for real (Arjovsky et al., 2017); a scalar."""
    return -scores.mean() if is_real else scores.mean()


def nonsaturating(scores: Tensor, is_real: bool) -> Tensor:
    """Softplus of the score, negated for real, as StyleGAN2 has it; one mean for every entry of the batch, (N,)."""
    return F.softplus(-scores if is_real else scores).flatten(1).mean(dim=1)


GAN_LOSSES: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "lsgan": lsgan,
    "vanilla": vanilla,
    "wgangp": wgangp,
    "nonsaturating": nonsaturating,
}
