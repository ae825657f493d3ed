"""Several processes that train one model: they take the steps of a single one, and end together."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_steps import CASES, take_steps
from programs import ENVIRONMENT, ROOT


def torchrun(folder: Path, processes: int, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in several processes that communicate with gloo, until it ends."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            program,
            *arguments,
        ],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run every case in two processes, and return the results."""
    folder = tmp_path_factory.mktemp("steps")
    finished = torchrun(folder, 2, ROOT / "tests" / "helpers" / "distributed_steps.py", "results.pt")
    assert finished.returncode == 0, finished.stderr
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_steps_of_one(case: str, of_two: dict[str, Any]) -> None:
    check_same_steps(take_steps(case), of_two[case])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
def test_so_do_the_paths_of_a_gpu(case: str, of_two: dict[str, Any]) -> None:
    check_same_steps(take_steps(case), of_two["gpu"][case])


def check_same_steps(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one["flips"] == two["flips"]
    for alone, together in zip(one["losses"], two["losses"], strict=True):
        assert together == pytest.approx(alone, rel=1e-6)  # reported in float32
    largest = max(gradient.abs().max().item() for gradient in one["gradients"].values())
    assert difference(one["gradients"], two["gradients"]) <= 1e-12 * largest
    assert difference(one["weights"], two["weights"]) <= 1e-7, "a step moves a weight by 2e-4"


def difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between two dictionaries of tensors."""
    assert one.keys() == two.keys()
    return max((two[name] - tensor).abs().max().item() for name, tensor in one.items())


def test_what_cannot_be_shared_is_refused(of_two: dict[str, Any]) -> None:
    batch_size, batch_norm = of_two["refused"]
    assert batch_size == ("--batch_size 3: the batch of all 2 processes must divide evenly among them. Use a multiple of 2.")
    assert batch_norm == (
        "--normG batch, --normD batch: incompatible with several processes. Use instance norm, or one process."
    )


def test_the_coin_of_fastcut_falls_on_either_side(of_two: dict[str, Any]) -> None:
    assert set(of_two["fastcut"]["flips"]) == {False, True}
