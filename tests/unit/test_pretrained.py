"""Training that starts from weights: a lone generator, or another run."""

import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from generators import checkpoint
from tiny_models import all_weights, checkpointer, tiny_model

from models import create_model
from options import TrainOptions
from options.pretrained import parse_pretrained
from util.errors import UserError

SMALL = ["--gpu_ids", "-1", "--ndf", "2", "--netF_nc", "4", "--num_patches", "8", "--load_size", "32", "--crop_size", "32"]


def parse(tmp_path: Path, *arguments: str) -> Namespace:
    opt = parse_pretrained(["--checkpoints_dir", str(tmp_path), *SMALL, *arguments])
    assert opt is not None
    return opt


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("resnet_4blocks", {"ngf": 6}),
        ("resnet_6blocks", {"ngf": 2, "antialias": False, "antialias_up": False, "norm": "batch", "dropout": True}),
        ("smallstylegan2", {"ngf": 3, "size": 32, "n_downsampling": 2}),
    ],
)
def test_a_lone_generator_defines_the_architecture(
    tmp_path: Path, network: str, changes: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkpoint(tmp_path, network, **changes)
    opt = parse(tmp_path, "--pretrained_G", str(file), "--name", "new", "--seed", "5")
    assert opt.netG == network
    assert "netG" not in opt.explicit and "seed" in opt.explicit
    model, scratch = create_model(opt), create_model(opt)
    assert not checkpointer(model).resume_or_load(opt).total_images
    trained = torch.load(file, weights_only=True)
    assert all(torch.equal(value, trained[key]) for key, value in model.networks["G"].state_dict().items())
    for name in "DF":
        assert torch.equal(all_weights(model.networks[name]), all_weights(scratch.networks[name]))
    told = capsys.readouterr().out
    assert f"loaded the weights of G from {file}\n" in told
    assert f"warning: no weights of D, F in {file}: they start from scratch, beside a trained generator. --warm_up_D" in told


def test_a_wrapped_generator_in_safetensors_is_loaded(tmp_path: Path) -> None:
    trained = torch.load(checkpoint(tmp_path, ngf=2), weights_only=True)
    file = tmp_path / "wrapped.safetensors"
    pytest.importorskip("safetensors.torch").save_file({f"module.{key}": value for key, value in trained.items()}, file)
    opt = parse(tmp_path, "--pretrained_G", str(file))
    model = create_model(opt)
    checkpointer(model).resume_or_load(opt)
    assert all(torch.equal(value, trained[key]) for key, value in model.networks["G"].state_dict().items())


def test_the_first_generator_of_cycle_gan_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint(tmp_path, ngf=2)
    opt = parse_pretrained([*SMALL[:4], "--model", "cycle_gan", "--pretrained_G", str(file), "--warm_up_D", "9"])
    model = create_model(opt)
    checkpointer(model).resume_or_load(opt)
    assert "no weights of D_A, D_B, G_B in" in (told := capsys.readouterr().out) and told.endswith("start from scratch.\n")
    trained = torch.load(file, weights_only=True)
    assert torch.equal(model.networks["G_A"].state_dict()["model.1.weight"], trained["model.1.weight"])
    assert not torch.equal(model.networks["G_B"].state_dict()["model.1.weight"], trained["model.1.weight"])


def test_a_run_defines_the_architecture_and_may_lack_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_model("--netG resnet_4blocks", checkpoints_dir=tmp_path, name="old", seed=1)
    run.save_networks("latest")
    (tmp_path / "old" / "latest_net_F.pth").unlink()
    path = str(tmp_path / "old")  # as a shell completes it
    opt = parse(tmp_path, "--continue_train", "--pretrained_name", path, "--name", "new")
    assert (opt.pretrained_name, opt.netG, opt.ngf) == ("old", "resnet_4blocks", 2)
    model = create_model(opt)
    checkpointer(model).resume_or_load(opt)
    for name in "GD":
        assert torch.equal(all_weights(model.networks[name]), all_weights(run.networks[name]))
    assert "warning: no weights of F in old: they start from scratch.\n" in capsys.readouterr().out

    (tmp_path / "old" / "latest_net_G.pth").unlink()
    assert parse_pretrained(["--checkpoints_dir", str(tmp_path), "--continue_train", "--pretrained_name", "old"]) is None
    with pytest.raises(UserError, match=r"old/latest_net_G.pth: no such file"):
        checkpointer(model).resume_or_load(opt)
    opt.pretrained_name = "odl"
    with pytest.raises(UserError, match=r"odl/latest_net_G.pth: no such file. Did you mean old\? "):
        checkpointer(model).resume_or_load(opt)


def test_a_contradicting_architecture_is_named(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, ngf=4)
    with pytest.raises(UserError, match=r"--ngf 8: the generator in .*latest_net_G\.pth has 4\. Leave out --ngf"):
        parse(tmp_path, "--pretrained_G", str(file), "--ngf", "8")
    assert parse(tmp_path, "--pretrained_G", str(file), "--ngf", "4").ngf == 4
    shutil.copy(file, tmp_path / "other.pth")
    assert parse(tmp_path, "--pretrained_G", str(tmp_path / "other.pth")).ngf == 4
    with pytest.raises(UserError, match="no such file or folder"):
        parse(tmp_path, "--pretrained_G", str(tmp_path / "absent.pth"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained_name", "old"], "Add --continue_train, or start from the generator alone with --pretrained_G FILE."),
        (["--pretrained_G", "file.pth", "--continue_train"], "Leave out one."),
    ],
)
def test_a_command_that_would_ignore_the_weights_is_an_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        TrainOptions().parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cat", "runs/cat", "./runs/cat/", "/tmp/nowhere/../nowhere/runs/cat"])
def test_a_run_may_be_given_with_its_folder(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    root = "/tmp/nowhere/runs" if name.startswith("/") else "./runs"
    assert TrainOptions().parse(["--name", name, "--checkpoints_dir", root]).name == "cat"
