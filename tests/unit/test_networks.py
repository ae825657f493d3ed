"""The parts that networks are made of, and which taps and sizes they take."""

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_model, train
from torch import Tensor, nn

from models.networks import DISCRIMINATORS, GENERATORS, DiscriminatorConfig, GeneratorConfig
from models.networks.layers import (
    INIT_FUNCTIONS,
    NORMS,
    Downsample,
    InstanceNorm,
    Upsample,
    init_weights,
    is_batch_dependent,
)
from models.networks.patch_sampler import PatchSampler, ReshapeF, normalize, sample_patch_ids
from models.networks.patchgan import PatchDiscriminator, PatchGAN, to_patches
from models.networks.resnet import ResnetGenerator
from util.errors import UserError

GENERATOR = GeneratorConfig(
    input_nc=3,
    output_nc=3,
    ngf=1,
    norm="instance",
    dropout=False,
    antialias=True,
    antialias_up=True,
    size=32,
    n_downsampling=1,
)


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestInstanceNorm:
    def test_is_pytorchs_in_value_and_gradient(self) -> None:
        results = []
        for norm in (InstanceNorm(5), nn.InstanceNorm2d(5)):
            image = (random_tensor(3, 5, 6, 7) * 4 + 2).requires_grad_()
            output = norm(image)
            (gradient,) = torch.autograd.grad((output * random_tensor(3, 5, 6, 7, seed=1)).sum(), image)
            results.append((output, gradient))
        torch.testing.assert_close(*results)

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_gradient_where_it_comes_in_channels_last(self, batch: int, layout: torch.memory_format) -> None:
        """Against finite differences: there PyTorch's own layer is wrong for a single image."""
        norm = InstanceNorm(3)
        weight = random_tensor(batch, 16, 3, seed=1)
        arrived = []

        def function(image: Tensor) -> Tensor:
            output = norm(image.contiguous(memory_format=layout))
            if output.requires_grad:
                output.register_hook(lambda gradient: arrived.append(gradient.stride(1)))
            return (output.permute(0, 2, 3, 1).flatten(1, 2) * weight).sum()

        assert torch.autograd.gradcheck(function, random_tensor(batch, 3, 4, 4).requires_grad_(), check_undefined_grad=False)
        assert set(arrived) == {1}, "the gradient did not come in channels-last strides, so nothing was tried"

    def test_has_no_weights_for_a_checkpoint(self) -> None:
        assert not InstanceNorm(4).state_dict()


class TestMixingOfImages:
    """`is_batch_dependent` decides whether passes may be joined and features used again."""

    @pytest.mark.parametrize("dropout", [False, True])
    @pytest.mark.parametrize("norm", NORMS)
    def test_says_what_a_generator_does(self, norm: str, dropout: bool) -> None:
        torch.manual_seed(0)  # a network this narrow can be born dead
        network = ResnetGenerator(3, 3, ngf=1, blocks=4, norm=norm, dropout=dropout).double()
        init_weights(network, gain=1.0)
        images = random_tensor(2, 3, 16, 16)
        alone, together = network(images[:1]), network(images)[:1]
        assert torch.allclose(alone, together) != is_batch_dependent(network)

    def test_follows_dropout_in_the_unet(self) -> None:
        for dropout in (False, True):
            settings = GeneratorConfig(**{**vars(GENERATOR), "dropout": dropout})
            assert is_batch_dependent(GENERATORS["unet_128"](settings)) == dropout


class TestInitialization:
    @pytest.mark.parametrize("init_type", INIT_FUNCTIONS)
    def test_draws_weights_and_empties_biases(self, init_type: str) -> None:
        network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.Linear(64, 64), nn.ConvTranspose2d(64, 32, 3))
        for parameter in network.parameters():
            nn.init.constant_(parameter, 7.0)
        init_weights(network, init_type, gain=0.1)
        convolution, norm, linear, transposed = network
        expected = {
            "normal": 0.1,
            "xavier": 0.1 * math.sqrt(2 / ((32 + 64) * 9)),
            "kaiming": math.sqrt(2 / (32 * 9)),
            "orthogonal": 0.1 / math.sqrt(32 * 9),
        }
        assert convolution.weight.std().item() == pytest.approx(expected[init_type], rel=0.05)
        assert (norm.weight.mean().item(), norm.weight.std().item()) == pytest.approx((1.0, 0.1), rel=0.3)
        for layer in (linear, transposed):
            assert layer.weight.abs().max() < 1
        for layer in network:
            assert not layer.bias.any()

    def test_is_xavier_with_a_gain_of_a_fiftieth_by_default(self) -> None:
        linear = nn.Linear(500, 500)
        init_weights(linear)
        assert linear.weight.std().item() == pytest.approx(0.02 * math.sqrt(2 / 1000), rel=0.02)


