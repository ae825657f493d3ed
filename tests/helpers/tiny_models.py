"""Models with some thousand weights, random batches for them, and comparisons of their training steps."""

from collections import Counter
from pathlib import Path

import torch
from golden_cases import assert_close, assert_gradients
from torch import Tensor, nn

from models import create_model
from models.base_model import BaseModel
from options import TestOptions, TrainOptions
from util.runtime.checkpoint import Checkpointer

TINY = "--gpu_ids -1 --ngf 2 --ndf 2 --load_size 32 --crop_size 32"
TINY_HEADS = "--netF_nc 4 --num_patches 8"

# Commands for `tiny_model`: each method, with networks that suit it.
CUT = "--netG resnet_4blocks --init_gain 0.5"
CYCLE_GAN = f"--model cycle_gan {CUT}"
# Crops of 64 pixels, in which one patch's window is less than the whole.
SINCUT = "--model sincut --ngf 1 --ndf 1 --load_size 64 --crop_size 64 --num_patches 1"


def tiny_model(command: str = "", **options: object) -> BaseModel:
    """Return a training model on the CPU with some thousand weights; `command` and `options` are its options."""
    arguments = [*TINY.split(), *command.split(), *as_arguments(options)]
    has_heads = "--netF_nc" in TrainOptions().parser(arguments)._option_string_actions
    return create_model(TrainOptions().parse([*(TINY_HEADS.split() if has_heads else []), *arguments]))


def double_model(command: str, **options: object) -> BaseModel:
    """Return a `tiny_model` in float64."""
    model = tiny_model(command, **options)
    for network in model.networks.values():
        network.double()
    return model


def translating_model(command: str, **options: object) -> BaseModel:
    """Return a `tiny_model` for testing."""
    return create_model(TestOptions().parse([*TINY.split(), *command.split(), *as_arguments(options)]))


def checkpointer(model: BaseModel) -> Checkpointer:
    """Return a checkpointer of the model alone, without the position of a run."""
    return Checkpointer(Path(model.opt.checkpoints_dir) / model.opt.name, model=model, keep=model.opt.keep_checkpoints)


def as_arguments(options: dict[str, object]) -> list[str]:
    return [str(text) for name, value in options.items() for text in (f"--{name}", value)]


def random_batch(model: BaseModel, size: int = 2, seed: int = 0) -> dict:
    """Return a batch of noise as the loader does, with the dtype of the model's weights."""
    opt = model.opt
    side = min(opt.load_size, opt.crop_size)
    dtype = next(next(iter(model.networks.values())).parameters()).dtype
    rng = torch.Generator().manual_seed(seed)

    def images(channels: int) -> Tensor:
        return torch.rand(size, channels, side, side, generator=rng, dtype=dtype) * 2 - 1

    paths = [f"{index}.png" for index in range(size)]
    return {"A": images(opt.input_nc), "B": images(opt.output_nc), "A_paths": paths, "B_paths": paths}


def take_step(model: BaseModel, size: int = 1, seed: int = 0) -> None:
    """Take a training step on noise."""
    model.set_input(random_batch(model, size, seed))
    model.optimize_parameters()


def train(model: BaseModel, steps: int = 2, batch_size: int = 2) -> dict[str, float]:
    """Take training steps on noise and return the losses of the last one."""
    for step in range(steps):
        take_step(model, batch_size, seed=step)
    return model.get_current_losses()


def all_weights(network: nn.Module) -> Tensor:
    """Return the state dict of a network as one vector, empty if it has no state."""
    return torch.cat([torch.zeros(0), *(value.flatten() for value in network.state_dict().values())])


def everything(model: BaseModel) -> Tensor:
    """Return the weights of all networks as one vector."""
    return torch.cat([all_weights(network) for network in model.networks.values()])


def count_passes(model: BaseModel) -> Counter:
    """Count the forward passes of every network from now on."""
    passes: Counter = Counter()
    for name, network in model.networks.items():
        network.register_forward_pre_hook(lambda *_, name=name: passes.update([name]))
    return passes


def assert_same(found: BaseModel, expected: BaseModel) -> None:
    """Check that the last steps of two models had equal losses and gradients."""
    for name in expected.loss_names:
        assert_close(name, found.losses[name], expected.losses[name])
    for name, network in expected.networks.items():
        gradients = {key: torch.zeros(0) if p.grad is None else p.grad for key, p in network.named_parameters()}
        assert_gradients(name, dict(found.networks[name].named_parameters()), gradients)


def assert_same_step(first: BaseModel, second: BaseModel) -> None:
    """Take one step of each model on the same batch, and check that losses and gradients are equal."""
    for model in (first, second):
        train(model, steps=1)
    assert_same(first, second)
