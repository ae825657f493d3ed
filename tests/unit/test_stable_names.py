"""Names that users' scripts rely on: imports, methods, keys of networks, batches, losses and visuals, and file names."""

import shlex
from pathlib import Path

import pytest
import torch
from image_factory import two_domains

from data import create_dataset
from models import Translator, create_model, method_name
from options import TestOptions, TrainOptions

TINY = shlex.split("--gpu_ids -1 --num_threads 0 --load_size 32 --crop_size 32 --netG resnet_4blocks --ngf 2 --ndf 2")
BATCH = {"A", "B", "A_paths", "B_paths"}
METHODS = {
    "cut": (
        ["G", "F", "D"],
        ["G_GAN", "D_real", "D_fake", "G", "NCE", "NCE_Y"],
        ["real_A", "fake_B", "real_B", "idt_B"],
    ),
    "sincut": (
        ["G", "F", "D"],
        ["G_GAN", "D_real", "D_fake", "G", "NCE", "NCE_Y", "D_R1", "idt"],
        ["real_A", "fake_B", "real_B", "idt_B"],
    ),
    "cycle_gan": (
        ["G_A", "G_B", "D_A", "D_B"],
        ["D_A", "G_A", "cycle_A", "idt_A", "D_B", "G_B", "cycle_B", "idt_B"],
        ["real_A", "fake_B", "rec_A", "idt_B", "real_B", "fake_A", "rec_B", "idt_A"],
    ),
}


def test_options_parse_without_dataset_or_run() -> None:
    assert TrainOptions().parse(["--dataroot", "nowhere"]).isTrain
    assert not TestOptions().parse(["--dataroot", "nowhere"]).isTrain


def test_parse_reads_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--dataroot", "nowhere", "--ngf", "8"])
    assert TrainOptions().parse().ngf == 8


def test_datasets_yield_batches(tmp_path: Path) -> None:
    dataset = create_dataset(TrainOptions().parse([*TINY, "--dataroot", str(two_domains(tmp_path, n_A=3, n_B=2))]))
    assert len(dataset) == 3
    dataset.set_epoch(1)
    batches = list(dataset)
    assert len(batches) == 3
    assert batches[0].keys() == BATCH
    assert batches[0]["A"].shape == (1, 3, 32, 32)
    assert isinstance(batches[0]["A_paths"][0], str)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("", "CUT"),
        ("--CUT_mode cut", "CUT"),
        ("--CUT_mode fastcut", "FastCUT"),
        ("--model sincut --CUT_mode FastCUT", "SinCUT"),
        ("--model cycle_gan", "CycleGAN"),
    ],
)
def test_methods_are_shown_by_their_names(arguments: str, name: str) -> None:
    assert method_name(vars(TrainOptions().parse(shlex.split(arguments)))) == name


@pytest.mark.parametrize("method", METHODS)
def test_models_train_save_and_load(method: str, tmp_path: Path) -> None:
    networks, losses, visuals = METHODS[method]
    run = ["--checkpoints_dir", str(tmp_path), "--name", "run", "--model", method]
    model = create_model(TrainOptions().parse([*TINY, *run, "--netD", "basic"]))
    assert list(model.networks) == networks
    assert all(isinstance(network, torch.nn.Module) for network in model.networks.values())
    for name in networks:
        assert hasattr(model, f"net{name}")

    images = torch.rand(2, 3, 32, 32) * 2 - 1
    model.set_input({"A": images[:1], "B": images[1:], "A_paths": ["a.png"], "B_paths": ["b.png"]})
    model.optimize_parameters()
    assert list(model.get_current_losses()) == losses
    assert all(isinstance(value, float) for value in model.get_current_losses().values())
    assert list(model.get_current_visuals()) == visuals
    assert all(shown.shape == (1, 3, 32, 32) for shown in model.get_current_visuals().values())

    model.save_networks("latest")
    model.load_networks("latest")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {f"latest_net_{name}.pth" for name in networks}
    assert Translator.from_checkpoint(tmp_path / "run", gpu_ids="-1")(images).shape == images.shape


@pytest.mark.parametrize("name", ["compute_D_loss", "compute_G_loss", "calculate_NCE_loss"])
def test_published_methods_of_cut_exist(name: str) -> None:
    assert callable(getattr(create_model(TrainOptions().parse(TINY)), name))
