"""Training diagnostics on real steps of small models: failing and healthy ones."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from util.runtime.monitor import MIN_DURATION, WARMUP_IMAGES, LossScales, TrainingDiagnostics

SIZE = ["--load_size", "32", "--crop_size", "32"]
NETWORKS = ["--gpu_ids", "-1", "--netG", "resnet_4blocks", "--ngf", "4", "--ndf", "4", *SIZE]
PATCHES = ["--netF_nc", "16", "--num_patches", "16", "--nce_layers", "0,4,8"]
IMAGES_PER_CHECK = 400
HEALTHY = {"G_GAN": 0.4, "D_real": 0.2, "D_fake": 0.2, "NCE": 2.0}


def lsgan_diagnostics() -> TrainingDiagnostics:
    return TrainingDiagnostics(LossScales({"G_GAN": ("D_real", "D_fake")}, 1.0, math.log(256)), "lsgan")


def diagnostics_of(model: BaseModel) -> TrainingDiagnostics:
    return TrainingDiagnostics(model.loss_scales, model.opt.gan_mode, model.opt.warm_up_D)


def warnings_of(
    diagnostics: TrainingDiagnostics, steps: Iterable[tuple[Mapping[str, float], Mapping[str, Tensor]]]
) -> list[tuple[int, str]]:
    """Check the losses and visuals of each step, 400 images apart. Return (number of images, warning) pairs."""
    return [
        (number * IMAGES_PER_CHECK, line)
        for number, (losses, visuals) in enumerate(steps)
        for line in diagnostics.check(number * IMAGES_PER_CHECK, losses, visuals)
    ]


def smooth_images() -> Tensor:
    """Return four images of colored gradients and waves, (4, 3, 32, 32)."""
    across, down = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy")
    planes = [across, down, across * down, (3 * across).sin(), (4 * down).cos(), -across]
    return 0.8 * torch.stack([torch.stack([planes[(n + c) % 6] for c in range(3)]) for n in range(4)])


def small_model(*arguments: str) -> BaseModel:
    return create_model(TrainOptions().parse([*NETWORKS, *arguments]))


def steps(model: BaseModel, count: int) -> Iterable[tuple[dict[str, float], dict[str, Tensor]]]:
    """Take steps on the same images, and yield the losses and visuals of each."""
    images = smooth_images()
    for number in range(count):
        batch = {"A": images[number % 2][None], "B": -images[2 + number % 2][None].flip(2)}
        model.set_input(batch | {"A_paths": ["a"], "B_paths": ["b"]})
        model.optimize_parameters()
        yield model.get_current_losses(), model.get_current_visuals()


@pytest.mark.parametrize("model", ["cut", "cycle_gan"])
def test_dominating_discriminator_is_reported_once(model: str) -> None:
    """The generator is frozen, so its discriminator overfits to it."""
    trained = small_model("--model", model, *(PATCHES if model == "cut" else []), "--lr", "0.002")
    trained.optimizers["G"].param_groups[0]["lr"] = 0.0
    lines = warnings_of(diagnostics_of(trained), steps(trained, 40))
    found = [(images, line) for images, line in lines if "the discriminator dominates" in line]
    assert len(found) == (1 if model == "cut" else 2)  # CycleGAN has two discriminators
    assert all(images >= WARMUP_IMAGES + MIN_DURATION for images, _ in found)
    assert ("(D_real 0.0" if model == "cut" else "(D_A 0.0") in found[0][1]


def test_nce_at_chance_level_is_reported_once() -> None:
    """At a very high temperature all logits are equal, so the loss is at chance level."""
    model = small_model(*PATCHES, "--nce_T", "1e6", "--lambda_NCE", "2")
    lines = warnings_of(diagnostics_of(model), steps(model, 26))
    (message,) = [line for _, line in lines if "PatchNCE" in line]
    assert message.startswith("warning: PatchNCE is at chance level (NCE 5.666, chance ")
    assert f"{2 * math.log(16):.3f}" in message


def test_identity_mapping_is_reported_once_also_with_flipped_steps() -> None:
    """A generator that was trained to return its input, in FastCUT's steps."""
    model = small_model(*PATCHES, "--CUT_mode", "FastCUT", "--init_gain", "1", "--ngf", "8")
    images, generator = smooth_images()[:2], model.networks["G"]
    images = torch.cat((images, images.flip(3)))
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.003)
    while (difference := (generator(images) - images).abs().mean((1, 2, 3))).max() > 0.035:
        optimizer.zero_grad()
        difference.mean().backward()
        optimizer.step()
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    flips = []

    def steps_with_flips() -> Iterable[tuple[dict[str, float], dict[str, Tensor]]]:
        for step in steps(model, 26):
            flips.append(model.flipped)
            yield step

    lines = warnings_of(diagnostics_of(model), steps_with_flips())
    assert {True, False} == set(flips)
    (message,) = [line for _, line in lines if "identity" in line]
    assert message.startswith("warning: the outputs equal the inputs (mean difference ")


