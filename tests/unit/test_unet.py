"""The U-Net generator: published outputs and gradients, and the effect of its arguments."""

import pytest
import torch
from conftest import OWN_GOLDEN
from golden_cases import Case, assert_outputs_and_gradients
from torch import nn

from models.networks.layers import InstanceNorm
from models.networks.unet import UnetGenerator


def test_published_outputs_and_gradients() -> None:
    case = Case(OWN_GOLDEN / "networks" / "G_unet_128.json", "G_unet_128")
    assert_outputs_and_gradients(case, UnetGenerator(3, 3, ngf=2, num_downs=7).double())


def test_unet_256_has_one_more_downsampling() -> None:
    keys = {num_downs: set(UnetGenerator(3, 3, ngf=1, num_downs=num_downs).state_dict()) for num_downs in (7, 8)}
    innermost = "model.model.1." + "model.3." * 6 + "model.1.weight"
    assert innermost in keys[8] - keys[7]
    assert len(keys[8]) == len(keys[7]) + 4


@pytest.mark.parametrize("num_downs", [7, 8])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_every_norm_and_rectangular_images(norm: str, num_downs: int) -> None:
    network = UnetGenerator(1, 4, ngf=1, num_downs=num_downs, norm=norm)
    side = 2**num_downs
    output = network(torch.randn(1, 1, side, 2 * side))
    assert output.shape == (1, 4, side, 2 * side)
    assert output.abs().max() <= 1


def test_only_convolutions_before_an_instance_norm_have_a_bias() -> None:
    """The last convolution has no norm and always has a bias."""
    for norm in ("batch", "none"):
        network = UnetGenerator(3, 3, ngf=1, num_downs=7, norm=norm)
        convolutions = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
        assert [layer.bias is not None for layer in convolutions].count(True) == 1
        assert network.model.model[3].bias is not None


def test_innermost_features_and_the_first_convolution_are_not_normalized() -> None:
    network = UnetGenerator(3, 3, ngf=1, num_downs=7)
    norms = [layer for layer in network.modules() if isinstance(layer, InstanceNorm)]
    assert len(norms) == 5 + 6  # all but the first and last downsampling, all but the last upsampling


@pytest.mark.parametrize(("num_downs", "count"), [(7, 2), (8, 3)])
def test_dropout_in_the_inner_blocks(num_downs: int, count: int) -> None:
    assert not any(isinstance(layer, nn.Dropout) for layer in UnetGenerator(3, 3, 1, num_downs).modules())
    network = UnetGenerator(3, 3, 1, num_downs, dropout=True)
    assert sum(isinstance(layer, nn.Dropout) for layer in network.modules()) == count
    image = torch.randn(1, 3, 2**num_downs, 2**num_downs)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_sides_that_are_not_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 128 pixels, got 192x128"):
        UnetGenerator(3, 3, ngf=1, num_downs=7)(torch.zeros(1, 3, 128, 192))
