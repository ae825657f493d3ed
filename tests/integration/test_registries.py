"""Every entry of every registry is built, trained for two steps, saved, loaded and tested.

tests/unit/test_evaluator.py and test_loggers.py do the same for METRICS and LOGGERS.
"""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from image_factory import fill, two_domains
from tiny_models import all_weights, as_arguments, random_batch, tiny_model, train, translating_model
from torch import Tensor, nn

from data import DATASETS, create_dataset
from models import MODELS, create_model
from models.base_model import BaseModel
from models.losses.gan import GAN_LOSSES
from models.lr_schedules import SCHEDULES
from models.networks import DISCRIMINATORS, FEATURE_HEADS, GENERATORS
from models.networks.layers import INIT_FUNCTIONS, NORMS, InstanceNorm
from models.networks.stylegan2 import StyledUpsample
from options import TestOptions, TrainOptions
from options.saved_options import save_options, saved_architecture_args
from util.errors import UserError

REGISTRIES = {
    "--model": MODELS,
    "--netG": GENERATORS,
    "--netD": DISCRIMINATORS,
    "--netF": FEATURE_HEADS,
    "--gan_mode": GAN_LOSSES,
    "--normG": NORMS,
    "--normD": NORMS,
    "--init_type": INIT_FUNCTIONS,
    "--lr_policy": SCHEDULES,
    "--dataset_mode": DATASETS,
}
# Options whose choices are not a registry.
OTHER_CHOICES = {"--best_by", "--direction", "--CUT_mode", "--lpips", "--precision", "--tiff_pages"}

# Command lines of choices that are incompatible with the tiny CUT model of the others.
TRAINED_WITH = {
    "--model test": "--model cut",
    "--netG unet_128": "--netG unet_128 --model cycle_gan --load_size 128 --crop_size 128",
    "--netG unet_256": "--netG unet_256 --model cycle_gan --load_size 256 --crop_size 256 --ngf 1 --ndf 1",
    "--netD tilestylegan2": "--netD tilestylegan2 --D_patch_size 16",
    "--normG none": "--normG none --init_gain 0.5",  # with the default gain, signals vanish in the deep layers
}
# Combinations of methods and networks that the choices alone do not cover.
COMBINATIONS = [
    "--model cut --CUT_mode FastCUT",
    "--model sincut --netG smallstylegan2",
    "--model sincut --netG resnet_4blocks --netD basic",
    *(f"--model cycle_gan --netG {name}" for name in ("resnet_6blocks", "stylegan2", "smallstylegan2")),
    *(f"--model cycle_gan --netD {name}" for name in ("pixel", "patch", "stylegan2")),
    *(f"--model cycle_gan --gan_mode {name}" for name in GAN_LOSSES),
    "--no_antialias --no_antialias_up",
]


def command_lines() -> list[str]:
    choices = [
        f"{flag} {choice}" for flag, registry in REGISTRIES.items() if flag != "--dataset_mode" for choice in registry
    ]
    return [*choices, *COMBINATIONS]


def training_command(command: str) -> str:
    """Return the command line that trains a choice. Generators without encoder features are trained as CycleGAN."""
    spec = GENERATORS.get(command.removeprefix("--netG "))
    needs_other_method = spec is not None and spec.network.default_nce_layers is None
    return TRAINED_WITH.get(command, f"{command} --model cycle_gan" if needs_other_method else command)


@pytest.mark.parametrize("command", command_lines())
def test_every_choice_trains_and_translates(command: str, tmp_path: Path) -> None:
    model = tiny_model(training_command(command), checkpoints_dir=tmp_path, name="run")
    before = {name: weights_of(network) for name, network in model.networks.items()}
    losses = train(model)
    assert list(losses) == list(model.loss_names)
    assert all(map(math.isfinite, losses.values())), losses
    for name, network in model.networks.items():
        after = weights_of(network)
        still = {key for key in after if torch.equal(after[key], before[name][key])}
        assert still <= immovable(network) | unmoved_by_loss(model, name), f"weights of {name} that did not move"
    rate = model.learning_rate
    model.update_learning_rate()
    assert 0 <= model.learning_rate <= rate

    model.save_networks("latest")
    save_options(model.opt, tmp_path / "run")
    tested = saved_run(model, command if command == "--model test" else "")
    for name, network in tested.networks.items():
        assert torch.equal(all_weights(network), all_weights(model.networks[name]))

    image = random_batch(model, 1)["A"].repeat(1, 1, 1, 2)
    tested.set_input({"A": image, "A_paths": ["a.png"]})
    tested.test()
    assert tested.get_current_visuals()["fake_B"].shape == image.shape


@pytest.mark.parametrize("method", [name for name in MODELS if name != "test"])
def test_every_method_obeys_the_options_of_the_discriminator(method: str) -> None:
    """Cutout masks a quarter of what D sees, LeCam follows its logits, and the generator has its own hinge loss."""
    model = tiny_model(f"--model {method} --gan_mode hinge --diffaugment cutout --lambda_lecam 0.1")
    seen: list[Tensor] = []
    fooled: list[Tensor] = []
    discriminators = [name for name in model.networks if name.startswith("D")]
    for name in discriminators:
        model.networks[name].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model.criterionGAN_G = lambda pred, _: fooled.append(pred) or -pred.mean()
    train(model, steps=1)
    assert len(fooled) == len(discriminators)
    assert len(seen) >= 2 * len(discriminators)
    assert all(((images == 0).flatten(1).float().mean(1) > 0.05).all() for images in seen)
    assert all(updated for _, _, updated in model.lecam.averages.values())


