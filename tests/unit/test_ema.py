"""Moving averages of weights: PyTorch's own give the same, bit for bit."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.networks import GENERATORS, GeneratorConfig
from util.runtime.ema import ModelEMA


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))


def step(trained: nn.Module, seed: int) -> None:
    """Change every weight and, by a forward pass, the running statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    trained(torch.randn(2, 3, 8, 8, generator=generator))


def test_averages_are_pytorchs() -> None:
    trained = network()
    own, theirs = ModelEMA({"G": trained}, 0.9), AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for seed in range(5):
        step(trained, seed)
        own.update()
        theirs.update_parameters(trained)
        expected = theirs.module.state_dict()
        assert own.networks["G_ema"].state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in own.networks["G_ema"].state_dict().items())


def test_averages_go_on_where_they_stopped() -> None:
    trained = network()
    whole, first = (ModelEMA({"G": trained}, 0.9) for _ in range(2))
    for seed in range(3):
        step(trained, seed)
        whole.update()
        first.update()
    other = network()
    second = ModelEMA({"G": other}, 0.9)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(trained.state_dict())
    step(trained, 3)
    step(other, 3)
    whole.update()
    second.update()
    expected = whole.networks["G_ema"].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.networks["G_ema"].state_dict().items())


@pytest.mark.parametrize("name", ["resnet_4blocks", "stylegan2"])
def test_an_average_is_apart_from_its_network(name: str) -> None:
    """Its weights need no gradient and share no memory, also where a network holds a source of noise."""
    trained = GENERATORS[name](GeneratorConfig(3, 3, 2, "instance", False, True, True, size=32, n_downsampling=1))
    average = ModelEMA({"G": trained}, 0.9).networks["G_ema"]
    assert not any(parameter.requires_grad for parameter in average.parameters())
    memory = {parameter.data_ptr() for parameter in trained.parameters()}
    assert not memory & {parameter.data_ptr() for parameter in average.parameters()}
    assert average(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)
