"""Training steps on an NVIDIA GPU, skipped without one: the golden values, and what the performance options change."""

import pytest
import torch
from conftest import OWN_GOLDEN, SHARED_GOLDEN
from golden_cases import Case, check_training_steps, find_cases, sample_as_on_the_cpu
from tiny_models import CUT, CYCLE_GAN, SINCUT, assert_same, double_model, take_step, tiny_model

from models.networks import layers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

GPU = "0"
STEPS = [case for case in find_cases([OWN_GOLDEN, SHARED_GOLDEN]) if case.info["kind"] == "training_steps"]
METHODS = {"CUT": CUT, "FastCUT": f"{CUT} --CUT_mode FastCUT", "SinCUT": SINCUT, "CycleGAN": f"{CYCLE_GAN} --pool_size 0"}
compiled = pytest.param("--compile", marks=pytest.mark.slow)


@pytest.mark.parametrize("case", STEPS, ids=[case.name for case in STEPS])
@pytest.mark.parametrize("max_layer_norm_size", [layers.MAX_LAYER_NORM_SIZE, 0])
def test_golden_training_steps_in_float64(case: Case, max_layer_norm_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_LAYER_NORM_SIZE", max_layer_norm_size)
    sample_as_on_the_cpu(monkeypatch)
    check_training_steps(case, monkeypatch, GPU)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("flags", ["--channels_last", "--grad_checkpoint", compiled])
def test_an_exact_option_changes_no_loss_and_no_gradient(method: str, flags: str) -> None:
    plain, model = (double_model(command, gpu_ids=GPU) for command in (method, f"{method} {flags}"))
    for each in (plain, model):
        take_step(each, size=2)
    assert_same(model, plain)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("flags", ["--precision tf32", "--precision bf16", pytest.param("--fast", marks=pytest.mark.slow)])
def test_a_rounding_option_changes_losses_a_little(method: str, flags: str) -> None:
    plain, model = (tiny_model(command, gpu_ids=GPU) for command in (method, f"{method} {flags}"))
    for each in (plain, model):
        take_step(each, size=2)
    for name in plain.loss_names:
        assert model.losses[name].item() == pytest.approx(plain.losses[name].item(), rel=0.1, abs=0.02), name
