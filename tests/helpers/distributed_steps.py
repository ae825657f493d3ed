"""Training steps of every model in float64, in one process or split across several.

Run `distributed_steps.py FILE` with torchrun: it takes the steps of all cases, and the main process saves the results.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_paths import take_gpu_paths
from torch import Tensor

from models import create_model
from options import TrainOptions
from util.errors import UserError
from util.runtime.distributed import check_batch_size, is_main_process, local_shard, process_group

STEPS = 3
BATCH = 4
SIDE = 32
SIZES = ["--gpu_ids", "-1", "--load_size", str(SIDE), "--crop_size", str(SIDE), "--batch_size", str(BATCH)]
# The published gain makes PatchNCE's gradients so large that their rounding noise moves weights that have none.
RESNET = [*SIZES, "--netG", "resnet_4blocks", "--ngf", "2", "--ndf", "2", "--init_gain", "0.3"]
CUT = [*RESNET, "--netF_nc", "16", "--nce_layers", "0,4,8", "--num_patches", "8"]

# With the default seed, some of FastCUT's three steps are flipped and some are not.
CASES: dict[str, list[str]] = {
    "cut": CUT,
    "cut_no_identity_wgangp": [*CUT, "--nce_idt", "false", "--gan_mode", "wgangp", "--lambda_gp", "10"],
    "cut_negatives_from_minibatch": [*CUT, "--nce_includes_all_negatives_from_minibatch"],
    "cut_positions_only": [*CUT, "--netF", "sample"],
    "cut_smallstylegan2": [*CUT, "--netG", "smallstylegan2", "--ngf", "1", "--nce_layers", "0,2,3"],
    "fastcut": [*CUT, "--CUT_mode", "FastCUT"],
    "cut_small_data": [*CUT, "--diffaugment", "--lambda_lecam", "0.1", "--gan_mode", "hinge", "--spectral_norm_D"],
    "cycle_gan": [*RESNET, "--model", "cycle_gan", "--pool_size", "3"],
    "sincut": [*SIZES, "--model", "sincut", "--ngf", "1", "--ndf", "1", "--netF_nc", "16"],
}


def take_steps(case: str) -> dict[str, Any]:
    """Return the gradients of the first step, losses and flips of all steps, and the final weights."""
    model = create_model(TrainOptions().parse(CASES[case]))
    result: dict[str, Any] = {"losses": [], "flips": []}
    images = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        A, B = (torch.rand(BATCH, 3, SIDE, SIDE, generator=images) * 2 - 1 for _ in "AB")
        paths = [""] * len(local_shard(A))
        model.set_input({"A": local_shard(A), "B": local_shard(B), "A_paths": paths, "B_paths": paths})
        model.optimize_parameters()
        if step == 0:
            result["gradients"] = of_all(model.networks, lambda network: gradients(network))
        result["losses"].append(model.get_current_losses())
        result["flips"].append(getattr(model, "flipped", False))
    result["weights"] = of_all(model.networks, lambda network: network.state_dict())
    return result


def options(arguments: list[str]) -> Namespace:
    return TrainOptions().parse([*CUT, *arguments])


def refusal(attempt: Callable[[], Any]) -> str:
    """Return the message of the UserError that `attempt` raises. Fail if it raises none."""
    try:
        attempt()
    except UserError as error:
        return str(error)
    raise AssertionError("no UserError was raised")


def of_all(networks: dict[str, torch.nn.Module], read: Any) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in networks.items()
        for key, tensor in sorted(read(network).items())
    }


def gradients(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        results: dict[str, Any] = {case: take_steps(case) for case in CASES}
        with pytest.MonkeyPatch.context() as monkeypatch:
            take_gpu_paths(monkeypatch)
            results["gpu"] = {case: take_steps(case) for case in CASES}
        results["refused"] = [
            refusal(lambda: check_batch_size(3)),
            refusal(lambda: create_model(options(["--normD", "batch"]))),
        ]
        if is_main_process():
            torch.save(results, Path(sys.argv[1]))
