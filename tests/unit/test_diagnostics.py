"""Early warnings: real steps of small models that go wrong, and such as do not."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from train import create_diagnostics
from util.runtime.monitor import MIN_DURATION, WARMUP_IMAGES, TrainingDiagnostics

NETWORKS = [
    "--gpu_ids",
    "-1",
    "--netG",
    "resnet_4blocks",
    "--ngf",
    "4",
    "--ndf",
    "4",
    "--load_size",
    "32",
    "--crop_size",
    "32",
]
PATCHES = ["--netF_nc", "16", "--num_patches", "16", "--nce_layers", "0,4,8"]
IMAGES_PER_LOOK = 400
HEALTHY = {"G_GAN": 0.4, "D_real": 0.2, "D_fake": 0.2, "NCE": 2.0}


def watcher() -> TrainingDiagnostics:
    return TrainingDiagnostics("lsgan", adversarial_weight=1.0, contrast_at_chance=math.log(256))


def told(
    watch: TrainingDiagnostics, looks: Iterable[tuple[Mapping[str, float], Mapping[str, Tensor]]]
) -> list[tuple[int, str]]:
    """The warnings on what is reported every 400 images, with the images that they come after."""
    return [
        (number * IMAGES_PER_LOOK, line)
        for number, look in enumerate(looks)
        for line in watch.look(number * IMAGES_PER_LOOK, *look)
    ]


def smooth_images() -> Tensor:
    """Four images of colored slopes and waves, (4, 3, 32, 32)."""
    across, down = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy")
    planes = [across, down, across * down, (3 * across).sin(), (4 * down).cos(), -across]
    return 0.8 * torch.stack([torch.stack([planes[(n + c) % 6] for c in range(3)]) for n in range(4)])


def model_of(*arguments: str) -> BaseModel:
    return create_model(TrainOptions().parse([*NETWORKS, *arguments]))


def steps(model: BaseModel, count: int) -> Iterable[tuple[dict[str, float], dict[str, Tensor]]]:
    """Real steps on the same images, and what each leaves to report."""
    images = smooth_images()
    for number in range(count):
        batch = {"A": images[number % 2][None], "B": -images[2 + number % 2][None].flip(2)}
        model.set_input(batch | {"A_paths": ["a"], "B_paths": ["b"]})
        model.optimize_parameters()
        yield model.get_current_losses(), model.get_current_visuals()


@pytest.mark.parametrize("model", ["cut", "cycle_gan"])
def test_a_discriminator_that_has_won_is_told_once(model: str) -> None:
    """The generator stands still, so that its discriminator learns it by heart."""
    trained = model_of("--model", model, *(PATCHES if model == "cut" else []), "--lr", "0.002")
    trained.optimizers["G"].param_groups[0]["lr"] = 0.0
    lines = told(create_diagnostics(trained.opt), steps(trained, 40))
    won = [(images, line) for images, line in lines if "the discriminator has won" in line]
    assert len(won) == (1 if model == "cut" else 2)  # CycleGAN has two games
    assert all(images >= WARMUP_IMAGES + MIN_DURATION for images, _ in won)
    assert ("(D_real 0.0" if model == "cut" else "(D_A 0.0") in won[0][1]


def test_a_dead_contrast_is_told_once() -> None:
    """At so high a temperature all patches are alike: the loss is that of a guess."""
    model = model_of(*PATCHES, "--nce_T", "1e6", "--lambda_NCE", "2")
    lines = told(create_diagnostics(model.opt), steps(model, 26))
    assert [line[:40] for _, line in lines if "contrast" in line] == ["warning: the contrast is dead: NCE 5.666"]
    assert f"{2 * math.log(16):.3f}" in lines[0][1]


def test_a_collapse_to_the_identity_is_told_once_also_of_mirrored_steps() -> None:
    """A generator that has been taught to hand its input on, looked at in FastCUT's steps."""
    model = model_of(*PATCHES, "--CUT_mode", "FastCUT", "--init_gain", "1", "--ngf", "8")
    images, generator = smooth_images()[:2], model.networks["G"]
    images = torch.cat((images, images.flip(3)))
    teacher = torch.optim.Adam(generator.parameters(), lr=0.003)
    farthest = 1.0
    while farthest > 0.035:
        apart = (generator(images) - images).abs().mean((1, 2, 3))
        teacher.zero_grad()
        apart.mean().backward()
        teacher.step()
        farthest = float(apart.detach().max())
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    flips = []

    def looks() -> Iterable[tuple[dict[str, float], dict[str, Tensor]]]:
        for look in steps(model, 26):
            flips.append(model.flipped)
            yield look

    lines = told(create_diagnostics(model.opt), looks())
    assert {True, False} == set(flips)
    assert [line[:60] for _, line in lines if "identity" in line] == [
        "warning: translations have come to equal their inputs (on ave"[:60]
    ]


def test_nothing_is_told_at_first_when_contrast_is_at_chance_and_d_far_ahead() -> None:
    hopeless = {"G_GAN": 1.0, "D_real": 0.0, "D_fake": 0.0, "NCE": math.log(256)}
    equal = {"real_A": torch.zeros(1, 3, 8, 8), "fake_B": torch.zeros(1, 3, 8, 8)}
    watch = watcher()
    assert told(watch, [(hopeless, equal)] * (WARMUP_IMAGES // IMAGES_PER_LOOK + 1)) == []
    assert list(watch.look(WARMUP_IMAGES + MIN_DURATION - 1, hopeless, equal)) == []


def test_what_passes_is_not_told_and_what_returns_is_told_again() -> None:
    lost = HEALTHY | {"G_GAN": 0.99, "D_real": 0.01, "D_fake": 0.0}
    early = [(HEALTHY, {})] * 13
    passing = [(lost, {})] * 4 + [(HEALTHY, {})]
    lasting = [(lost, {})] * 20 + [(HEALTHY, {})] * 8
    assert told(watcher(), early + passing * 5) == []
    assert len(told(watcher(), early + lasting + lasting)) == 2


def test_a_sign_has_to_be_seen_in_several_reports() -> None:
    """--print_freq 5000: two reports are no trend."""
    lost = HEALTHY | {"G_GAN": 0.99, "D_real": 0.01, "D_fake": 0.0}
    watch = watcher()
    lines = [list(watch.look(5000 * number, lost, {})) for number in range(1, 8)]
    assert [len(each) for each in lines] == [0, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [(["--gan_mode", "wgangp"], False), (["--lambda_GAN", "0"], False), (["--gan_mode", "vanilla"], True)],
)
def test_games_without_a_scale_or_a_generator_are_not_judged(arguments: list[str], tells: bool) -> None:
    watch = create_diagnostics(TrainOptions().parse([*NETWORKS, *arguments]))
    lost = HEALTHY | {"G_GAN": 9.0, "D_real": 0.0, "D_fake": 0.0}
    assert bool(told(watch, [(lost, {})] * 40)) == tells


def test_steps_that_go_well_are_left_alone(tmp_path: Path) -> None:
    """As far as a tiny model can: it learns, and nothing is said."""
    model = model_of(*PATCHES, "--init_gain", "1", "--lr", "0.001")
    lines = told(create_diagnostics(model.opt), steps(model, 40))
    assert lines == []
