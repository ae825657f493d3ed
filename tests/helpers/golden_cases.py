"""Find golden cases and compare numbers with them."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import create_model
from models.base_model import BaseModel
from models.networks import patch_sampler
from models.networks.base import NoiseSource
from options import TrainOptions

TOLERANCE = 1e-6  # of the largest magnitude in the tensor; what is stored in float32 is exact to 6e-8
DEAD = 1e-10  # a gradient below this share of its network's largest is rounding noise


@dataclass(frozen=True)
class Case:
    """A JSON file, in most cases with an npz file of the same name."""

    path: Path
    name: str

    @cached_property
    def info(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path.with_suffix(".npz")) as file:
            return {name: file[name] for name in file.files}

    def __getitem__(self, name: str) -> Tensor:
        """Return the array as a tensor, floating point as float64."""
        tensor = torch.from_numpy(self.arrays[name])
        return tensor.double() if tensor.is_floating_point() else tensor

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return all arrays whose name starts with `prefix/`, by the rest of their name."""
        return {name[len(prefix) + 1 :]: self[name] for name in self.arrays if name.startswith(f"{prefix}/")}

    @property
    def content(self) -> tuple[bytes, bytes]:
        data = self.path.with_suffix(".npz")
        return self.path.read_bytes(), data.read_bytes() if data.exists() else b""


def find_cases(folders: list[Path]) -> list[Case]:
    """Return every case in the folders. Identical copies in several folders count once."""
    cases: dict[tuple[str, bytes, bytes], Case] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.json")):
            case = Case(path, path.relative_to(folder).with_suffix("").as_posix())
            cases.setdefault((case.name, *case.content), case)
    return list(cases.values())


def assert_close(what: str, actual: Tensor, expected: Tensor, scale: float | None = None) -> None:
    """Fail if the largest difference exceeds TOLERANCE times `scale`, by default the largest expected magnitude."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    if not expected.numel():
        return
    if scale is None:
        scale = expected.abs().max().item()
    error = (actual.detach().to(expected) - expected).abs().max().item()
    assert error <= TOLERANCE * scale, f"{what}: off by {error:.3g} where the largest magnitude is {scale:.3g}"


def assert_gradients(what: str, parameters: dict[str, torch.nn.Parameter], expected: dict[str, Tensor]) -> None:
    """Compare the gradients of a network. An empty array means that the parameter has no gradient."""
    assert set(parameters) == set(expected), f"{what}: other parameters: {set(parameters) ^ set(expected)}"
    largest = max((gradient.abs().max().item() for gradient in expected.values() if gradient.numel()), default=0.0)
    for name, gradient in expected.items():
        found = parameters[name].grad
        if not gradient.numel():
            assert found is None or not found.any(), f"{what} of {name}: there should be none"
            continue
        assert found is not None, f"{what} of {name} is missing"
        magnitude = gradient.abs().max().item()
        assert_close(f"{what} of {name}", found, gradient, scale=largest if magnitude < DEAD * largest else None)


def assert_outputs_and_gradients(case: Case, network: torch.nn.Module) -> None:
    """Load the weights of the case, and compare the output and all gradients."""
    network.load_state_dict(case.below("state"))
    image = case["input"].requires_grad_()
    output = network(image)
    assert_close("output", output, case["output"])
    (output * case["output_weight"]).sum().backward()
    assert_close("gradient of the input", image.grad, case["grad_input"])
    assert_gradients("gradient", dict(network.named_parameters()), case.below("grad"))


def build_model(options: list[str], gpu_ids: str = "-1") -> BaseModel:
    """Build a training model in float64, on the CPU by default."""
    model = create_model(TrainOptions().parse(["--gpu_ids", gpu_ids, *options]))
    for network in model.networks.values():
        network.double()
    return model


def replace_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace injected noise by zeros, as in the golden vectors."""
    monkeypatch.setattr(NoiseSource, "sample", lambda self, features: torch.zeros_like(features[:, :1]))


def sample_as_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the path of a GPU sample patches as the CPU does: one map after the other, source by source."""

    def sample(sizes: list[int], num_patches: int, num_sources: int, generator: torch.Generator) -> list[Tensor]:
        maps = [torch.empty(1, 1, size, 1) for size in sizes]
        ids = [[patch_sampler.sample_patch_ids(each, num_patches, generator) for each in maps] for _ in range(num_sources)]
        return [torch.stack(layer).to(generator.device) for layer in zip(*ids, strict=True)]

    monkeypatch.setattr(patch_sampler, "sample_patch_ids_at_once", sample)


def check_training_steps(case: Case, monkeypatch: pytest.MonkeyPatch, gpu_ids: str = "-1") -> None:
    replace_noise(monkeypatch)
    info = case.info
    model = build_model(info["options"], gpu_ids)
    assert set(model.networks) == set(info["networks"])
    for name, network in model.networks.items():
        network.load_state_dict(case.below(f"init/{name}"))

    losses: dict[str, list[float]] = {name: [] for name in info["loss_names"]}
    for step in range(info["steps"]):
        patch_ids = iter(case[f"patch_ids/{step}/{call}"] for call in range(info["calls_per_step"]))
        monkeypatch.setattr(patch_sampler, "sample_patch_ids", lambda features, num_patches, generator, p=patch_ids: next(p))
        if info["flipped"]:
            monkeypatch.setattr("models.cut_model.sample_flip", lambda generator, s=step: info["flipped"][s])
        paths = [str(index) for index in range(len(case[f"A/{step}"]))]
        model.set_input({"A": case[f"A/{step}"], "B": case[f"B/{step}"], "A_paths": paths, "B_paths": paths})
        model.optimize_parameters()
        assert next(patch_ids, None) is None, "fewer patch ids were sampled than in the published step"

        if step == 0:
            for name, network in model.networks.items():
                expected = case.below(f"grad0/{name}")
                assert_gradients(f"gradient in {name}", dict(network.named_parameters()), expected)
            visuals = model.get_current_visuals()
            assert list(visuals) == info["visual_names"]
            for name in visuals:
                assert_close(name, visuals[name], case[f"visual0/{name}"])
        assert list(model.get_current_losses()) == info["loss_names"]
        for name, loss in model.losses.items():
            losses[name].append(loss.item())

    for name, values in losses.items():
        assert_close(f"loss {name}", torch.tensor(values, dtype=torch.float64), case[f"loss/{name}"])
    for name, network in model.networks.items():
        for key, value in network.state_dict().items():
            assert_close(f"final {name} {key}", value, case[f"final/{name}/{key}"])
