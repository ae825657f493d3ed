"""Weights on disk: written atomically, readable on any device, without executable code."""

import io
import json
import pickle
import re
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import OWN_GOLDEN
from generators import generator
from hostile_files import Payload, small_network
from torch import Tensor, nn

from models import create_model
from models.inference.checkpoint import load_generator
from models.networks import DISCRIMINATORS, DiscriminatorConfig
from options import TestOptions, TrainOptions
from util.errors import UserError
from util.runtime.checkpoint import read_training_state
from util.runtime.weights import load_weights, save_weights

NAME = "latest_net_G.pth"


class Compiled(nn.Module):
    """Wrapper with the key prefix of torch.compile, which itself takes seconds to import."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._orig_mod = network


WRAPPERS = {
    "module.": nn.DataParallel,
    "_orig_mod.": Compiled,
    "module._orig_mod.": lambda network: nn.DataParallel(Compiled(network)),
    "_orig_mod.module.": lambda network: Compiled(nn.DataParallel(network)),
}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def copy_of(net: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


def refused(path: Path, net: nn.Module | None = None) -> str:
    """Return the error of loading the file. Check that it is one line, names the file, and leaves the network unchanged."""
    net = net or small_network()
    before = copy_of(net)
    with pytest.raises(UserError) as error:
        load_weights(net, path)
    assert same(net.state_dict(), before)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Limit files to `size` bytes within the body, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "run" / "deep" / NAME
    save_weights(small_network(seed=1), path)
    net = small_network(seed=2)
    load_weights(net, path)
    assert same(net.state_dict(), small_network(seed=1).state_dict())
    assert [file.name for file in path.parent.iterdir()] == [NAME]


def test_a_file_is_a_plain_state_dict_on_the_cpu(tmp_path: Path) -> None:
    net = small_network()
    if torch.cuda.is_available():
        net.cuda()
    save_weights(net, tmp_path / NAME)
    state = torch.load(tmp_path / NAME, weights_only=True)
    assert same(state, small_network().state_dict())
    assert {(type(tensor), tensor.device.type, tensor.requires_grad) for tensor in state.values()} == {
        (Tensor, "cpu", False)
    }


def test_a_file_written_on_a_gpu_loads_without_one(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(small_network(seed=1).state_dict(), buffer)
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(tmp_path / NAME, "w") as tagged:
        for name in written.namelist():
            on_cpu, on_gpu = (b"X" + bytes([len(place), 0, 0, 0]) + place for place in (b"cpu", b"cuda:0"))
            content = written.read(name)
            assert (on_cpu in content) == name.endswith("data.pkl")
            tagged.writestr(name, content.replace(on_cpu, on_gpu))
    net = small_network(seed=2)
    load_weights(net, tmp_path / NAME)
    assert same(net.state_dict(), small_network(seed=1).state_dict())
    assert {tensor.device.type for tensor in net.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("size", [0, 1000, 60_000])
def test_a_failure_midway_leaves_the_old_file_and_nothing_else(tmp_path: Path, size: int) -> None:
    path = tmp_path / NAME
    save_weights(small_network(), path)
    before = path.read_bytes()
    with files_limited_to(size), pytest.raises((OSError, RuntimeError)):
        save_weights(small_network(width=1000), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_a_first_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with files_limited_to(1000), pytest.raises((OSError, RuntimeError)):
        save_weights(small_network(width=1000), tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"half of a checkpoint, and longer than the next one" * 1000)
    save_weights(small_network(), tmp_path / NAME)
    load_weights(small_network(), tmp_path / NAME)
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_keys_on_disk_have_no_wrapper_prefix_and_prefixed_ones_load(tmp_path: Path, prefix: str) -> None:
    path, wrapped = tmp_path / NAME, WRAPPERS[prefix](small_network(seed=1))
    assert next(iter(wrapped.state_dict())) == f"{prefix}0.weight"
    save_weights(wrapped, path)
    assert same(torch.load(path, weights_only=True), small_network(seed=1).state_dict())

    torch.save(WRAPPERS[prefix](small_network(seed=2)).state_dict(), tmp_path / "wrapped")
    for file, expected in ((path, small_network(seed=1)), (tmp_path / "wrapped", small_network(seed=2))):
        for net in (small_network(seed=3), WRAPPERS[prefix](small_network(seed=3))):
            load_weights(net, file)
            assert same({key.removeprefix(prefix): t for key, t in net.state_dict().items()}, expected.state_dict())


def test_keys_that_only_resemble_a_prefix_are_kept(tmp_path: Path) -> None:
    net = nn.ModuleDict({"submodule": nn.Linear(1, 1), "inner": nn.ModuleDict({"module": nn.Linear(1, 1)})})
    save_weights(net, tmp_path / NAME)
    assert list(torch.load(tmp_path / NAME, weights_only=True)) == list(net.state_dict())
    load_weights(net, tmp_path / NAME)


def test_statistics_of_old_instance_norms_are_ignored(tmp_path: Path) -> None:
    net = small_network(nn.InstanceNorm2d, seed=1)
    leftovers = {"running_mean": torch.ones(3), "running_var": torch.ones(3), "num_batches_tracked": torch.tensor(5)}
    torch.save(copy_of(net) | {f"module.1.{name}": tensor for name, tensor in leftovers.items()}, tmp_path / NAME)
    loaded = small_network(nn.InstanceNorm2d, seed=2)
    load_weights(loaded, tmp_path / NAME)
    assert same(loaded.state_dict(), net.state_dict())


@pytest.mark.parametrize("name", ["running_mean", "running_var", "num_batches_tracked"])
def test_statistics_of_batch_norms_are_loaded(tmp_path: Path, name: str) -> None:
    net = small_network()
    save_weights(small_network(seed=1), tmp_path / NAME)
    load_weights(net, tmp_path / NAME)
    assert torch.equal(net.state_dict()[f"1.{name}"], small_network(seed=1).state_dict()[f"1.{name}"])

    torch.save({key: t for key, t in small_network().state_dict().items() if key != f"1.{name}"}, tmp_path / NAME)
    assert f"1.{name} is missing" in refused(tmp_path / NAME)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    def difference(found: nn.Module, expected: nn.Module) -> str:
        save_weights(found, tmp_path / NAME)
        message = refused(tmp_path / NAME, expected)
        assert "Use the architecture options that it was trained with" in message
        return message.split(": ")[2].split(". ")[0]

    assert difference(small_network(width=4), small_network()) == "0.weight is 4x2x3x3, expected 3x2x3x3"
    assert difference(small_network(), small_network()[:2]) == "2.weight is unexpected"
    assert difference(small_network()[:2], small_network()) == "2.weight is missing"
    assert difference(nn.Sequential(), small_network()) == "0.weight is missing"
    assert difference(small_network(), small_network(nn.InstanceNorm2d)) == "1.weight is unexpected"


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_discriminator_is_named_where_a_generator_is_expected(tmp_path: Path, name: str) -> None:
    config = DiscriminatorConfig(3, ndf=2, n_layers=1, norm="instance", antialias=True, size=32, patch_size=16)
    save_weights(DISCRIMINATORS[name](config), tmp_path / NAME)
    expected = f"{tmp_path / NAME}: the file holds a discriminator, not a generator. Give a generator, such as"
    assert refused(tmp_path / NAME, generator("resnet_4blocks", ngf=1)).startswith(expected)
    with pytest.raises(UserError, match=re.escape(expected)):
        load_generator(tmp_path / NAME)
    wider = DISCRIMINATORS[name](replace(config, ndf=3))
    assert "weights of another network" in refused(tmp_path / NAME, wider)


def test_a_missing_file_is_reported_with_the_existing_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "run" / "40_net_G.pth"
    assert f"{tmp_path} has no runs. Check --checkpoints_dir, or train first." in refused(path)
    path.parent.mkdir()
    assert "Check --name and --checkpoints_dir, or train first." in refused(path)
    for label in ("latest", "20"):
        save_weights(small_network(), path.with_name(f"{label}_net_G.pth"))
    assert f"{path.parent} has 20_net_G.pth, latest_net_G.pth; select one with --epoch." in refused(path)
    assert "cannot be read (Is a directory)" in refused(path.parent)


@pytest.mark.parametrize(
    ("existing", "missing", "advice"),
    [
        (["latest_net_G_A", "latest_net_G_B"], "latest_net_G", "Use --model cycle_gan, or --model test --model_suffix _A."),
        (["latest_net_G"], "latest_net_G_A", "Use --model cut, or --model test without --model_suffix."),
        (
            ["latest_net_G"],
            "latest_net_G_ema",
            "The run was trained without --ema. Remove --ema, or train with --ema 0.999.",
        ),
        (["latest_net_G"], "best_net_G", "best is saved only by a training with metrics, such as --paired."),
        (["best_net_G_ema", "latest_net_G"], "best_net_G", "has latest_net_G.pth; select one with --epoch."),
        (
            ["latest_net_G"],
            "latest_net_F",
            "has latest_net_G.pth. Training loads F as well. To start from the generator alone, use --pretrained_G.",
        ),
        (["5_net_G", "latest_net_G"], "7_net_G", "has 5_net_G.pth, latest_net_G.pth; select one with --epoch."),
    ],
    ids=str,
)
def test_the_advice_for_a_missing_file_names_the_right_option(
    tmp_path: Path, existing: list[str], missing: str, advice: str
) -> None:
    for name in existing:
        (tmp_path / f"{name}.pth").touch()
    assert advice in refused(tmp_path / f"{missing}.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool, fraction: float) -> None:
    path = tmp_path / NAME
    torch.save(small_network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    load_weights(small_network(), path)
    path.write_bytes(whole[: int(fraction * len(whole))])
    assert "truncated, damaged, or holds code" in refused(path)


@pytest.mark.parametrize("length", [1, 5_000, 20_000, 65_000, 100_000, 400_000])
def test_a_truncated_file_of_any_length_is_refused(tmp_path: Path, length: int) -> None:
    """torch.load seeks before the start of some of them, which looks like an error of the file system."""
    path = tmp_path / NAME
    torch.save({f"model.{layer}.weight": torch.zeros(200, 64) for layer in range(8)}, path)
    path.write_bytes(path.read_bytes()[:length])
    assert "truncated, damaged, or holds code" in refused(path)
    with pytest.raises(UserError, match="is truncated, damaged, or contains code"):
        read_training_state(path)


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>", b"\x00" * 999, b"PK\x03\x04", b"\x80", b"\x80\x02", b"\x80\x02.", bytes(range(256)), b"a" * 4096],
    ids=lambda content: repr(content[:9]),
)
def test_a_file_of_another_type_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert "truncated, damaged, or holds code" in refused(tmp_path / NAME)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        "weights",
        3,
        None,
        torch.zeros(3),
        {"state_dict": {}},
        {"0.weight": 1.0},
        {1: torch.zeros(3)},
        {("a",): torch.ones(1)},
    ],
    ids=str,
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / NAME)
    assert "not a state dict, which maps names to tensors. Use weights such as latest_net_G.pth." in refused(tmp_path / NAME)


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy", "beside weights", "whole network"])
def test_code_in_a_file_is_not_run(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / NAME, tmp_path / "the code was run"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker), protocol=2))
    elif form == "whole network":
        net = small_network()
        net.payload = Payload(marker)
        torch.save(net, path)
    else:
        state = {"weights": Payload(marker)} | (dict(small_network().state_dict()) if form == "beside weights" else {})
        torch.save(state, path, _use_new_zipfile_serialization=form != "legacy")

    assert "holds code, which is never run" in refused(path)
    assert not marker.exists()

    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists(), "the payload does not work, so nothing was tested"


def test_files_of_the_released_names_and_shapes_load(tmp_path: Path) -> None:
    run = tmp_path / "horse2zebra_cut_pretrained"
    run.mkdir()
    inventory = json.loads((OWN_GOLDEN / "inventories" / "cut.json").read_text())["networks"]
    for letter, tensors in inventory.items():
        state = {f"module.{key}" if letter == "D" else key: torch.full(shape, i) for i, (key, shape) in enumerate(tensors)}
        torch.save(state, run / f"latest_net_{letter}.pth", _use_new_zipfile_serialization=letter != "F")

    arguments = ["--checkpoints_dir", str(tmp_path), "--name", "horse2zebra_cut_pretrained", "--gpu_ids", "-1"]
    for options, letters in ((TrainOptions(), {"G", "F", "D"}), (TestOptions(), {"G"})):
        model = create_model(options.parse(arguments))
        assert set(model.networks) == letters
        model.load_networks("latest")
        for letter in letters:
            state = model.networks[letter].state_dict()
            assert all(
                torch.equal(state[key], torch.full(shape, float(i))) for i, (key, shape) in enumerate(inventory[letter])
            )
