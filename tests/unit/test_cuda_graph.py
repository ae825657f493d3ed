"""CUDA graph execution of a training step, compared with eager execution."""

from collections.abc import Callable

import pytest
import torch
from tiny_models import CUT, CYCLE_GAN, SINCUT, assert_same, double_model, everything, take_step, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from models.base_model import BaseModel
from models.networks.winograd import transforms
from models.training_step import GraphedStep
from util.runtime.cuda_graph import WARMUP_STEPS, GraphBackend, Outputs
from util.runtime.rng import GraphRNG

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class EagerBackend:
    """Replace a CUDA graph by the step itself: a replay runs the step again, checked by `CaptureCheck`."""

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self.replays = 0

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        return step()

    def capture(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        def replay() -> Outputs:
            self.replays += 1
            with CaptureCheck(allowed=static_tensors(self.model), device_rng=self.model.rng.device_rng):
                return step()

        return replay


class ConstantBackend:
    """Replace a CUDA graph by its first outputs: a replay computes nothing and runs no Python of the step."""

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        return step()

    def capture(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        outputs = step()
        return lambda: outputs


def static_tensors(model: BaseModel) -> list[torch.Tensor]:
    """Return the tensors that keep their memory from step to step.

    These are weights, gradients, optimizer state, static inputs, and the constants of the convolutions for the CPU.
    """
    tensors = [*transforms(torch.float32), *transforms(torch.float64)]
    tensors += [t for network in model.networks.values() for t in (*network.parameters(), *network.buffers())]
    tensors += [p.grad for network in model.networks.values() for p in network.parameters() if p.grad is not None]
    tensors += model.lecam.averages.values() if model.lecam else []
    for optimizer in model.optimizers.values():
        tensors += [value for state in optimizer.state.values() for value in state.values()]
    for entry in model.step.graphs.graphs.values():
        tensors += entry.inputs.values()
    return tensors


class CaptureCheck(TorchDispatchMode):
    """Fail if the body does what a CUDA graph cannot hold: wait for the device, sample from another generator than the
    device's, or read a tensor that is not static."""

    WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "unique")
    RANDOM_OPS = ("rand", "bernoulli", "uniform", "normal_", "multinomial", "dropout")

    def __init__(self, allowed: list[torch.Tensor], device_rng: torch.Generator) -> None:
        super().__init__()
        self.device_rng = device_rng
        self.allowed = {tensor.untyped_storage().data_ptr() for tensor in allowed}
        self.created: list[torch.Tensor] = []  # referenced, so that no address is reused

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        assert name not in self.WAITS, f"{name} waits for the device"
        for tensor in tensors_in((args, kwargs)):
            assert tensor.untyped_storage().data_ptr() in self.allowed, f"{name} reads a tensor that moves: {tensor.shape}"
        before = self.device_rng.get_state()
        result = function(*args, **(kwargs or {}))
        if name.startswith(self.RANDOM_OPS):
            assert not torch.equal(self.device_rng.get_state(), before), f"{name} samples from another generator"
        for tensor in tensors_in(result):
            self.created.append(tensor)
            self.allowed.add(tensor.untyped_storage().data_ptr())
        return result


def tensors_in(value: object) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def use_graphs(model: BaseModel, backend: GraphBackend) -> None:
    """Make the model run its steps through `backend`. Networks keep the generators that they were built with."""
    rng = GraphRNG(model.device, seed=0)
    rng.device_rng, rng.cpu_rng = model.rng.device_rng, model.rng.cpu_rng
    model.rng = rng
    model.step = GraphedStep(model, backend)


class TestGraphedSteps:
    @pytest.mark.parametrize(
        ("method", "steps"),
        [
            (CUT, WARMUP_STEPS + 2),
            (f"{CUT} --CUT_mode FastCUT", 2 * WARMUP_STEPS + 6),
            (f"{CUT} --netF reshape", WARMUP_STEPS + 2),
            (f"{CUT} --normG batch --normD batch", WARMUP_STEPS + 2),
            (f"{CUT} --diffaugment --lambda_lecam 0.1 --gan_mode hinge --spectral_norm_D", WARMUP_STEPS + 2),
            (f"{CUT} --batch_size 2 --warm_up_D 10 --lr_warm_up 20", 2 * WARMUP_STEPS + 6),
            (f"{CYCLE_GAN} --pool_size 0", WARMUP_STEPS + 2),
            (SINCUT, WARMUP_STEPS + 2),
            (f"{SINCUT} --netG smallstylegan2", WARMUP_STEPS + 2),
            (f"{CUT} --CUT_mode FastCUT --gan_mode wgangp --lambda_gp 1", 2 * WARMUP_STEPS + 6),
        ],
    )
    def test_equal_eager_steps(self, method: str, steps: int) -> None:
        plain, model = double_model(method), double_model(method)
        backend = EagerBackend(model)
        use_graphs(model, backend)
        for seed in range(steps):
            for each in (plain, model):
                take_step(each, size=2, seed=seed)
            assert_same(model, plain)
            assert torch.equal(model.get_current_visuals()["real_A"], plain.real_A)
        assert torch.equal(everything(model), everything(plain))
        assert backend.replays >= 2

    def test_every_branch_and_size_has_its_own_graph(self) -> None:
        model = tiny_model(f"{CUT} --CUT_mode FastCUT")
        backend = EagerBackend(model)
        use_graphs(model, backend)
        for seed in range(8 * WARMUP_STEPS):
            take_step(model, size=1 + seed % 2, seed=seed)
        flips = {key[1] for key, entry in model.step.graphs.graphs.items() if entry.replay}
        assert flips == {(True,), (False,)}
        assert backend.replays > 4

    def test_display_images_of_a_replay_are_unflipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A replay runs no Python: it must not use the flip that the capture of another graph left behind."""
        flips = [bool(seed % 2) for seed in range(2 * WARMUP_STEPS + 8)]
        coming = iter(flips)
        monkeypatch.setattr("models.cut_model.sample_flip", lambda generator: next(coming))
        model = tiny_model(f"{CUT} --CUT_mode FastCUT")
        use_graphs(model, ConstantBackend())
        for seed, flipped in enumerate(flips):
            take_step(model, seed=seed)
            shown, upright = (visuals["fake_B"] for visuals in (model.get_current_visuals(), model.visuals_for_display()))
            assert torch.equal(upright, shown.flip(3) if flipped else shown)
        assert all(entry.replay for key, entry in model.step.graphs.graphs.items() if key[1])

    def test_learning_rate_changes_in_place(self) -> None:
        """A captured optimizer reads the learning rate from a tensor."""
        model = tiny_model(f"{CUT} --n_epochs 0 --n_epochs_decay 3")
        (group,) = model.optimizers["G"].param_groups
        place = group["lr"] = torch.tensor(group["lr"])
        model.update_learning_rate()
        assert group["lr"] is place
        assert place.item() == pytest.approx(model.learning_rate)

    @needs_gpu
    @pytest.mark.parametrize("method", [CUT, f"{CUT} --CUT_mode FastCUT", SINCUT, f"{CYCLE_GAN} --pool_size 0"])
    @pytest.mark.parametrize("flags", ["", "--channels_last --grad_checkpoint", "--precision bf16", "--compile"])
    def test_on_a_gpu(self, method: str, flags: str) -> None:
        """A model whose graphs are replayed learns what a model without graphs learns.

        Atomic additions in backward passes round differently each time. In float32 this leaves differences of 3e-4 of a loss
        after these steps; in bfloat16 the steps amplify it more.
        """
        command = f"{method} {flags}"
        models = [tiny_model(f"{command} {graphs}", gpu_ids=0) for graphs in ("", "--cuda_graphs")]
        for seed in range(3 * WARMUP_STEPS + 4):
            for model in models:
                take_step(model, size=2, seed=seed)
        plain, graphs = models
        assert any(entry.replay for entry in graphs.step.graphs.graphs.values())
        tolerance = {"rel": 0.05, "abs": 0.02} if "bf16" in flags else {"rel": 2e-3, "abs": 1e-3}
        for name in plain.loss_names:
            assert graphs.losses[name].item() == pytest.approx(plain.losses[name].item(), **tolerance)
