"""PatchNCE, the GAN losses and the gradient penalties, checked against their definitions."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.losses.gan import GAN_LOSSES
from models.losses.gradient_penalty import r1_penalty, wgan_gp_penalty
from models.losses.patch_nce import PatchNCELoss, patch_nce
from models.networks import DISCRIMINATORS, DiscriminatorConfig
from models.networks.layers import init_weights
from models.networks.patch_sampler import PatchSampler
from models.networks.resnet import ResnetGenerator

TEMPERATURE = 0.07


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_patches(count: int, seed: int = 0) -> Tensor:
    """Return unit vectors."""
    return nn.functional.normalize(random_tensor(count, 6, seed=seed))


class TestPatchNCE:
    QUERIES, KEYS = random_patches(12, seed=1), random_patches(12, seed=2)

    @pytest.mark.parametrize("count", [16, 256])
    def test_chance_level_is_the_logarithm_of_the_number_of_patches(self, count: int) -> None:
        alike = random_patches(1).expand(count, -1)
        torch.testing.assert_close(
            patch_nce(alike, alike, 1, TEMPERATURE), torch.full((count,), math.log(count), dtype=torch.float64)
        )

    @pytest.mark.parametrize("groups", [1, 3])
    @pytest.mark.parametrize("temperature", [0.07, 5.0])
    def test_is_the_cross_entropy_over_the_keys_of_a_group(self, temperature: float, groups: int) -> None:
        """At a high temperature the masked diagonal contributes: -10, divided by the temperature like the other logits."""
        size = 12 // groups
        expected = []
        for row, query in enumerate(self.QUERIES):
            group = range(row // size * size, row // size * size + size)
            logits = [(query @ self.KEYS[row]) / temperature]
            logits += [(query @ self.KEYS[other] if other != row else torch.tensor(-10.0)) / temperature for other in group]
            expected.append(torch.stack(logits).logsumexp(0) - logits[0])
        torch.testing.assert_close(patch_nce(self.QUERIES, self.KEYS, groups, temperature), torch.stack(expected))

    @pytest.mark.parametrize(("groups", "reached"), [(1, [True] * 12), (3, [True] * 4 + [False] * 8)])
    def test_negatives_of_one_image_or_of_the_whole_minibatch(self, groups: int, reached: list[bool]) -> None:
        keys = self.KEYS.clone()
        keys[2] = random_patches(1, seed=3)
        before, after = (patch_nce(self.QUERIES, values, groups, TEMPERATURE) for values in (self.KEYS, keys))
        assert (before != after).tolist() == reached

    @pytest.mark.parametrize("groups", [1, 3])
    def test_order_does_not_matter(self, groups: int) -> None:
        """Permute the patches of an image, and the images."""
        losses = patch_nce(self.QUERIES, self.KEYS, groups, TEMPERATURE)
        order = torch.tensor([2, 0, 1]).repeat_interleave(4) * 4 + torch.tensor([3, 0, 2, 1, 0, 1, 3, 2, 1, 2, 3, 0])
        torch.testing.assert_close(patch_nce(self.QUERIES[order], self.KEYS[order], groups, TEMPERATURE), losses[order])

    def test_only_queries_get_a_gradient(self) -> None:
        queries, keys = self.QUERIES.clone().requires_grad_(), self.KEYS.clone().requires_grad_()
        patch_nce(queries, keys, 3, TEMPERATURE).sum().backward()
        assert keys.grad is None
        assert queries.grad.abs().min() > 0
        assert torch.autograd.gradcheck(
            lambda values: patch_nce(values, self.KEYS, 3, 0.5), self.QUERIES.clone().requires_grad_()
        )

    def test_loss_of_a_patch_without_negatives_is_zero(self) -> None:
        losses = patch_nce(self.QUERIES, self.KEYS, 12, TEMPERATURE)
        torch.testing.assert_close(losses, torch.zeros_like(losses), atol=1e-10, rtol=0)


class TestPatchNCELoss:
    """The loss term of one generator. A two-sided method has one for each of its generators."""

    LAYERS = (0, 4, 8)

    @pytest.fixture
    def term(self) -> PatchNCELoss:
        torch.manual_seed(0)
        netG = ResnetGenerator(3, 3, ngf=2, n_blocks=1).double()
        netF = PatchSampler(netG.feature_channels(self.LAYERS), use_mlp=True, nc=4).double()
        for network in (netG, netF):
            init_weights(network, gain=1.0)
        return PatchNCELoss(netG, netF, netF, self.LAYERS, num_patches=5, rng=torch.Generator(), temperature=TEMPERATURE)

    def test_is_the_mean_over_layers(self, term: PatchNCELoss) -> None:
        src, tgt = random_tensor(2, 3, 16, 16, seed=1), random_tensor(2, 3, 16, 16, seed=2)
        term.rng.manual_seed(3)
        loss = term(src, tgt)
        term.rng.manual_seed(3)
        keys = term.sample_keys(term.encode_keys(src))
        queries = term.netF(term.sampler.gather(term.encode(tgt), keys.patch_ids))
        per_layer = [patch_nce(q, k, 2, TEMPERATURE).mean() for q, k in zip(queries, term.netF(keys.patches), strict=True)]
        torch.testing.assert_close(loss, torch.stack(per_layer).mean())

    def test_flipped_outputs_are_compared_with_unflipped_inputs(self, term: PatchNCELoss) -> None:
        """With layer 0, the padded image, a flip moves the values and changes nothing else."""
        term.layers = (0,)
        image = random_tensor(2, 3, 16, 16)
        losses = []
        for tgt, mirrored in ((image, False), (image.flip(3), True), (image.flip(3), False)):
            term.rng.manual_seed(3)
            losses.append(term(image, tgt, mirrored).item())
        assert losses[0] == pytest.approx(losses[1])
        assert losses[0] != pytest.approx(losses[2])

    def test_gradient_reaches_the_output_and_its_own_networks(self, term: PatchNCELoss) -> None:
        src, tgt = random_tensor(1, 3, 16, 16, seed=1).requires_grad_(), random_tensor(1, 3, 16, 16, seed=2).requires_grad_()
        term(src, tgt).backward()
        assert src.grad is None
        assert tgt.grad.any()
        assert all(parameter.grad is not None for parameter in term.netF.parameters())
        assert next(term.netG.parameters()).grad.any()


class TestGANLosses:
    @pytest.mark.parametrize("name", GAN_LOSSES)
    def test_decreases_towards_the_target(self, name: str) -> None:
        """Use logits between -0.5 and 0.5, shifted for lsgan, which has a minimum: all gradients have the same sign."""
        for is_real, sign in ((True, -1), (False, 1)):
            logits = torch.linspace(-0.5, 0.5, 24, dtype=torch.float64).view(2, 1, 3, 4)
            if name == "lsgan":
                logits += 0.5
            gradient = torch.func.grad(lambda values, real=is_real: GAN_LOSSES[name](values, real).mean())(logits)
            assert (gradient * sign).min() >= 0
            assert (gradient * sign).max() > 0

    @pytest.mark.parametrize("name", GAN_LOSSES)
    def test_weights_logits_equally_in_any_shape(self, name: str) -> None:
        logits = random_tensor(4, 1, 3, 4)
        for arranged in (logits.view(2, 1, 6, 4), logits.view(48, 1)):
            torch.testing.assert_close(GAN_LOSSES[name](arranged, True).mean(), GAN_LOSSES[name](logits, True).mean())


class Paraboloid(nn.Module):
    """A discriminator |x|^2 / 2 + <w, x> with the gradient x + w. `shown` are the images of the last pass."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.weight = nn.Parameter(random_tensor(*shape, seed=9))

    def forward(self, images: Tensor) -> Tensor:
        self.shown = images.detach()
        return (images.square() / 2 + images * self.weight).flatten(1).sum(1)


