"""The StyleGAN2 layers: optimizations change neither values nor derivatives."""

import pytest
import torch
import torch.nn.functional as F
from stylegan2_parts import random_image, randomized
from torch import Tensor, nn

from models.networks.stylegan2 import StyledUpsample
from models.networks.stylegan2_layers import Blur, ConvLayer, DownsampleSkip, ResBlock


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [1, 2])
def test_blur_is_a_weighted_sum_of_neighbors(padding: int, stride: int) -> None:
    features = random_image(2, 3, 7, 6)
    padded = F.pad(features, [padding] * 4)
    expected = torch.zeros(2, 3, padded.shape[2] - 3, padded.shape[3] - 3, dtype=torch.float64)
    for row, row_weight in enumerate((1, 3, 3, 1)):
        for column, column_weight in enumerate((1, 3, 3, 1)):
            part = padded[:, :, row : row + expected.shape[2], column : column + expected.shape[3]]
            expected += part * (4 * row_weight * column_weight / 64)
    blurred = Blur(padding, stride, gain=4.0).double()(features)
    torch.testing.assert_close(blurred, expected[:, :, ::stride, ::stride])


def test_folded_gains_do_not_change_the_value() -> None:
    layer = randomized(ConvLayer(2, 3, 3, downsample=True))
    blur, convolution, bias = layer
    features = random_image(2, 2, 8, 8)
    response = F.conv2d(blur(features), convolution.weight / (2 * 9) ** 0.5, stride=2) + bias.bias
    expected = 0.7 * 2**0.5 * F.leaky_relu(response, 0.2)
    torch.testing.assert_close(layer(features, gain=0.7), expected)


def test_skip_blurs_before_downsampling() -> None:
    layer = randomized(DownsampleSkip(2, 3))
    features = random_image(2, 2, 8, 8)
    blurred = Blur(padding=1).double()(features)
    expected = F.conv2d(blurred, layer[1].weight / 2**0.5, stride=2) * 0.7
    torch.testing.assert_close(layer(features, gain=0.7), expected)


@pytest.mark.parametrize(
    "layer",
    [
        Blur(padding=2),
        Blur(padding=1, stride=2),
        ConvLayer(2, 2, 3),
        ConvLayer(2, 2, 3, downsample=True),
        DownsampleSkip(2, 2),
        ResBlock(2, 2),
        ResBlock(2, 2, downsample=True),
        StyledUpsample(2, 2, source=None),
    ],
    ids=["blur", "downsampling blur", "conv", "downsampling conv", "skip", "block", "downsampling block", "upsampling"],
)
def test_first_and_second_derivatives(layer: nn.Module) -> None:
    randomized(layer)
    features = random_image(1, 2, 4, 4).requires_grad_()
    tensors = {name: value.detach().requires_grad_() for name, value in layer.named_parameters() if "noise" not in name}

    def function(features: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(tensors, values, strict=True)), (features,))

    inputs = (features, *tensors.values())
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("downsample", [False, True])
def test_block_is_equal_without_gradients_and_does_not_change_its_input(downsample: bool) -> None:
    block = randomized(ResBlock(3, 3, downsample))
    features = random_image(2, 3, 8, 8)
    original = features.clone()
    expected = block(features).detach()
    with torch.no_grad():
        found = block(features)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(features, original, rtol=0, atol=0)
