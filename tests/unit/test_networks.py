"""The layers of networks, the feature heads, and the layers and image sizes that networks accept."""

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_model, train
from torch import Tensor, nn

from models.networks import DISCRIMINATORS, GENERATORS, DiscriminatorConfig, GeneratorConfig
from models.networks.base import is_batch_dependent
from models.networks.layers import INIT_FUNCTIONS, NORMS, InstanceNorm, init_weights
from models.networks.patch_sampler import PatchSampler, ReshapeF, normalize, sample_patch_ids
from models.networks.patchgan import PatchDiscriminator, PatchGAN, to_patches
from models.networks.resampling import Downsample, Upsample
from models.networks.resnet import ResnetGenerator
from models.networks.stylegan2 import NoiseInjection
from models.networks.stylegan2_layers import EqualizedConv2d
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
    def test_equals_pytorch_in_value_and_gradient(self) -> None:
        results = []
        for norm in (InstanceNorm(5), nn.InstanceNorm2d(5)):
            image = (random_tensor(3, 5, 6, 7) * 4 + 2).requires_grad_()
            output = norm(image)
            (gradient,) = torch.autograd.grad((output * random_tensor(3, 5, 6, 7, seed=1)).sum(), image)
            results.append((output, gradient))
        torch.testing.assert_close(*results)

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_gradient_that_arrives_in_channels_last(self, batch: int, layout: torch.memory_format) -> None:
        """Compare with finite differences: `nn.InstanceNorm2d` is wrong here for a single image."""
        norm = InstanceNorm(3)
        weight = random_tensor(batch, 16, 3, seed=1)
        arrived = []

        def function(image: Tensor) -> Tensor:
            output = norm(image.contiguous(memory_format=layout))
            if output.requires_grad:
                output.register_hook(lambda gradient: arrived.append(gradient.stride(1)))
            return (output.permute(0, 2, 3, 1).flatten(1, 2) * weight).sum()

        assert torch.autograd.gradcheck(function, random_tensor(batch, 3, 4, 4).requires_grad_(), check_undefined_grad=False)
        assert set(arrived) == {1}, "the gradient did not arrive in channels-last strides, so the test has no effect"

    def test_has_no_state(self) -> None:
        assert not InstanceNorm(4).state_dict()


class TestBatchDependence:
    """`is_batch_dependent` decides if batches can share a pass and if features can be reused."""

    @pytest.mark.parametrize("dropout", [False, True])
    @pytest.mark.parametrize("norm", NORMS)
    def test_matches_the_generator(self, norm: str, dropout: bool) -> None:
        torch.manual_seed(0)  # some initializations of such a small network have only dead ReLUs
        network = ResnetGenerator(3, 3, ngf=1, n_blocks=4, norm=norm, dropout=dropout).double()
        init_weights(network, gain=1.0)
        images = random_tensor(2, 3, 16, 16)
        alone, together = network(images[:1]), network(images)[:1]
        assert torch.allclose(alone, together) != is_batch_dependent(network)

    def test_depends_on_dropout_in_the_unet(self) -> None:
        for dropout in (False, True):
            settings = GeneratorConfig(**{**vars(GENERATOR), "dropout": dropout})
            assert is_batch_dependent(GENERATORS["unet_128"](settings)) == dropout


class TestInitialization:
    @pytest.mark.parametrize("init_type", INIT_FUNCTIONS)
    def test_initializes_weights_and_zeroes_biases(self, init_type: str) -> None:
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

    def test_default_is_xavier_with_gain_0_02(self) -> None:
        linear = nn.Linear(500, 500)
        init_weights(linear)
        assert linear.weight.std().item() == pytest.approx(0.02 * math.sqrt(2 / 1000), rel=0.02)


class TestResampling:
    def test_preserves_constants(self) -> None:
        constant = torch.full((1, 2, 7, 6), 3.0)
        torch.testing.assert_close(Downsample(2)(constant), torch.full((1, 2, 4, 3), 3.0))
        torch.testing.assert_close(Upsample(2)(constant), torch.full((1, 2, 14, 12), 3.0))

    def test_channels_are_independent(self) -> None:
        image = random_tensor(1, 3, 8, 8)
        for layer in (Downsample(3), Upsample(3)):
            alone = type(layer)(1).double()
            expected = torch.cat([alone(image[:, [channel]]) for channel in range(3)], 1)
            torch.testing.assert_close(layer.double()(image), expected)


