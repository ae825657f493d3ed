"""The adversarial losses, choices of --gan_mode (CUT, section 3, adversarial loss; equation 1)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: (pred, target_is_real) -> loss. `pred` are the logits of the discriminator, of any shape (N, ...).
GANLoss = Callable[[Tensor, bool], Tensor]


def lsgan(pred: Tensor, target_is_real: bool) -> Tensor:
    """Return the mean squared error against 1 for real and 0 for fake, a scalar (Mao et al., 2017)."""
    return F.mse_loss(pred, torch.full_like(pred, float(target_is_real)))


def vanilla(pred: Tensor, target_is_real: bool) -> Tensor:
    """Return the binary cross-entropy of the logits, a scalar (Goodfellow et al., 2014)."""
    return F.binary_cross_entropy_with_logits(pred, torch.full_like(pred, float(target_is_real)))


def wgangp(pred: Tensor, target_is_real: bool) -> Tensor:
    """Return the mean logit, negated for real, a scalar (Arjovsky et al., 2017)."""
    return -pred.mean() if target_is_real else pred.mean()


def nonsaturating(pred: Tensor, target_is_real: bool) -> Tensor:
    """Return the mean softplus of the logits, negated for real, for every batch entry (N,), as in StyleGAN2."""
    return F.softplus(-pred if target_is_real else pred).flatten(1).mean(dim=1)


def hinge(pred: Tensor, target_is_real: bool) -> Tensor:
    """Return the mean hinge loss of D: max(0, 1 - D) for real and max(0, 1 + D) for fake, a scalar (Lim and Ye, 2017).

    The generator's loss is -D, see `GENERATOR_LOSSES`.
    """
    return F.relu(1 - pred if target_is_real else 1 + pred).mean()


GAN_LOSSES: dict[str, GANLoss] = {
    "lsgan": lsgan,
    "vanilla": vanilla,
    "wgangp": wgangp,
    "nonsaturating": nonsaturating,
    "hinge": hinge,
}

#: The generator's loss on D's logits of translations, where it is not the loss of D with the target "real".
GENERATOR_LOSSES: dict[str, GANLoss] = {"hinge": wgangp}


def batch_mean(loss: Tensor) -> Tensor:
    """Return the mean over the batch of a GAN loss. A scalar is returned as it is, which saves kernels on a GPU."""
    return loss.mean() if loss.dim() > 0 else loss