def test_no_warnings_during_warm_up() -> None:
    failing = {"G_GAN": 1.0, "D_real": 0.0, "D_fake": 0.0, "NCE": math.log(256)}
    equal = {"real_A": torch.zeros(1, 3, 8, 8), "fake_B": torch.zeros(1, 3, 8, 8)}
    diagnostics = lsgan_diagnostics()
    assert warnings_of(diagnostics, [(failing, equal)] * (WARMUP_IMAGES // IMAGES_PER_CHECK + 1)) == []
    assert list(diagnostics.check(WARMUP_IMAGES + MIN_DURATION - 1, failing, equal)) == []


def test_brief_symptom_is_ignored_and_recurring_one_reported_again() -> None:
    lost = HEALTHY | {"G_GAN": 0.99, "D_real": 0.01, "D_fake": 0.0}
    early = [(HEALTHY, {})] * 13
    passing = [(lost, {})] * 4 + [(HEALTHY, {})]
    lasting = [(lost, {})] * 20 + [(HEALTHY, {})] * 8
    assert warnings_of(lsgan_diagnostics(), early + passing * 5) == []
    assert len(warnings_of(lsgan_diagnostics(), early + lasting + lasting)) == 2


def test_a_symptom_needs_several_observations() -> None:
    """With --print_freq 5000, two observations are no trend."""
    lost = HEALTHY | {"G_GAN": 0.99, "D_real": 0.01, "D_fake": 0.0}
    diagnostics = lsgan_diagnostics()
    lines = [list(diagnostics.check(5000 * number, lost, {})) for number in range(1, 8)]
    assert [len(each) for each in lines] == [0, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "warns"),
    [(["--gan_mode", "wgangp"], False), (["--lambda_GAN", "0"], False), (["--gan_mode", "vanilla"], True)],
)
def test_gan_losses_without_a_scale_are_not_checked(arguments: list[str], warns: bool) -> None:
    diagnostics = diagnostics_of(small_model(*PATCHES, *arguments))
    lost = HEALTHY | {"G_GAN": 9.0, "D_real": 0.0, "D_fake": 0.0}
    assert bool(warnings_of(diagnostics, [(lost, {})] * 40)) == warns


def test_no_warnings_for_healthy_steps(tmp_path: Path) -> None:
    """A tiny model that learns gives no warning."""
    model = small_model(*PATCHES, "--init_gain", "1", "--lr", "0.001")
    lines = warnings_of(diagnostics_of(model), steps(model, 40))
    assert lines == []


@pytest.mark.parametrize("missing", ["D_real", "D_fake", "NCE"])
def test_losses_that_a_method_lacks_are_not_checked(missing: str) -> None:
    losses = {name: value for name, value in HEALTHY.items() if name != missing}
    assert warnings_of(lsgan_diagnostics(), [(losses, {})] * 40) == []


@pytest.mark.parametrize(
    ("arguments", "chance"),
    [
        ("--lambda_NCE 3", 3 * math.log(16)),
        ("--nce_includes_all_negatives_from_minibatch --batch_size 4", math.log(64)),
        ("--model cycle_gan", 0),
    ],
)
def test_a_method_states_its_chance_level(arguments: str, chance: float) -> None:
    patches = [] if "cycle_gan" in arguments else PATCHES
    assert small_model(*patches, *arguments.split()).loss_scales.nce_at_chance == pytest.approx(chance)


def test_a_discriminator_that_warms_up_alone_may_dominate() -> None:
    lost = HEALTHY | {"G_GAN": 0.99, "D_real": 0.01, "D_fake": 0.0}
    diagnostics = diagnostics_of(small_model(*PATCHES, "--warm_up_D", "4000"))
    ((images, _),) = warnings_of(diagnostics, [(lost, {})] * 40)
    assert 4000 + WARMUP_IMAGES + MIN_DURATION <= images < 12000
