"""Checkpoints that are damaged, hostile or of another run: each is loaded or refused in one sentence that names it, and
nothing else happens."""

import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import Payload, small_network
from tiny_models import checkpointer
from training_processes import STATE

from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from util.errors import UserError
from util.runtime.checkpoint import read_training_state
from util.runtime.weights import load_weights, save_weights, write_safetensors

TINY = [
    "--gpu_ids",
    "-1",
    "--model",
    "cycle_gan",
    "--netG",
    "resnet_4blocks",
    "--ngf",
    "1",
    "--ndf",
    "1",
    "--pool_size",
    "2",
]
NAN = float("nan")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """`content` with some bits flipped, or some bytes taken out, repeated, put in or overwritten."""
    place, length = rng.randrange(len(content)), rng.randrange(1, 64)
    before, some, after = content[:place], content[place : place + length], content[place + length :]
    flipped = bytes([some[0] ^ 1 << rng.randrange(8)]) + some[1:]
    middle = rng.choice(
        [flipped, b"", some + some, rng.randbytes(length) + some, bytes(len(some)), rng.randbytes(len(some))]
    )
    return before + middle + after


def with_damaged_pickle(content: bytes, rng: random.Random) -> bytes:
    """Return a PyTorch file whose pickle is damaged and whose checksums are correct."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(buffer, "w") as forged:
        for name in whole.namelist():
            part = whole.read(name)
            forged.writestr(name, damaged(part, rng) if name.endswith("data.pkl") else part)
    return buffer.getvalue()


def old_format(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def loads_or_is_refused(load: Callable[[], Any], path: Path) -> bool:
    """Return whether `load` succeeds. It may only load, or raise a UserError of one line that names the file."""
    there = set(path.parent.rglob("*"))
    try:
        load()
    except UserError as refused:
        assert str(path) in str(refused)
        assert "\n" not in str(refused)
        return False
    finally:
        assert set(path.parent.rglob("*")) == there
    return True


@pytest.mark.parametrize("number", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["zip", "forged zip", "old"])
def test_damaged_weights(tmp_path: Path, form: str, number: int) -> None:
    path, rng, loaded = tmp_path / "latest_net_G.pth", random.Random(form), 0
    save_weights(small_network(seed=1), path)
    whole = path.read_bytes() if form != "old" else old_format(small_network(seed=1).state_dict())
    for _ in range(number):
        path.write_bytes((with_damaged_pickle if form == "forged zip" else damaged)(whole, rng))
        loaded += loads_or_is_refused(lambda: load_weights(small_network(), path), path)
    assert loaded < number / 2, "damage that does no harm tests nothing"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BaseModel, Path, bytes]]:
    """Return a model, the state file of its run after two steps, and the content of the file."""
    folder = tmp_path_factory.mktemp("run")
    model = create_model(TrainOptions().parse([*TINY, "--name", "run", "--checkpoints_dir", str(folder)]))
    for step in range(2):
        images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1
        model.set_input({"A": images, "B": images, "A_paths": ["a.png"], "B_paths": ["b.png"]})
        model.optimize_parameters()
    checkpointer(model).save("latest")
    path = folder / "run" / STATE
    yield model, path, path.read_bytes()


@pytest.mark.parametrize("number", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_states(run, number: int) -> None:
    model, path, whole = run
    rng, loaded = random.Random(0), 0
    for turn in range(number):
        path.write_bytes((damaged, with_damaged_pickle)[turn % 2](whole, rng))
        loaded += loads_or_is_refused(checkpointer(model).resume, path)
    path.write_bytes(whole)
    assert checkpointer(model).resume()
    assert loaded < number / 2


HOSTILE = [None, -1, 1.5, True, NAN, "x", "", [], {}, {"a": 1}, torch.zeros(()), torch.full((2, 2), NAN)]
HOSTILE.append(torch.zeros(1).expand(10**6, 10**6))  # a few bytes on the disk, terabytes where it is touched
HOSTILE.append(torch.eye(2).to_sparse())


def replaced_somewhere(value: Any, rng: random.Random) -> Any:
    """`value` with one of its parts replaced or taken out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {other: part for other, part in value.items() if other != key}
        return value | {key: replaced_somewhere(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], replaced_somewhere(value[place], rng), *value[place + 1 :]]
    return rng.choice(HOSTILE)


@pytest.mark.parametrize("number", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_states_of_something_else(run, number: int) -> None:
    model, path, whole = run
    state, rng, loaded = torch.load(path, weights_only=True), random.Random(0), 0
    for _ in range(number):
        torch.save(replaced_somewhere(state, rng), path)
        loaded += loads_or_is_refused(checkpointer(model).resume, path)
    path.write_bytes(whole)
    assert checkpointer(model).resume()
    assert loaded < number / 4


def test_code_in_a_state_is_not_run(run, tmp_path: Path) -> None:
    model, path, whole = run
    marker = tmp_path / "the code was run"
    for content in (pickle.dumps(Payload(marker), protocol=2), None):
        if content is None:
            torch.save(torch.load(io.BytesIO(whole), weights_only=True) | {"steps_done": Payload(marker)}, path)
        else:
            path.write_bytes(content)
        assert not loads_or_is_refused(checkpointer(model).resume, path)
        assert not marker.exists()
    path.write_bytes(whole)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path, net = tmp_path / "latest_net_G.pth", small_network()
    with torch.no_grad():
        net[2].bias[0] = value
    save_weights(net, path)
    with pytest.raises(UserError, match=rf"{path}: 2.bias is not finite, .* --epoch"):
        load_weights(small_network(), path)


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    """torch itself reads over it."""
    path = tmp_path / "latest_net_G.pth"
    save_weights(small_network(seed=1), path)
    content = path.read_bytes()
    weight = small_network(seed=1)[0].weight.detach().numpy().tobytes()
    assert content.count(weight) == 1
    changed = bytearray(content)
    changed[content.index(weight)] ^= 1
    path.write_bytes(changed)
    torch.load(path, weights_only=True)
    assert not loads_or_is_refused(lambda: load_weights(small_network(), path), path)


@pytest.mark.parametrize("name", ["latest_net_G.pth", STATE])
def test_a_pipe_in_the_place_of_a_checkpoint_is_not_waited_for(run, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="not a regular file"):
        if name == STATE:
            read_training_state(tmp_path / name)
        else:
            load_weights(small_network(), tmp_path / name)


def test_safetensors_load_in_the_place_of_a_checkpoint_and_are_refused_like_one(run, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model, _, _ = run
    loaded = create_model(TrainOptions().parse([*TINY, "--name", "safe", "--checkpoints_dir", str(tmp_path)]))
    for name, trained in model.networks.items():
        write_safetensors(trained, tmp_path / "safe" / f"latest_net_{name}.safetensors")
    loaded.load_networks("latest")
    for name, trained in model.networks.items():
        state = loaded.networks[name].state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in trained.state_dict().items())

    path, rng = tmp_path / "safe" / "latest_net_G_A.safetensors", random.Random(0)
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not loads_or_is_refused(lambda: loaded.load_networks("latest"), path)
    for _ in range(200):
        path.write_bytes(damaged(whole[:2000], rng) + whole[2000:])
        loads_or_is_refused(lambda: loaded.load_networks("latest"), path)