def saved_run(model: BaseModel, command: str) -> BaseModel:
    """Load the run that `model` saved, as test.py does."""
    run = as_arguments({"checkpoints_dir": model.opt.checkpoints_dir, "name": model.opt.name})
    own = ["--gpu_ids", "-1", *run, *command.split()]
    saved = saved_architecture_args(TestOptions().parse(own))
    tested = create_model(TestOptions().parse([*saved, *own]))
    tested.load_networks("latest")
    return tested


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def immovable(network: nn.Module) -> set[str]:
    """Return the weights without effect: biases before an instance norm, and strengths of noise that is not injected."""
    names = set()
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Sequential):
            names |= {
                f"{path}.{key}.bias"
                for (key, _), (_, following) in pairwise(layer.named_children())
                if isinstance(following, InstanceNorm)
            }
        if isinstance(layer, StyledUpsample) and layer.source is None:
            names.add(f"{path}.noise.weight")
    return names


def unmoved_by_loss(model: BaseModel, name: str) -> set[str]:
    """Return the last bias of a WGAN critic: the loss does not depend on it. Nor does hinge for logits in (-1, 1)."""
    if model.opt.gan_mode in ("wgangp", "hinge") and name.startswith("D"):
        return {[key for key, _ in model.networks[name].named_parameters()][-1]}
    return set()


@pytest.fixture
def dataroot(tmp_path: Path) -> Path:
    """Create a dataset that every mode can read: one image per domain and phase, and one pair side by side."""
    for phase in ("train", "test"):
        two_domains(tmp_path / "data", phase, n_A=1, n_B=1, size=(48, 48))
        fill(tmp_path / "data" / phase, 1, size=(96, 48))
    return tmp_path / "data"


@pytest.mark.parametrize("mode", DATASETS)
def test_every_dataset_mode_trains_and_translates(mode: str, dataroot: Path) -> None:
    files = f"--dataset_mode {mode} --dataroot {dataroot} --num_threads 0"
    if mode != "single":  # for testing only
        model = tiny_model(f"--netG resnet_4blocks {files}")
        loader = create_dataset(model.opt)
        loader.set_epoch(1)
        model.set_input(next(iter(loader)))
        model.optimize_parameters()
        assert all(map(math.isfinite, model.get_current_losses().values()))

    tested = translating_model(f"--model test --netG resnet_4blocks {files}")
    (batch,) = create_dataset(tested.opt)
    tested.set_input(batch)
    tested.test()
    assert tested.get_current_visuals()["fake_B"].shape == batch["A"].shape


@pytest.mark.parametrize("model", MODELS)
def test_registries_are_the_choices_of_the_command_line(model: str) -> None:
    for options in (TrainOptions(), TestOptions()):
        for action in options.parser(["--model", model])._actions:
            flag = action.option_strings[0]
            if flag == "--lr_policy":  # checked by its type, which explains why plateau is missing
                assert action.metavar == "{" + ",".join(SCHEDULES) + "}"
            elif action.choices and flag not in OTHER_CHOICES:
                assert action.choices == list(REGISTRIES[flag])


class TestFiles:
    def test_are_named_after_label_and_network(self, tmp_path: Path) -> None:
        tiny_model("--netG resnet_4blocks", checkpoints_dir=tmp_path, name="run").save_networks("5")
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["5_net_D.pth", "5_net_F.pth", "5_net_G.pth"]

    def test_weights_of_another_run(self, tmp_path: Path) -> None:
        first, second = (
            tiny_model("--netG resnet_4blocks", checkpoints_dir=tmp_path, name=name, seed=seed)
            for name, seed in (("first", 1), ("second", 2))
        )
        first.save_networks("latest")
        second.load_networks("latest", run="first")
        for name in first.networks:
            assert torch.equal(all_weights(first.networks[name]), all_weights(second.networks[name]))
        with pytest.raises(UserError, match=r"second/latest_net_G\.pth: no such file"):
            second.load_networks("latest")


class TestOneSidedTesting:
    @pytest.mark.parametrize(("trained", "suffix"), [("cut", ""), ("cycle_gan", "_A"), ("cycle_gan", "_B")])
    def test_takes_one_generator_of_any_run(self, trained: str, suffix: str, tmp_path: Path) -> None:
        model = tiny_model(f"--netG resnet_4blocks --model {trained}", checkpoints_dir=tmp_path, name="run")
        model.save_networks("latest")
        command = "--model test --netG resnet_4blocks" + (f" --model_suffix {suffix}" if suffix else "")
        tested = translating_model(command, checkpoints_dir=tmp_path, name="run")
        tested.load_networks("latest")
        image = torch.rand(1, 3, 32, 32)
        tested.set_input({"A": image, "A_paths": ["a.png"]})
        tested.test()
        assert list(tested.get_current_visuals()) == ["real_A", "fake_B"]
        torch.testing.assert_close(tested.get_current_visuals()["fake_B"], model.networks[f"G{suffix}"](image).detach())

    def test_does_not_train(self) -> None:
        with pytest.raises(UserError, match=r"--model test: only for test\.py"):
            tiny_model("--model test --dataset_mode unaligned")

    def test_names_the_image_that_a_network_cannot_take(self) -> None:
        model = translating_model("--model test --netG unet_128")
        model.set_input({"A": torch.rand(1, 3, 100, 128), "A_paths": ["odd.png"]})
        with pytest.raises(UserError, match=r"^odd\.png: .* multiples of 128 pixels, got 128x100\."):
            model.test()
