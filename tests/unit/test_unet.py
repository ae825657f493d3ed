"""The U-Net generator: the published numbers, and what its arguments change."""

import pytest
import torch
from conftest import OWN_GOLDEN
from golden_cases import Case, assert_outputs_and_gradients
from torch import nn

from models.networks.layers import InstanceNorm
from models.networks.unet import UnetGenerator


def test_published_outputs_and_gradients() -> None:
    case = Case(OWN_GOLDEN / "networks" / "G_unet_128.json", "G_unet_128")
    assert_outputs_and_gradients(case, UnetGenerator(3, 3, ngf=2, halvings=7).double())


def test_unet_256_is_one_halving_deeper() -> None:
    keys = {halvings: set(UnetGenerator(3, 3, ngf=1, halvings=halvings).state_dict()) for halvings in (7, 8)}
    innermost = "model.model.1." + "model.3." * 6 + "model.1.weight"
    assert innermost in keys[8] - keys[7]
    assert len(keys[8]) == len(keys[7]) + 4


@pytest.mark.parametrize("halvings", [7, 8])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_every_norm_and_rectangular_images(norm: str, halvings: int) -> None:
    network = UnetGenerator(1, 4, ngf=1, halvings=halvings, norm=norm)
    side = 2**halvings
    output = network(torch.randn(1, 1, side, 2 * side))
    assert output.shape == (1, 4, side, 2 * side)
    assert output.abs().max() <= 1


def test_only_convolutions_in_front_of_an_instance_norm_keep_their_bias() -> None:
    """The last one, which nothing normalizes, has its own in any case."""
    for norm in ("batch", "none"):
        network = UnetGenerator(3, 3, ngf=1, halvings=7, norm=norm)
        convolutions = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
        assert [layer.bias is not None for layer in convolutions].count(True) == 1
        assert network.model.model[3].bias is not None


def test_innermost_features_and_the_first_convolution_are_not_normalized() -> None:
    network = UnetGenerator(3, 3, ngf=1, halvings=7)
    norms = [layer for layer in network.modules() if isinstance(layer, InstanceNorm)]
    assert len(norms) == 5 + 6  # downwards all but first and last, upwards all but the last


@pytest.mark.parametrize(("halvings", "count"), [(7, 2), (8, 3)])
def test_dropout_in_the_inner_blocks(halvings: int, count: int) -> None:
    assert not any(isinstance(layer, nn.Dropout) for layer in UnetGenerator(3, 3, 1, halvings).modules())
    network = UnetGenerator(3, 3, 1, halvings, dropout=True)
    assert sum(isinstance(layer, nn.Dropout) for layer in network.modules()) == count
    image = torch.randn(1, 3, 2**halvings, 2**halvings)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_sides_that_cannot_be_halved_so_often_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 128 pixels, not 192x128"):
        UnetGenerator(3, 3, ngf=1, halvings=7)(torch.zeros(1, 3, 128, 192))