class TestResampling:
    def test_keeps_constants(self) -> None:
        constant = torch.full((1, 2, 7, 6), 3.0)
        torch.testing.assert_close(Downsample(2)(constant), torch.full((1, 2, 4, 3), 3.0))
        torch.testing.assert_close(Upsample(2)(constant), torch.full((1, 2, 14, 12), 3.0))

    def test_leaves_channels_to_themselves(self) -> None:
        image = random_tensor(1, 3, 8, 8)
        for layer in (Downsample(3), Upsample(3)):
            alone = type(layer)(1).double()
            expected = torch.cat([alone(image[:, [channel]]) for channel in range(3)], 1)
            torch.testing.assert_close(layer.double()(image), expected)


class TestPatchSampler:
    def test_positions_are_all_different_and_serve_every_image(self) -> None:
        features = random_tensor(3, 2, 5, 6)
        positions = sample_patch_ids(features, 20, torch.Generator().manual_seed(0))
        assert len(set(positions.tolist())) == 20
        assert set(positions.tolist()) <= set(range(30))
        (patches,) = PatchSampler((2,), project=False).gather([features], [positions])
        for index, position in enumerate(positions.tolist()):
            torch.testing.assert_close(patches[:, :, index], features[:, :, position // 6, position % 6], rtol=0, atol=0)

    @pytest.mark.parametrize("sampler", [PatchSampler((2,), project=False), ReshapeF()], ids=["positions", "grid"])
    def test_mirrored_maps_are_gathered_as_if_turned_back(self, sampler: PatchSampler) -> None:
        features = [random_tensor(2, 3, 5, 6), random_tensor(2, 3, 4, 7)]
        positions = sampler.draw(features, 8, torch.Generator().manual_seed(0))
        upright = sampler.gather(features, positions)
        mirrored = sampler.gather([feature.flip(3) for feature in features], positions, mirrored=True)
        for found, expected in zip(mirrored, upright, strict=True):
            torch.testing.assert_close(found, expected)

    def test_positions_follow_from_the_generator_and_reach_everywhere(self) -> None:
        features = torch.zeros(1, 1, 8, 8)
        draws = torch.Generator().manual_seed(0)
        first, second = sample_patch_ids(features, 8, draws), sample_patch_ids(features, 8, draws)
        assert not torch.equal(first, second)
        assert torch.equal(sample_patch_ids(features, 8, torch.Generator().manual_seed(0)), first)
        seen = torch.cat([sample_patch_ids(features, 8, draws) for _ in range(100)])
        assert set(seen.tolist()) == set(range(64))

    def test_a_map_smaller_than_the_count_is_taken_whole(self) -> None:
        positions = sample_patch_ids(torch.zeros(1, 1, 3, 4), 256, torch.Generator())
        assert sorted(positions.tolist()) == list(range(12))

    def test_vectors_come_image_by_image_from_each_layers_own_head(self) -> None:
        heads = PatchSampler((2, 4), project=True, nc=3).double()
        init_weights(heads, gain=1.0)
        patches = [random_tensor(2, 2, 5), random_tensor(2, 4, 6)]
        for index, vectors in enumerate(heads(patches)):
            mlp, patch = heads.get_submodule(f"mlp_{index}"), patches[index]
            rows = [mlp(patch[image, :, place]) for image in range(2) for place in range(patch.shape[2])]
            expected = torch.stack([row / (row.norm() + 1e-7) for row in rows])
            torch.testing.assert_close(vectors, expected)

    def test_grid_has_the_means_of_sixteen_cells(self) -> None:
        features = random_tensor(2, 3, 8, 12)
        sampler = ReshapeF()
        positions = sampler.draw([features], 256, torch.Generator())
        (cells,) = sampler.gather([features], positions)
        expected = features.unflatten(3, (4, 3)).unflatten(2, (4, 2)).mean((3, 5)).flatten(2)
        torch.testing.assert_close(cells, expected)
        assert not list(sampler.parameters())


class TestNormalize:
    def test_epsilon_is_added_to_the_norm(self) -> None:
        """Which is not what F.normalize does: vectors from fresh heads are short enough to tell."""
        short = torch.tensor([[3e-7, 4e-7]], dtype=torch.float64)
        torch.testing.assert_close(normalize(short), short / 6e-7)
        assert not torch.allclose(normalize(short), F.normalize(short))

    def test_gradient_is_finite_at_zero(self) -> None:
        vectors = torch.zeros(2, 3, requires_grad=True)
        (normalize(vectors) * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
        assert vectors.grad.isfinite().all()

    def test_gradient_elsewhere(self) -> None:
        assert torch.autograd.gradcheck(normalize, random_tensor(3, 4).requires_grad_())


TAPPED = {"resnet_9blocks": 31, "resnet_6blocks": 28, "resnet_4blocks": 26, "stylegan2": 5, "smallstylegan2": 3}


class TestTaps:
    def test_all_generators_but_the_unets_have_them(self) -> None:
        tapped = [name for name, build in GENERATORS.items() if hasattr(build(GENERATOR), "feature_channels")]
        assert tapped == list(TAPPED)

    @pytest.mark.parametrize("name", TAPPED)
    def test_the_last_entry_is_the_last_legal_tap(self, name: str) -> None:
        generator = GENERATORS[name](GENERATOR).double()
        last = TAPPED[name]
        layers = list(range(last + 1))
        features = generator(random_tensor(2, 3, 16, 16), layers, encode_only=True)
        assert [feature.shape[1] for feature in features] == generator.feature_channels(layers)
        with pytest.raises(ValueError, match=f"from 0 to {last}$"):
            generator.feature_channels([0, last + 1])

    @pytest.mark.parametrize("layers", [[], [-1, 4], [4, 4], [8, 4]])
    def test_illegal_lists_are_refused_with_the_legal_ones(self, layers: Sequence[int]) -> None:
        with pytest.raises(ValueError, match=r"strictly increasing numbers from 0 to 31$"):
            GENERATORS["resnet_9blocks"](GENERATOR).feature_channels(layers)

    @pytest.mark.parametrize("antialias", [True, False])
    @pytest.mark.parametrize("norm", NORMS)
    def test_full_pass_and_encoder_give_the_same_at_every_tap(self, norm: str, antialias: bool) -> None:
        """In-place layers overwrite some of them, in either pass the same ones."""
        generator = ResnetGenerator(3, 3, 1, 4, norm, antialias=antialias, antialias_up=antialias).double()
        init_weights(generator, gain=1.0)
        image = random_tensor(1, 3, 16, 16)
        kept = image.clone()
        with torch.no_grad():
            for last in range(1, len(generator.model)):
                taps = (last - 1, last)
                output, features = generator(image, taps)
                torch.testing.assert_close(generator(image, taps, encode_only=True), features, rtol=0, atol=0)
                torch.testing.assert_close(generator(image), output, rtol=0, atol=0)
        assert torch.equal(image, kept)


class TestTiles:
    def test_are_cut_row_by_row_without_the_rest(self) -> None:
        image = torch.arange(2 * 5 * 7.0).view(2, 1, 5, 7)
        tiles = to_patches(image, 2)
        assert tiles.shape == (2 * 2 * 3, 1, 2, 2)
        torch.testing.assert_close(tiles[4, 0], image[0, 0, 2:4, 2:4])
        torch.testing.assert_close(tiles[6, 0], image[1, 0, 0:2, 0:2])

    def test_are_judged_each_on_its_own(self) -> None:
        discriminator = PatchDiscriminator(3, ndf=2).double()
        init_weights(discriminator, gain=1.0)
        image = random_tensor(1, 3, 32, 48)
        scores = discriminator(image)
        image[:, :, 16:, 32:] = 0
        changed = (discriminator(image) != scores).flatten(1).any(1)
        assert changed.tolist() == [False] * 5 + [True]

    def test_image_below_one_tile(self) -> None:
        with pytest.raises(ValueError, match="an image of 32x15 is smaller than one tile of 16x16"):
            PatchDiscriminator(3)(torch.zeros(1, 3, 15, 32))


class TestPatchGAN:
    @pytest.mark.parametrize("antialias", [True, False])
    def test_a_score_sees_seventy_pixels(self, antialias: bool) -> None:
        """By the gradient of one score; the blurs of the antialiased layers widen it."""
        discriminator = PatchGAN(1, ndf=1, norm="none", antialias=antialias).double()
        for parameter in discriminator.parameters():
            nn.init.constant_(parameter, 0.1)
        image = random_tensor(1, 1, 160, 160).abs().requires_grad_()
        scores = discriminator(image)
        (gradient,) = torch.autograd.grad(scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2], image)
        assert gradient[0, 0].any(0).sum() == (84 if antialias else 70)

    def test_layers_and_widths(self) -> None:
        settings = DiscriminatorConfig(input_nc=3, ndf=2, n_layers=5, norm="batch", antialias=False, size=64, tile=16)
        for name, widths in {"basic": [2, 4, 8, 16, 1], "n_layers": [2, 4, 8, 16, 16, 16, 1]}.items():
            layers = DISCRIMINATORS[name](settings).modules()
            assert [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)] == widths


class TestSizes:
    """Networks that cannot take the training images are refused when they are built."""

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ("--netD patch --crop_size 12 --netG resnet_4blocks", "12x12 is smaller than one tile of 16x16"),
            ("--netD stylegan2 --load_size 48 --crop_size 48", "64 to 79 pixels, not 48x48"),
            ("--netD tilestylegan2", "32x32 is smaller than one tile of 64x64"),
            ("--netD tilestylegan2 --D_patch_size 24", "32 to 39 pixels, not 24x24"),
            ("--netD basic --crop_size 8 --netG resnet_4blocks", "images of 8x8 pixels"),
            ("--model cycle_gan --netD patch --crop_size 12 --netG resnet_4blocks", "12x12 is smaller than one tile"),
            ("--model cycle_gan --netG unet_256", "multiples of 256 pixels, not 32x32"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, command: str, reason: str) -> None:
        flag, network = command.removeprefix("--model cycle_gan ").split()[:2]
        with pytest.raises(UserError, match=rf"^{flag} {network} does not go with .*{reason}"):
            tiny_model(command)

    @pytest.mark.parametrize("name", ["stylegan2", "tilestylegan2"])
    def test_are_those_of_images_that_are_scaled_but_not_cropped(self, name: str) -> None:
        train(tiny_model(f"--netG resnet_4blocks --netD {name} --D_patch_size 16 --preprocess resize --crop_size 256"))