class TestGradientPenalties:
    REAL, FAKE = random_tensor(64, 2, 3, 3, seed=1), random_tensor(64, 2, 3, 3, seed=2)

    def test_r1_is_the_mean_squared_norm_at_real_images(self) -> None:
        critic = Paraboloid(self.REAL.shape[1:])
        expected = (self.REAL + critic.weight).square().sum((1, 2, 3)).mean()
        torch.testing.assert_close(r1_penalty(critic, self.REAL), expected)

    def test_wgan_gp_is_the_distance_of_the_norm_from_one(self) -> None:
        critic = Paraboloid(self.REAL.shape[1:])
        penalty = wgan_gp_penalty(critic, self.REAL, self.FAKE, torch.Generator().manual_seed(0))
        norms = (critic.shown + critic.weight).square().sum((1, 2, 3)).sqrt()
        torch.testing.assert_close(penalty, (norms - 1).square().mean())

    def test_wgan_gp_samples_one_point_between_each_pair(self) -> None:
        critic = Paraboloid(self.REAL.shape[1:])
        rng = torch.Generator().manual_seed(0)
        wgan_gp_penalty(critic, self.REAL, self.FAKE, rng)
        alphas = ((critic.shown - self.FAKE) / (self.REAL - self.FAKE)).flatten(1)
        torch.testing.assert_close(alphas, alphas[:, :1].expand_as(alphas), atol=1e-6, rtol=0)
        assert alphas.min() >= 0
        assert alphas.max() <= 1
        assert alphas.mean().item() == pytest.approx(0.5, abs=0.1)
        assert alphas[:, 0].std().item() == pytest.approx(math.sqrt(1 / 12), rel=0.2)

        shown = critic.shown
        wgan_gp_penalty(critic, self.REAL, self.FAKE, rng)
        assert not torch.equal(critic.shown, shown), "every step samples new points"
        wgan_gp_penalty(critic, self.REAL, self.FAKE, torch.Generator().manual_seed(0))
        assert torch.equal(critic.shown, shown)

    def test_images_get_no_gradient(self) -> None:
        critic = Paraboloid(self.REAL.shape[1:])
        real, fake = self.REAL.clone().requires_grad_(), self.FAKE.clone().requires_grad_()
        (r1_penalty(critic, real) + wgan_gp_penalty(critic, real, fake, torch.Generator())).backward()
        assert real.grad is None
        assert fake.grad is None

    @pytest.mark.parametrize("name", DISCRIMINATORS)
    @pytest.mark.parametrize("penalty", ["r1", "wgan_gp"])
    def test_can_be_minimized_for_every_discriminator(self, penalty: str, name: str) -> None:
        """Compare the derivative of the penalty with respect to the weights with finite differences."""
        settings = DiscriminatorConfig(
            input_nc=1, ndf=1, n_layers=2, norm="instance", antialias=True, size=32, patch_size=16
        )
        discriminator = DISCRIMINATORS[name](settings).double()
        for index, parameter in enumerate(discriminator.parameters()):
            parameter.data = random_tensor(*parameter.shape, seed=index)
        real, fake = random_tensor(2, 1, 32, 32, seed=1), random_tensor(2, 1, 32, 32, seed=2)
        direction = [random_tensor(*parameter.shape, seed=100 + i) for i, parameter in enumerate(discriminator.parameters())]

        def value() -> Tensor:
            if penalty == "r1":
                return r1_penalty(discriminator, real)
            return wgan_gp_penalty(discriminator, real, fake, torch.Generator().manual_seed(0))

        def moved(step: float) -> float:
            with torch.no_grad():
                for parameter, way in zip(discriminator.parameters(), direction, strict=True):
                    parameter += step * way
            return value().item()

        value().backward()
        pairs = zip(discriminator.parameters(), direction, strict=True)
        slope = sum((parameter.grad * way).sum().item() for parameter, way in pairs if parameter.grad is not None)
        step = 1e-7
        difference = (moved(step) - moved(-2 * step)) / (2 * step)
        assert slope == pytest.approx(difference, rel=1e-5)