class TestPatchSampler:
    def test_patch_ids_are_distinct_and_shared_by_all_images(self) -> None:
        features = random_tensor(3, 2, 5, 6)
        patch_ids = sample_patch_ids(features, 20, torch.Generator().manual_seed(0))
        assert len(set(patch_ids.tolist())) == 20
        assert set(patch_ids.tolist()) <= set(range(30))
        (patches,) = PatchSampler((2,), use_mlp=False).gather([features], [patch_ids])
        for index, position in enumerate(patch_ids.tolist()):
            torch.testing.assert_close(patches[:, :, index], features[:, :, position // 6, position % 6], rtol=0, atol=0)

    @pytest.mark.parametrize("sampler", [PatchSampler((2,), use_mlp=False), ReshapeF()], ids=["patch_ids", "grid"])
    def test_patches_of_flipped_maps_equal_those_of_unflipped_maps(self, sampler: PatchSampler) -> None:
        features = [random_tensor(2, 3, 5, 6), random_tensor(2, 3, 4, 7)]
        patch_ids = sampler.sample_ids(features, 8, torch.Generator().manual_seed(0))
        upright = sampler.gather(features, patch_ids)
        mirrored = sampler.gather([feature.flip(3) for feature in features], patch_ids, mirrored=True)
        for found, expected in zip(mirrored, upright, strict=True):
            torch.testing.assert_close(found, expected)

    def test_patch_ids_depend_on_the_rng_and_cover_the_map(self) -> None:
        features = torch.zeros(1, 1, 8, 8)
        rng = torch.Generator().manual_seed(0)
        first, second = sample_patch_ids(features, 8, rng), sample_patch_ids(features, 8, rng)
        assert not torch.equal(first, second)
        assert torch.equal(sample_patch_ids(features, 8, torch.Generator().manual_seed(0)), first)
        seen = torch.cat([sample_patch_ids(features, 8, rng) for _ in range(100)])
        assert set(seen.tolist()) == set(range(64))

    def test_a_map_smaller_than_num_patches_is_used_completely(self) -> None:
        patch_ids = sample_patch_ids(torch.zeros(1, 1, 3, 4), 256, torch.Generator())
        assert sorted(patch_ids.tolist()) == list(range(12))

    def test_vectors_are_ordered_by_image_and_use_the_mlp_of_their_layer(self) -> None:
        heads = PatchSampler((2, 4), use_mlp=True, nc=3).double()
        init_weights(heads, gain=1.0)
        patches = [random_tensor(2, 2, 5), random_tensor(2, 4, 6)]
        for index, vectors in enumerate(heads(patches)):
            mlp, patch = heads.get_submodule(f"mlp_{index}"), patches[index]
            rows = [mlp(patch[image, :, place]) for image in range(2) for place in range(patch.shape[2])]
            expected = torch.stack([row / (row.norm() + 1e-7) for row in rows])
            torch.testing.assert_close(vectors, expected)

    def test_grid_contains_the_means_of_sixteen_cells(self) -> None:
        features = random_tensor(2, 3, 8, 12)
        sampler = ReshapeF()
        patch_ids = sampler.sample_ids([features], 256, torch.Generator())
        (cells,) = sampler.gather([features], patch_ids)
        expected = features.unflatten(3, (4, 3)).unflatten(2, (4, 2)).mean((3, 5)).flatten(2)
        torch.testing.assert_close(cells, expected)
        assert not list(sampler.parameters())


class TestNormalize:
    def test_epsilon_is_added_to_the_norm(self) -> None:
        """Unlike in `F.normalize`: the vectors of freshly initialized heads are short enough to show it."""
        short = torch.tensor([[3e-7, 4e-7]], dtype=torch.float64)
        torch.testing.assert_close(normalize(short), short / 6e-7)
        assert not torch.allclose(normalize(short), F.normalize(short))

    def test_gradient_is_finite_at_zero(self) -> None:
        vectors = torch.zeros(2, 3, requires_grad=True)
        (normalize(vectors) * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
        assert vectors.grad.isfinite().all()

    def test_gradient_elsewhere(self) -> None:
        assert torch.autograd.gradcheck(normalize, random_tensor(3, 4).requires_grad_())


NUM_LAYERS = {"resnet_9blocks": 31, "resnet_6blocks": 28, "resnet_4blocks": 26, "stylegan2": 5, "smallstylegan2": 3}


class TestGeneratorContract:
    @pytest.mark.parametrize("name", GENERATORS)
    def test_attributes_describe_the_network(self, name: str) -> None:
        """The attributes replace tests of the class, so every entry of the registry must have true ones."""
        spec = GENERATORS[name]
        generator = spec(GENERATOR).eval()
        assert type(generator) is spec.network
        assert generator.min_size % generator.size_multiple == 0
        image = torch.rand(1, 3, generator.min_size, generator.min_size + generator.size_multiple)
        with torch.no_grad():
            assert generator(image).shape == image.shape
            for layer in generator.modules():
                if isinstance(layer, NoiseInjection):
                    nn.init.ones_(layer.weight)
            generator.set_rng(torch.Generator().manual_seed(0))
            assert torch.equal(generator(image), generator(image)) != generator.injects_noise

    @pytest.mark.parametrize("name", GENERATORS)
    def test_gradient_checkpointing_recomputes_only_if_supported(self, name: str) -> None:
        generator = GENERATORS[name](GENERATOR)
        generator.gradient_checkpointing = True
        calls = []
        for layer in generator.modules():
            if isinstance(layer, (nn.Conv2d, EqualizedConv2d)):
                layer.register_forward_pre_hook(lambda *_: calls.append(1))
        output = generator(torch.zeros(1, 3, generator.min_size, generator.min_size).requires_grad_())
        before = len(calls)
        output.sum().backward()
        assert (len(calls) > before) == generator.supports_gradient_checkpointing


class TestNCELayers:
    @pytest.mark.parametrize("name", [*NUM_LAYERS, "unet_128", "unet_256"])
    def test_all_published_generators_except_unets_have_them(self, name: str) -> None:
        assert (GENERATORS[name].network.default_nce_layers is not None) == (name in NUM_LAYERS)

    @pytest.mark.parametrize("name", NUM_LAYERS)
    def test_the_last_layer_is_valid(self, name: str) -> None:
        generator = GENERATORS[name](GENERATOR).double()
        last = NUM_LAYERS[name]
        layers = list(range(last + 1))
        features = generator(random_tensor(2, 3, 16, 16), layers, encode_only=True)
        assert [feature.shape[1] for feature in features] == generator.feature_channels(layers)
        with pytest.raises(ValueError, match=f"from 0 to {last}$"):
            generator.feature_channels([0, last + 1])

    def test_default_layers_are_valid(self) -> None:
        for spec in GENERATORS.values():
            if layers := spec.network.default_nce_layers:
                spec(GENERATOR).feature_channels([int(layer) for layer in layers.split(",")])

    @pytest.mark.parametrize("layers", [[], [-1, 4], [4, 4], [8, 4]])
    def test_invalid_lists_are_refused(self, layers: Sequence[int]) -> None:
        with pytest.raises(ValueError, match=r"strictly increasing indices from 0 to 31$"):
            GENERATORS["resnet_9blocks"](GENERATOR).feature_channels(layers)

    @pytest.mark.parametrize("antialias", [True, False])
    @pytest.mark.parametrize("norm", NORMS)
    def test_full_pass_and_encoder_pass_return_equal_features(self, norm: str, antialias: bool) -> None:
        """In-place layers overwrite some feature maps, the same ones in both passes."""
        generator = ResnetGenerator(3, 3, 1, 4, norm, antialias=antialias, antialias_up=antialias).double()
        init_weights(generator, gain=1.0)
        image = random_tensor(1, 3, 16, 16)
        original = image.clone()
        with torch.no_grad():
            for last in range(1, len(generator.model)):
                layers = (last - 1, last)
                output, features = generator(image, layers)
                torch.testing.assert_close(generator(image, layers, encode_only=True), features, rtol=0, atol=0)
                torch.testing.assert_close(generator(image), output, rtol=0, atol=0)
        assert torch.equal(image, original)


class TestPatchDiscriminator:
    def test_patches_are_ordered_by_row_without_the_remainder(self) -> None:
        image = torch.arange(2 * 5 * 7.0).view(2, 1, 5, 7)
        patches = to_patches(image, 2)
        assert patches.shape == (2 * 2 * 3, 1, 2, 2)
        torch.testing.assert_close(patches[4, 0], image[0, 0, 2:4, 2:4])
        torch.testing.assert_close(patches[6, 0], image[1, 0, 0:2, 0:2])

    def test_patches_are_independent(self) -> None:
        discriminator = PatchDiscriminator(3, ndf=2).double()
        init_weights(discriminator, gain=1.0)
        image = random_tensor(1, 3, 32, 48)
        logits = discriminator(image)
        image[:, :, 16:, 32:] = 0
        changed = (discriminator(image) != logits).flatten(1).any(1)
        assert changed.tolist() == [False] * 5 + [True]

    def test_image_smaller_than_one_patch(self) -> None:
        with pytest.raises(ValueError, match="an image of 32x15 pixels is smaller than one patch of 16x16"):
            PatchDiscriminator(3)(torch.zeros(1, 3, 15, 32))


class TestPatchGAN:
    @pytest.mark.parametrize("antialias", [True, False])
    def test_receptive_field_is_seventy_pixels(self, antialias: bool) -> None:
        """Measure it by the gradient of one logit. The blurs of anti-aliased layers increase it."""
        discriminator = PatchGAN(1, ndf=1, norm="none", antialias=antialias).double()
        for parameter in discriminator.parameters():
            nn.init.constant_(parameter, 0.1)
        image = random_tensor(1, 1, 160, 160).abs().requires_grad_()
        logits = discriminator(image)
        (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], image)
        assert gradient[0, 0].any(0).sum() == (84 if antialias else 70)

    def test_layers_and_channels(self) -> None:
        settings = DiscriminatorConfig(input_nc=3, ndf=2, n_layers=5, norm="batch", antialias=False, size=64, patch_size=16)
        for name, channels in {"basic": [2, 4, 8, 16, 1], "n_layers": [2, 4, 8, 16, 16, 16, 1]}.items():
            layers = DISCRIMINATORS[name](settings).modules()
            assert [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)] == channels


class TestImageSizes:
    """A network that cannot process the training images is refused at construction."""

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ("--netD patch --crop_size 12 --netG resnet_4blocks", "12x12 pixels is smaller than one patch of 16x16"),
            ("--netD stylegan2 --load_size 48 --crop_size 48", "64 to 79 pixels, got 48x48"),
            ("--netD tilestylegan2", "32x32 pixels is smaller than one patch of 64x64"),
            ("--netD tilestylegan2 --D_patch_size 24", "32 to 39 pixels, got 24x24"),
            ("--netD basic --crop_size 8 --netG resnet_4blocks", "images of 8x8 pixels"),
            (
                "--model cycle_gan --netD patch --crop_size 12 --netG resnet_4blocks",
                "12x12 pixels is smaller than one patch",
            ),
            ("--model cycle_gan --netG unet_256", "multiples of 256 pixels, got 32x32"),
        ],
    )
    def test_incompatible_sizes_are_refused(self, command: str, reason: str) -> None:
        flag, network = command.removeprefix("--model cycle_gan ").split()[:2]
        with pytest.raises(UserError, match=rf"^{flag} {network}: incompatible with .*{reason}"):
            tiny_model(command)

    @pytest.mark.parametrize("name", ["stylegan2", "tilestylegan2"])
    def test_of_images_that_are_resized_but_not_cropped(self, name: str) -> None:
        train(tiny_model(f"--netG resnet_4blocks --netD {name} --D_patch_size 16 --preprocess resize --crop_size 256"))
