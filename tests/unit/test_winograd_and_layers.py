"""Optimized layers equal the plain PyTorch layers in values and gradients, in float64."""

import pytest
import torch
import torch.nn.functional as F
from conftest import OWN_GOLDEN
from golden_cases import Case, check_training_steps, find_cases
from torch import Tensor, nn

from models.networks import winograd
from models.networks.layers import InstanceNorm, fused_layers
from models.networks.padding import ReflectionPad
from models.networks.resampling import Downsample, Upsample
from models.networks.resnet import ResnetGenerator
from models.networks.winograd import CHUNK_TILES, Conv3x3

STEPS = [case for case in find_cases([OWN_GOLDEN]) if case.info["kind"] == "training_steps"]


@pytest.fixture
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use Winograd's algorithm for small layers too."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "MIN_TILES", 1)


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(actual: nn.Module, plain: nn.Module, image: Tensor) -> None:
    """Compare outputs and the gradients of input and parameters, for a random gradient of the output."""
    outcomes = []
    for layer in (actual, plain):
        given = image.clone().requires_grad_()
        result = layer(given)
        weight = random_tensor(*result.shape, seed=1)
        parameters = list(layer.parameters())
        outcomes.append([result, *torch.autograd.grad((result * weight).sum(), [given, *parameters])])
    for found, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("at_any_size")
@pytest.mark.parametrize("shape", [(1, 3, 10, 10), (2, 5, 18, 6), (1, 2, 4 * CHUNK_TILES + 6, 14)])
@pytest.mark.parametrize(("bias", "padding"), [(True, 0), (False, 0), (True, 1)])
def test_winograd_equals_the_convolution(shape: tuple[int, ...], bias: bool, padding: int) -> None:
    shape = (*shape[:2], *(side - 2 * padding for side in shape[2:]))
    fast = Conv3x3(shape[1], 4, bias=bias, padding=padding).double()
    plain = nn.Conv2d(shape[1], 4, 3, padding=padding, bias=bias).double()
    plain.load_state_dict(fast.state_dict())
    assert_same(fast, plain, random_tensor(*shape))


@pytest.mark.usefixtures("at_any_size")
def test_winograd_is_used_if_possible() -> None:
    layer = Conv3x3(2, 2, bias=False)
    name = "_WinogradConvolutionBackward"
    assert type(layer(torch.zeros(1, 2, 10, 10, requires_grad=True)).grad_fn).__name__ == name
    assert type(layer(torch.zeros(1, 2, 11, 10, requires_grad=True)).grad_fn).__name__ != name, "no whole tiles"
    with torch.autocast("cpu"):
        assert type(layer(torch.zeros(1, 2, 10, 10, requires_grad=True)).grad_fn).__name__ != name, "lower precision"
    assert layer(torch.zeros(1, 2, 10, 10)).shape == (1, 2, 8, 8)


def test_winograd_is_used_if_it_is_faster() -> None:
    minimum = winograd.MIN_CHANNELS
    cases = (
        (minimum, minimum, 34, True),
        (minimum - 1, minimum, 34, False),
        (minimum, minimum - 1, 34, False),
        (minimum, minimum, 30, False),
    )
    for channels, outputs, side, expected in cases:
        output = Conv3x3(channels, outputs, bias=False)(torch.zeros(1, channels, side, side, requires_grad=True))
        assert ("Winograd" in type(output.grad_fn).__name__) == expected


@pytest.mark.usefixtures("at_any_size")
@pytest.mark.parametrize("case", STEPS, ids=[case.name for case in STEPS])
def test_winograd_passes_the_golden_training_steps(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    check_training_steps(case, monkeypatch)


@pytest.mark.usefixtures("at_any_size")
def test_winograd_is_accurate_in_float32() -> None:
    image, layer = random_tensor(1, 64, 34, 34), Conv3x3(64, 64, bias=False).double()
    exact = F.conv2d(image, layer.weight)
    rounded = layer.float()(image.float().requires_grad_())
    assert (rounded - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("padding", [1, 3])
def test_reflection_padding(padding: int) -> None:
    assert_same(ReflectionPad(padding), nn.ReflectionPad2d(padding), random_tensor(2, 3, 5, 7))


@pytest.mark.parametrize("layer", [Downsample(3), Upsample(3)])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (2, 5)])
@pytest.mark.parametrize("method", ["forward", "_multiply"])
def test_blurs_for_training_equal_blur_by_convolution(layer: nn.Module, size: tuple[int, int], method: str) -> None:
    class Trained(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return getattr(layer, method)(features)

    class Convolved(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return layer._convolve(features, layer.filt, (1, 1))

    layer.double()
    assert_same(Trained(), Convolved(), random_tensor(2, 3, *size))
    assert torch.autograd.gradgradcheck(Trained(), random_tensor(1, 3, *size).requires_grad_())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fused_norm_and_relu_equal_norm_then_relu(memory_format: torch.memory_format) -> None:
    norm = InstanceNorm(3)

    class Fused(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return norm.fused_relu(image)

    image = random_tensor(2, 3, 6, 5).contiguous(memory_format=memory_format)
    assert_same(Fused(), nn.Sequential(norm, nn.ReLU()), image)


def test_a_norm_in_nce_layers_is_not_fused() -> None:
    layers = ResnetGenerator(3, 3, ngf=2, n_blocks=0).model
    assert [index for index, _ in fused_layers(layers, range(len(layers)))][:3] == [0, 1, 3]
    assert [index for index, _ in fused_layers(layers, range(len(layers)), unfused=(2,))][:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("mean", [0, 20])
def test_norm_and_relu_in_bfloat16_have_the_gradients_of_float32(mean: float) -> None:
    """Also if bfloat16 has no values close to the mean."""
    image = (random_tensor(1, 4, 32, 32) + mean).bfloat16()
    weight = random_tensor(1, 4, 32, 32, seed=1)
    gradients = []
    for given in (image.clone().requires_grad_(), image.double().requires_grad_()):
        (InstanceNorm(4).fused_relu(given) * weight).sum().backward()
        gradients.append(given.grad.double())
    found, exact = gradients
    assert (found - exact).norm() < 0.005 * exact.norm()
