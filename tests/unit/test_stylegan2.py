"""The StyleGAN2 networks: published outputs and gradients, and optimizations that must not change them."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from conftest import OWN_GOLDEN
from golden_cases import Case, assert_close, assert_gradients
from stylegan2_parts import random_image, randomized, recorded_inputs, small_generator
from torch import Tensor

from models.networks.base import NoiseSource
from models.networks.layers import init_weights
from models.networks.stylegan2 import (
    SmallStyleGAN2Generator,
    StyledUpsample,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
    TiledStyleGAN2Discriminator,
)


def disable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoiseSource, "sample", lambda self, features: torch.zeros_like(features[:, :1]))


NETWORKS = {
    "G_stylegan2": lambda: StyleGAN2Generator(3, 3, ngf=1, size=32),
    "G_smallstylegan2": lambda: SmallStyleGAN2Generator(3, 3, ngf=1, size=32),
    "D_stylegan2": lambda: StyleGAN2Discriminator(3, ndf=1, size=32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_published_outputs_features_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_noise(monkeypatch)
    case = Case(OWN_GOLDEN / "networks" / f"{name}.json", name)
    network = NETWORKS[name]().double()
    network.load_state_dict(case.below("state"))
    image = case["input"].requires_grad_()
    layers = case.info["layers"]
    output, features = network(image, layers) if layers else (network(image), [])
    assert_close("output", output, case["output"])
    for layer, feature in zip(layers or (), features, strict=True):
        assert_close(f"features of layer {layer}", feature, case[f"feat/{layer}"])
    (output * case["output_weight"]).sum().backward()
    assert_close("gradient of the input", image.grad, case["grad_input"])
    assert_gradients("gradient", dict(network.named_parameters()), case.below("grad"))


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("G", lambda: StyleGAN2Generator(3, 3, ngf=10, size=64)),
        ("D", lambda: StyleGAN2Discriminator(3, ndf=8, size=64)),
    ],
)
def test_published_state_dict_at_full_size(name: str, network) -> None:
    inventory = Case(OWN_GOLDEN / "inventories" / "sincut.json", "sincut").info
    built = network()
    assert [[key, list(value.shape)] for key, value in built.state_dict().items()] == inventory["networks"][name]
    assert sum(parameter.numel() for parameter in built.parameters()) == inventory["parameters"][name]


class TestGenerator:
    def test_weights_keep_their_own_initialization(self) -> None:
        networks = []
        for init_type in ("xavier", "orthogonal"):
            torch.manual_seed(3)
            networks.append(StyleGAN2Generator(3, 3, ngf=1, size=64))
            init_weights(networks[-1], init_type)
        first, second = (network.state_dict() for network in networks)
        assert all(torch.equal(first[key], second[key]) for key in first)
        weight = first["encoder.convs.4.conv1.0.weight"]
        assert weight.std().item() == pytest.approx(1, abs=0.1)

    @pytest.mark.parametrize("n_downsampling", [1, 2])
    def test_accepts_any_multiple_of_the_stride(self, n_downsampling: int) -> None:
        generator = small_generator(n_downsampling=n_downsampling)
        output, features = generator(random_image(1, 3, 44, 20), (0, 1, 2, 5))
        assert output.shape == (1, 3, 44, 20)
        assert [feature.shape[1] for feature in features] == generator.feature_channels((0, 1, 2, 5))
        assert features[-1].shape[2:] == (44 // 2**n_downsampling, 20 // 2**n_downsampling)

    def test_accepts_any_number_of_image_channels(self) -> None:
        generator = StyleGAN2Generator(1, 4, ngf=1, size=32).double()
        assert generator(random_image(2, 1, 16, 16)).shape == (2, 4, 16, 16)

    def test_memory_layout_of_the_image_does_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        disable_noise(monkeypatch)
        generator = small_generator()
        image = random_image(2, 3, 16, 16)
        transposed = image.transpose(2, 3).contiguous().transpose(2, 3)
        torch.testing.assert_close(generator(transposed), generator(image))

    def test_bfloat16_is_close_to_float32(self, monkeypatch: pytest.MonkeyPatch) -> None:
        disable_noise(monkeypatch)
        generator = StyleGAN2Generator(3, 3, ngf=1, size=32)
        image = random_image(1, 3, 16, 16).float()
        with torch.autocast("cpu", torch.bfloat16):
            output = generator(image)
        expected = generator(image)
        assert (output.float() - expected).abs().max() < 0.1 * expected.abs().max()

    def test_encoding_stops_at_the_last_layer(self) -> None:
        generator = small_generator()
        image = random_image(1, 3, 16, 16)
        expected = generator(image, (0, 2, 4))[1]
        layers = generator.encoder.convs
        with recorded_inputs(layers[4]) as last, recorded_inputs(layers[5]) as beyond:
            features = generator(image, (0, 2, 4), encode_only=True)
        assert (len(last), len(beyond)) == (1, 0)
        for found, wanted in zip(features, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)

    @pytest.mark.parametrize("layers", [(), (2, 0), (2, 2), (0, 6), (-1,)])
    def test_invalid_nce_layers_are_refused(self, layers: Sequence[int]) -> None:
        with pytest.raises(ValueError, match="from 0 to 5"):
            small_generator().feature_channels(layers)

    def test_small_generator_has_fewer_layers(self) -> None:
        with pytest.raises(ValueError, match="from 0 to 3"):
            SmallStyleGAN2Generator(3, 3, ngf=1, size=64).feature_channels((0, 2, 4))


class TestNoise:
    IMAGE = random_image(2, 3, 16, 16)

    def output(self, generator: StyleGAN2Generator, seed: int) -> Tensor:
        generator.set_rng(torch.Generator().manual_seed(seed))
        return generator(self.IMAGE).detach()

    def test_follows_from_the_seed_in_training_and_in_test(self) -> None:
        generator = small_generator()
        training = self.output(generator, seed=1)
        assert torch.equal(self.output(generator.eval(), seed=1), training)
        assert not torch.equal(self.output(generator, seed=2), training)

    def test_leaves_global_random_numbers_alone(self) -> None:
        generator = small_generator()
        state = torch.get_rng_state()
        self.output(generator, seed=1)
        assert torch.equal(torch.get_rng_state(), state)

    def test_is_one_sample_per_image_and_position_times_the_strength(self) -> None:
        layer = randomized(StyledUpsample(2, 3, NoiseSource()))
        features = random_image(2, 2, 4, 4)
        sample = torch.ones(2, 1, 8, 8, dtype=torch.float64)
        sample[1] = -0.5
        layer.source.sample = lambda _: sample
        noisy = layer(features)
        layer.source = None
        clean = layer(features)
        # Compare before the leaky ReLU; its inverse is another leaky ReLU.
        added = (F.leaky_relu(noisy, 5) - F.leaky_relu(clean, 5)) / 2**0.5
        torch.testing.assert_close(added, (layer.noise.weight * sample).expand(-1, 3, -1, -1))

    def test_is_not_injected_by_the_small_generator(self) -> None:
        generator = randomized(SmallStyleGAN2Generator(3, 3, ngf=1, size=64))
        assert not generator.injects_noise
        assert torch.equal(self.output(generator, seed=1), self.output(generator, seed=2))

    def test_has_the_shape_and_precision_of_the_features(self) -> None:
        source = NoiseSource()
        source.rng = torch.Generator().manual_seed(0)
        noise = source.sample(torch.zeros(4, 7, 64, 64, dtype=torch.float64))
        assert noise.shape == (4, 1, 64, 64)
        assert noise.dtype == torch.float64
        assert noise.std().item() == pytest.approx(1, abs=0.05)


class TestDiscriminator:
    def test_penalty_on_its_gradient_can_be_minimized(self) -> None:
        """R1: the derivative of |dD/dx|^2 with respect to the weights, against finite differences in a random direction."""
        discriminator = randomized(StyleGAN2Discriminator(1, ndf=1, size=8))
        parameters = list(discriminator.parameters())

        def penalty() -> Tensor:
            image = random_image(2, 1, 8, 8).requires_grad_()
            (gradient,) = torch.autograd.grad(discriminator(image).sum(), image, create_graph=True)
            return gradient.square().sum()

        directions = [torch.randn_like(parameter) for parameter in parameters]
        gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
        slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)

        def moved(step: float) -> float:
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter += step * direction
            return penalty().item()

        step = 1e-6
        difference = (moved(step) - moved(-2 * step)) / (2 * step)
        assert slope.item() == pytest.approx(difference, rel=1e-5)

    @pytest.mark.parametrize("side", [64, 72, 76])
    def test_returns_one_logit_per_image(self, side: int) -> None:
        discriminator = StyleGAN2Discriminator(3, ndf=1, size=side).double()
        images = random_image(3, 3, side, side)
        logits = discriminator(images)
        assert logits.shape == (3, 1)
        torch.testing.assert_close(discriminator(images[1:2]), logits[1:2])

    def test_refuses_sizes_that_cannot_be_reduced_to_four(self) -> None:
        with pytest.raises(ValueError, match="64 to 79 pixels, got 48x48"):
            StyleGAN2Discriminator(3, ndf=1, size=48)
        with pytest.raises(ValueError, match="32 to 39 pixels, got 64x32"):
            StyleGAN2Discriminator(3, ndf=1, size=32)(torch.zeros(1, 3, 32, 64))

    def test_patches_are_independent(self) -> None:
        discriminator = randomized(TiledStyleGAN2Discriminator(3, ndf=1, patch_size=16))
        image = random_image(2, 3, 40, 32)
        logits = discriminator(image)
        assert logits.shape == (2 * 2 * 2, 1)
        image[:, :, 16:32, 16:] = 0  # the last patch of each image
        image[:, :, 32:] = 9  # the remainder
        changed = (discriminator(image) != logits).flatten().tolist()
        assert changed == [False, False, False, True] * 2
        with pytest.raises(ValueError, match="smaller than one patch"):
            discriminator(random_image(1, 3, 12, 32))
