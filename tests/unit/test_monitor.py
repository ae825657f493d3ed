"""Runs that diverge: noticed within a few steps, named, and never saved."""

import re
from pathlib import Path

import pytest
import torch
from training_processes import STATE

from models import create_model
from options import TrainOptions
from util.errors import DivergedError
from util.runtime.image_counter import ImageCounter
from util.runtime.monitor import CHECK_INTERVAL_GPU, DivergenceMonitor

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = "--gpu_ids -1 --netG resnet_4blocks --ngf 2 --ndf 2 --netF_nc 4 --nce_layers 0,4"


def losses(value: float) -> dict[str, torch.Tensor]:
    return {"G": torch.tensor(1.0), "D": torch.tensor(value)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_is_named_with_the_place_and_the_images(value: float) -> None:
    watch, images = DivergenceMonitor(CPU), ImageCounter()
    images.advance(2)
    watch.note(losses(3.4e38), images.place, ["a.png"])
    with pytest.raises(DivergedError) as diverged:
        watch.note(losses(value), images.place, ["b.png", "c\n.png"])
    told = f"the loss D is {value} in epoch 1, after 2 of its images, on 'b.png', 'c\\n.png': the run has diverged."
    assert str(diverged.value).startswith(told)
    with pytest.raises(DivergedError, match=re.escape(told)):
        watch.look()


def test_a_gpu_is_asked_now_and_then_and_answers_for_all_steps() -> None:
    watch = DivergenceMonitor(GPU)
    for step in range(2 * CHECK_INTERVAL_GPU - 1):
        watch.note(losses(float("nan") if step == CHECK_INTERVAL_GPU + 3 else 1.0), f"at {step}", [])
    with pytest.raises(DivergedError, match=f"at {CHECK_INTERVAL_GPU + 3},"):
        watch.note(losses(1.0), "at the end", [])


def test_before_a_save_a_gpu_is_asked() -> None:
    watch = DivergenceMonitor(GPU)
    watch.look()
    watch.note(losses(float("nan")), "at once", [])
    with pytest.raises(DivergedError, match="at once"):
        watch.look()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    """The losses of a step are those of before its update, and may still be finite when the weights are not."""
    model = create_model(TrainOptions().parse([*TINY.split(), "--checkpoints_dir", str(tmp_path), "--name", "run"]))
    model.save_run("latest")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert tmp_path / "run" / STATE in before
    with torch.no_grad():
        next(model.networks["D"].parameters())[0, 0, 0, 0] = value
    for save in (lambda: model.save_run("latest"), lambda: model.save_networks("best")):
        with pytest.raises(DivergedError, match=r"model\.0\.weight of network D is not finite any more"):
            save()
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
