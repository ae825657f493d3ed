"""Training steps on a fake GPU: devices, waits, CPU-only layers, and the number of kernels of a step.

The last is a budget, because a step at batch size 1 is bound by kernel launches. tests/integration/launch_budget.json holds
the kernels of a step of each method at the published size, as `StepCheck` counts them. If a change needs more, state why and
raise the budget.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_cuda import GPU, GPUError, StepCheck, fake_gpu
from torch import Tensor

from models import create_model
from models.base_model import BaseModel
from models.losses import patch_nce
from models.networks.resampling import Upsample
from options import TrainOptions
from util.runtime.monitor import DivergenceMonitor

pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a CUDA build of PyTorch")

TINY = "--ngf 4 --ndf 4 --load_size 64 --crop_size 64 --netG resnet_4blocks"
CUT = f"{TINY} --netF_nc 8 --num_patches 16"
METHODS = {
    "CUT": CUT,
    "FastCUT": f"{CUT} --CUT_mode FastCUT",
    "SinCUT": "--model sincut --ngf 2 --ndf 1 --load_size 64 --crop_size 64 --netF_nc 8 --batch_size 4",
    "CycleGAN": f"--model cycle_gan {TINY} --pool_size 1",
}
GRAPHS = {"--cuda_graphs", "--precision bf16 --channels_last --cuda_graphs"}
OPTIONS = {
    *("", "--channels_last", "--precision tf32", "--precision bf16", "--precision bf16 --channels_last", "--ema 0.99"),
    *("--grad_checkpoint", "--accumulate 2", "--batch_size 3", *GRAPHS),
}
VARIANTS = [
    *("--no_dropout false", "--no_dropout false --grad_checkpoint", "--normG batch --normD batch --batch_size 2"),
    *("--normG none --normD none", "--no_antialias --no_antialias_up", "--netF sample", "--netF reshape"),
    *("--nce_includes_all_negatives_from_minibatch true --batch_size 2", "--lambda_GAN 0", "--lambda_NCE 0"),
    *("--input_nc 1 --output_nc 1", "--gan_mode vanilla", "--gan_mode nonsaturating", "--num_patches 300"),
    *("--gan_mode wgangp --lambda_gp 10 --batch_size 2", "--netG stylegan2", "--netG smallstylegan2"),
    "--diffaugment --lambda_lecam 0.1 --spectral_norm_D --gan_mode hinge --warm_up_D 2 --lr_warm_up 4 --cuda_graphs",
    *(f"--netD {name}" for name in ("n_layers", "pixel", "patch", "stylegan2", "tilestylegan2")),
]
# The plain step of every method is part of the budget below.
QUICK = {
    *(("CUT", "--cuda_graphs"), ("CUT", "--accumulate 2"), ("CycleGAN", "--ema 0.99")),
    ("SinCUT", "--precision bf16 --channels_last --cuda_graphs"),
}
CASES = [
    pytest.param(f"{command} {option}", marks=[] if (method, option) in QUICK else pytest.mark.slow, id=f"{method} {option}")
    for method, command in METHODS.items()
    for option in sorted(OPTIONS)
]
CASES += [pytest.param(f"{CUT} {variant}", marks=pytest.mark.slow, id=f"CUT {variant}") for variant in VARIANTS]
BUDGET_FILE = Path(__file__).parent / "launch_budget.json"
BUDGET: dict[str, dict[str, int]] = json.loads(BUDGET_FILE.read_text())
PUBLISHED_SIZE = {
    "CUT": "--load_size 256 --crop_size 256",
    "FastCUT": "--load_size 256 --crop_size 256 --CUT_mode FastCUT",
    "SinCUT": "--model sincut",
    "CycleGAN": "--model cycle_gan --load_size 256 --crop_size 256",
}


@pytest.fixture
def gpu() -> Iterator[None]:
    with fake_gpu():
        yield


def build(command: str) -> BaseModel:
    """Create a model on the fake GPU. With CUDA graphs, CycleGAN gets no image pool."""
    without_pool = ["--pool_size", "0"] if "--cuda_graphs" in command and "cycle_gan" in command else []
    opt = TrainOptions().parse(["--num_threads", "0", *command.split(), *without_pool])
    model = create_model(opt)
    if opt.ema:
        model.enable_ema(opt.ema)
    return model


def take_steps(model: BaseModel, steps: int) -> StepCheck:
    """Take training steps as train.py does, and return the check of the last one."""
    opt, monitor = model.opt, DivergenceMonitor(GPU)
    side = min(opt.load_size, opt.crop_size)
    for _ in range(steps):
        shape = opt.batch_size, opt.input_nc, side, side
        batch = {"A": torch.randn(shape), "B": torch.randn(shape), "A_paths": ["a.png"], "B_paths": ["b.png"]}
        with StepCheck() as check:
            check.placing_input = True
            model.set_input(batch)
            check.placing_input = False
            model.optimize_parameters()
            monitor.update(model.losses, "in this test", ["a.png"])
            model.visuals_for_display()
    with StepCheck():
        model.update_learning_rate()
    return check


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("command", CASES)
def test_step_stays_on_the_gpu_and_does_not_wait(command: str) -> None:
    model = build(command)
    tensors = [tensor for network in model.networks.values() for tensor in (*network.parameters(), *network.buffers())]
    assert all(tensor.is_cuda for tensor in tensors)
    take_steps(model, 6 if "--cuda_graphs" in command else 3)


@pytest.mark.usefixtures("gpu")
class TestFaultsAreFound:
    def test_value_that_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = patch_nce.patch_nce
        monkeypatch.setattr(patch_nce, "patch_nce", lambda *a: original(*a) * original(*a).mean().item())
        with pytest.raises(GPUError, match="waits for the GPU"):
            take_steps(build(CUT), 1)

    def test_tensor_on_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def with_cpu_mask(queries: Tensor, *_: object) -> Tensor:
            vectors = queries.flatten(0, -2)
            return vectors.sum(1) * torch.eye(len(vectors)).sum(1)

        monkeypatch.setattr(patch_nce, "patch_nce", with_cpu_mask)
        with pytest.raises((GPUError, RuntimeError), match=r"CPU|device"):
            take_steps(build(CUT), 1)

    def test_copy_during_the_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = patch_nce.patch_nce
        monkeypatch.setattr(patch_nce, "patch_nce", lambda *a: original(*a).cpu())
        with pytest.raises(GPUError, match="mixes the CPU and the GPU"):
            take_steps(build(CUT), 1)

    def test_generator_of_another_device(self) -> None:
        model = build(CUT)
        model.criterionNCE.rng = model.rng.cpu_rng
        with pytest.raises((GPUError, RuntimeError), match=r"CPU|cpu"):
            take_steps(model, 1)

    def test_images_that_are_copied_while_the_program_waits(self) -> None:
        images = torch.zeros(2)
        with StepCheck() as check:
            check.placing_input = True
            images.to(GPU, non_blocking=True)
            with pytest.raises(GPUError, match="images are copied"):
                images.to(GPU)

    def test_layer_for_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Upsample, "forward", lambda layer, features: layer._as_matrix(len(features)))
        with pytest.raises(GPUError, match="blur by matrix products: a layer for the CPU"):
            take_steps(build(CUT), 1)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("method", "flags"),
    [
        pytest.param(method, flags, marks=pytest.mark.slow if flags and method != "CUT" else [])
        for method, budget in BUDGET.items()
        for flags in budget
    ],
)
def test_step_keeps_its_launch_budget(method: str, flags: str) -> None:
    check = take_steps(build(f"{PUBLISHED_SIZE[method]} {flags}"), 2)
    assert check.launches <= BUDGET[method][flags], check.counts.most_common(20)
