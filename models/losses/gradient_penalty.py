"""Penalties on the gradient of a discriminator with respect to its input."""

import torch
from torch import Tensor, nn

from util.runtime.distributed import local_shard, world_size


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Return the R1 penalty (Mescheder et al., 2018), a differentiable scalar.

    It is the squared norm of the gradient of D at real images (N, C, H, W), averaged over the batch.
    """
    return _input_gradient(discriminator, real).square().sum(dim=1).mean()


def wgan_gp_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """Return the WGAN-GP penalty (Gulrajani et al., 2017, equation 3), a differentiable scalar.

    It is the squared distance of the gradient norm from 1, at random interpolates of real and fake images (N, C, H, W).
    """
    alphas = torch.rand(len(real) * world_size(), 1, 1, 1, generator=generator, device=generator.device)
    alpha = local_shard(alphas).to(real)
    interpolates = torch.lerp(fake, real, alpha)
    return (torch.linalg.vector_norm(_input_gradient(discriminator, interpolates), dim=1) - 1).square().mean()


def _input_gradient(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Return the gradient of the sum of all logits with respect to `images`, one row per image: (N, C*H*W)."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.flatten(1)
