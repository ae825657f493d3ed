"""The computations that launch fewer kernels on a GPU, run on the CPU."""

import pytest
import torch
from golden_cases import sample_as_on_the_cpu
from torch import Tensor

from models import performance
from models.losses import patch_nce
from models.networks import layers, padding, patch_sampler


def take_gpu_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the paths of a GPU, with the samples of the CPU."""
    for module in (layers, padding, patch_sampler, patch_nce, performance):
        monkeypatch.setattr(module, "on_gpu", lambda device: True)
    sample_as_on_the_cpu(monkeypatch)
    monkeypatch.setattr(torch, "batch_norm_stats", norm_stats)
    monkeypatch.setattr(torch, "batch_norm_elemt", norm_elemt)


def norm_stats(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Replace `torch.batch_norm_stats`, which PyTorch has for GPUs only."""
    variance, mean = torch.var_mean(features, (0, 2, 3), correction=0)
    return mean, (variance + eps).rsqrt()


def norm_elemt(features: Tensor, _weight: None, _bias: None, mean: Tensor, rstd: Tensor, _eps: float, out: Tensor) -> None:
    """Replace `torch.batch_norm_elemt`, which PyTorch has for GPUs only."""
    mean, rstd = (statistic.view(1, -1, 1, 1) for statistic in (mean, rstd))
    torch.mul(features - mean, rstd, out=out)
