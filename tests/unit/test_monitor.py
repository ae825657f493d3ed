"""Detection of diverged runs: within a few steps, with the loss and images named, and before anything is saved."""

import re
from pathlib import Path

import pytest
import torch
from tiny_models import checkpointer
from training_processes import STATE

from models import create_model
from options import TrainOptions
from util.errors import DivergedError
from util.runtime.monitor import CHECK_INTERVAL_GPU, DivergenceMonitor

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = "--gpu_ids -1 --netG resnet_4blocks --ngf 2 --ndf 2 --netF_nc 4 --nce_layers 0,4"
POSITION = "in epoch 1, after 2 of its images"


def losses(value: float) -> dict[str, torch.Tensor]:
    return {"G": torch.tensor(1.0), "D": torch.tensor(value)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_error_names_loss_position_and_images(value: float) -> None:
    monitor = DivergenceMonitor(CPU)
    monitor.update(losses(3.4e38), POSITION, ["a.png"])
    with pytest.raises(DivergedError) as diverged:
        monitor.update(losses(value), POSITION, ["b.png", "c\n.png"])
    message = f"the run has diverged: loss D is {value} {POSITION}, on 'b.png', 'c\\n.png'."
    assert str(diverged.value).startswith(message)
    with pytest.raises(DivergedError, match=re.escape(message)):
        monitor.check()


def test_losses_on_a_gpu_are_checked_at_intervals_for_all_steps() -> None:
    monitor = DivergenceMonitor(GPU)
    for step in range(2 * CHECK_INTERVAL_GPU - 1):
        monitor.update(losses(float("nan") if step == CHECK_INTERVAL_GPU + 3 else 1.0), f"at {step}", [])
    with pytest.raises(DivergedError, match=f"at {CHECK_INTERVAL_GPU + 3},"):
        monitor.update(losses(1.0), "at the end", [])


def test_check_before_a_save_includes_the_latest_steps_on_a_gpu() -> None:
    monitor = DivergenceMonitor(GPU)
    monitor.check()
    monitor.update(losses(float("nan")), "at once", [])
    with pytest.raises(DivergedError, match="at once"):
        monitor.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    """Losses are computed before the update of a step, so they may be finite although the weights are not."""
    model = create_model(TrainOptions().parse([*TINY.split(), "--checkpoints_dir", str(tmp_path), "--name", "run"]))
    checkpointer(model).save("latest")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert tmp_path / "run" / STATE in before
    with torch.no_grad():
        next(model.networks["D"].parameters())[0, 0, 0, 0] = value
    for save in (lambda: checkpointer(model).save("latest"), lambda: model.save_networks("best")):
        with pytest.raises(DivergedError, match=r"model\.0\.weight of network D is not finite"):
            save()
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
