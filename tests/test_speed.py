"""Faster ways to compute a step, against the step as it is written."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_cases import assert_close, assert_gradients
from test_cut_model import double_model, everything
from test_registries import random_batch, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from models.base_model import BaseModel
from models.networks.winograd import transforms
from models.speed import Speed, chosen_speed
from options import TestOptions, TrainOptions
from util.errors import UserError
from util.runtime.draws import KeptDraws
from util.runtime.recorded_steps import WARM_UP_STEPS, Outputs, RecordedSteps

CUT = "--netG resnet_4blocks --init_gain 0.5"
SINCUT = "--model sincut --ngf 1 --ndf 1 --load_size 64 --crop_size 64 --num_patches 1"
CYCLE_GAN = "--model cycle_gan --netG resnet_4blocks --init_gain 0.5"
METHODS = [CUT, f"{CUT} --CUT_mode FastCUT", f"{CUT} --normG none --no_antialias", SINCUT, CYCLE_GAN]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")


def take_step(model: BaseModel, size: int = 1, seed: int = 0) -> None:
    model.set_input(random_batch(model, size, seed))
    model.optimize_parameters()


def gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(0) if p.grad is None else p.grad for key, p in network.named_parameters()}


def assert_same(found: BaseModel, expected: BaseModel) -> None:
    """Their last steps had the same losses and gradients."""
    for name in expected.loss_names:
        assert_close(name, found.losses[name], expected.losses[name])
    for name, network in expected.networks.items():
        assert_gradients(name, dict(found.networks[name].named_parameters()), gradients(network))


class TestEqualsThePlainStep:
    """In float64, at batch 1, where PyTorch's own instance norm would be wrong in channels-last."""

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("flags", ["--channels_last", "--grad_checkpoint", "--channels_last --grad_checkpoint"])
    def test_in_one_process(self, method: str, flags: str) -> None:
        plain, faster = double_model(method), double_model(f"{method} {flags}")
        for seed in range(2):
            for model in (plain, faster):
                take_step(model, seed=seed)
            assert_same(faster, plain)

    def test_dropout_is_recomputed_as_it_was(self) -> None:
        models = [double_model(f"{CUT} --no_dropout false {flag}") for flag in ("", "--grad_checkpoint")]
        for model in models:
            torch.manual_seed(0)
            take_step(model)
        assert_same(models[1], models[0])

    @pytest.mark.slow
    @needs_compiler
    @pytest.mark.parametrize("method", [CUT, SINCUT, CYCLE_GAN])
    @pytest.mark.parametrize("flags", ["", "--channels_last", "--grad_checkpoint"])
    def test_compiled(self, method: str, flags: str) -> None:
        plain, compiled = double_model(method), double_model(f"{method} --compile {flags}")
        for model in (plain, compiled):
            take_step(model)
        assert_same(compiled, plain)


def test_channels_last_is_the_layout_that_is_computed_in() -> None:
    model = tiny_model(f"{CUT} --channels_last")
    seen = []
    model.networks["G"].model[4].register_forward_hook(
        lambda _, inputs, output: seen.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    take_step(model)
    assert seen
    assert all(seen)


def test_recomputation_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {}
    for flag in ("", "--grad_checkpoint"):
        model = tiny_model(f"{CUT} {flag}")
        model.set_input(random_batch(model, 1))
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, sizes: dict = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.forward()
        kept[flag] = sum(sizes.values())
    assert kept["--grad_checkpoint"] < kept[""] / 2


class TestBfloat16:
    @pytest.mark.parametrize("method", [CUT, f"{CUT} --netF sample", SINCUT, CYCLE_GAN])
    def test_networks_compute_in_it_and_all_else_in_float32(self, method: str) -> None:
        plain, model = tiny_model(method), tiny_model(f"{method} --precision bf16")
        seen = {}
        for name, network in model.networks.items():
            layers = [layer for layer in network.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
            for layer in layers[:1]:
                layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output.dtype}))
        for each in (plain, model):
            take_step(each)
        expected = {name: torch.float32 if name == "F" else torch.bfloat16 for name in seen}
        assert seen == expected
        for name in model.loss_names:
            assert model.losses[name].dtype == torch.float32
            assert model.losses[name].item() == pytest.approx(plain.losses[name].item(), rel=0.1, abs=0.05), name
        for network in model.networks.values():
            assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
        assert {picture.dtype for picture in model.get_current_visuals().values()} == {torch.float32}

    def test_penalties_see_the_plain_discriminator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        monkeypatch.setattr(
            "models.sincut_model.r1_penalty",
            lambda discriminator, real: seen.append(discriminator(real).dtype) or real.new_zeros(()),
        )
        take_step(tiny_model(f"{SINCUT} --precision bf16"))
        assert seen == [torch.float32]


class TestAccumulation:
    @pytest.fixture(autouse=True)
    def same_draws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For two batches as for the one that they are compared with."""
        positions = torch.tensor([3, 1, 4])
        monkeypatch.setattr("models.networks.patch_sampler.draw_positions", lambda features, count, generator: positions)
        monkeypatch.setattr("models.cut_model.draw_flip", lambda generator: True)

    @pytest.mark.parametrize("method", [CUT, f"{CUT} --CUT_mode FastCUT", CYCLE_GAN, f"{CUT} --grad_checkpoint"])
    def test_equals_one_large_batch(self, method: str) -> None:
        one, several = double_model(method), double_model(f"{method} --accumulate 2")
        for step in range(2):
            batch = random_batch(one, 2, seed=step)
            one.set_input(batch)
            one.optimize_parameters()
            before = everything(several)
            for row in range(2):
                assert torch.equal(everything(several), before), "nothing moves before all batches are there"
                several.set_input({name: values[row : row + 1] for name, values in batch.items()})
                several.optimize_parameters()
            assert_same(several, one)

    def test_batches_that_wait_outlast_an_interruption(self) -> None:
        straight, stopped, resumed = (double_model(f"{CUT} --accumulate 2") for _ in range(3))
        for seed in range(2):
            take_step(straight, seed=seed)
        take_step(stopped, seed=0)
        for name, thing in stopped.stateful.items():
            resumed.stateful[name].load_state_dict(thing.state_dict())
        resumed.steps_done = stopped.steps_done
        take_step(resumed, seed=1)
        assert torch.equal(everything(resumed), everything(straight))

    def test_a_run_goes_on_with_another_number_of_batches(self, tmp_path: Path) -> None:
        """With fewer than wait already, the next one completes the step, in which all weigh the same."""
        straight = double_model(f"{CUT} --accumulate 3")
        stopped, resumed = (double_model(f"{CUT} --accumulate {n}", checkpoints_dir=tmp_path, name="run") for n in (3, 2))
        for seed in range(3):
            take_step(straight, seed=seed)
        for seed in range(2):
            take_step(stopped, seed=seed)
        stopped.save_run("latest")
        assert resumed.resume()
        take_step(resumed, seed=2)
        assert torch.equal(everything(resumed), everything(straight))

    def test_a_run_may_begin_to_accumulate_when_it_goes_on(self, tmp_path: Path) -> None:
        stopped, resumed = (
            double_model(f"{CUT} {flag}", checkpoints_dir=tmp_path, name="run") for flag in ("", "--accumulate 2")
        )
        take_step(stopped)
        stopped.save_run("latest")
        assert resumed.resume()
        assert torch.equal(everything(resumed), everything(stopped))

    def test_pictures_of_one_of_several_processes_are_not_kept_for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = double_model(f"{CUT} --accumulate 2")
        take_step(model)
        assert len(model.stateful["accumulation"].state_dict()["waiting"]) == 1
        monkeypatch.setattr("models.accumulation.world_size", lambda: 2)
        assert model.stateful["accumulation"].state_dict()["waiting"] == []


class StandIn:
    """In place of a CUDA graph: what is played back is the step, computed again under the eyes of `Watch`."""

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self.played = 0

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        return step()

    def record(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        def play() -> Outputs:
            self.played += 1
            with Watch(allowed=static_tensors(self.model)):
                return step()

        return play


class Tape:
    """In place of a CUDA graph: what is played back is what the recorded step has left, and nothing is computed."""

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        return step()

    def record(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        outputs = step()
        return lambda: outputs


def static_tensors(model: BaseModel) -> list[torch.Tensor]:
    """What stays in its place from step to step: weights and moments, pictures and draws, and the constants of the
    convolutions that are for the CPU alone."""
    tensors = [*transforms(torch.float32), *transforms(torch.float64)]
    tensors += [t for network in model.networks.values() for t in (*network.parameters(), *network.buffers())]
    tensors += [p.grad for network in model.networks.values() for p in network.parameters() if p.grad is not None]
    for optimizer in model.optimizers.values():
        tensors += [value for state in optimizer.state.values() for value in state.values()]
    for course in model.run_step.courses.values():
        tensors += [*course.inputs.values(), *(tensor for kept in course.kept for tensor in kept.tensors)]
    return tensors


class Watch(TorchDispatchMode):
    """Fails where the body does what no CUDA graph can hold: waits for the device, draws, or reads what is not in place."""

    WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "unique")
    DRAWS = ("rand", "bernoulli", "uniform", "normal_", "multinomial", "dropout")

    def __init__(self, allowed: list[torch.Tensor]) -> None:
        super().__init__()
        self.allowed = {tensor.untyped_storage().data_ptr() for tensor in allowed}
        self.kept: list[torch.Tensor] = []  # so that no storage is freed, and its address used again

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        assert name not in self.WAITS, f"{name} waits for the device"
        assert not name.startswith(self.DRAWS), f"{name} draws"
        for tensor in tensors_in((args, kwargs)):
            assert tensor.untyped_storage().data_ptr() in self.allowed, f"{name} reads what is not in place: {tensor.shape}"
        result = function(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self.kept.append(tensor)
            self.allowed.add(tensor.untyped_storage().data_ptr())
        return result


def tensors_in(value: object) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def recorded(model: BaseModel) -> StandIn:
    """Makes the model record its steps, with the stand-in."""
    recorder = StandIn(model)
    model.draws = KeptDraws(model.generator, model.host_generator)
    model.run_step = RecordedSteps(model.compute_step, model.draws, recorder)
    return recorder


class TestRecordedSteps:
    @pytest.mark.parametrize(
        ("method", "steps"),
        [
            (CUT, WARM_UP_STEPS + 2),
            (f"{CUT} --CUT_mode FastCUT", 2 * WARM_UP_STEPS + 6),
            (f"{CUT} --netF reshape", WARM_UP_STEPS + 2),
            (f"{CUT} --normG batch --normD batch", WARM_UP_STEPS + 2),
            (f"{CYCLE_GAN} --pool_size 0", WARM_UP_STEPS + 2),
            ("--model sincut --netG smallstylegan2", WARM_UP_STEPS + 2),
        ],
    )
    def test_equal_plain_ones(self, method: str, steps: int) -> None:
        plain, model = double_model(method), double_model(method)
        recorder = recorded(model)
        for seed in range(steps):
            for each in (plain, model):
                take_step(each, seed=seed)
            assert_same(model, plain)
            assert torch.equal(model.get_current_visuals()["real_A"], plain.real_A)
        assert torch.equal(everything(model), everything(plain))
        assert recorder.played >= 2

    def test_every_course_and_size_has_its_own(self) -> None:
        model = tiny_model(f"{CUT} --CUT_mode FastCUT")
        recorder = recorded(model)
        for seed in range(8 * WARM_UP_STEPS):
            take_step(model, size=1 + seed % 2, seed=seed)
        flips = {key[1] for key, course in model.run_step.courses.items() if course.play}
        assert flips == {(True,), (False,)}
        assert recorder.played > 4

    def test_pictures_of_a_playback_are_turned_back_as_those_of_the_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A graph runs no Python: the playback of one course must not find what the recording of another has left."""
        flips = [bool(seed % 2) for seed in range(2 * WARM_UP_STEPS + 8)]
        coming = iter(flips)
        monkeypatch.setattr("models.cut_model.draw_flip", lambda generator: next(coming))
        model = tiny_model(f"{CUT} --CUT_mode FastCUT")
        model.draws = KeptDraws(model.generator, model.host_generator)
        model.run_step = RecordedSteps(model.compute_step, model.draws, Tape())
        for seed, flipped in enumerate(flips):
            take_step(model, seed=seed)
            shown, upright = (visuals["fake_B"] for visuals in (model.get_current_visuals(), model.upright_visuals()))
            assert torch.equal(upright, shown.flip(3) if flipped else shown)
        assert all(course.play for key, course in model.run_step.courses.items() if key[1])

    def test_learning_rate_changes_in_its_place(self) -> None:
        """As an optimiser that is recorded has it."""
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
        """Played back CUDA graphs learn what the steps do that are not recorded, to rounding."""
        command = f"{method} {flags}"
        models = [tiny_model(f"{command} {graphs}", gpu_ids=0) for graphs in ("", "--cuda_graphs")]
        for seed in range(3 * WARM_UP_STEPS + 4):
            for model in models:
                take_step(model, seed=seed)
        plain, graphs = models
        assert any(course.play for course in graphs.run_step.courses.values())
        for name in plain.loss_names:
            assert graphs.losses[name].item() == pytest.approx(plain.losses[name].item(), rel=0.05, abs=0.02)


class TestCommandLines:
    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ("--cuda_graphs --accumulate 2", "--cuda_graphs records a step of one batch"),
            ("--cuda_graphs --grad_checkpoint --no_dropout false", "leave out one of them"),
            ("--model cycle_gan --netG unet_128 --grad_checkpoint", "--netG unet_128 has none"),
            ("--normG batch --grad_checkpoint", "counts? every batch twice"),
            ("--normD batch --accumulate 2", "batch norm, which sees each alone"),
            ("--no_dropout false --accumulate 2", "dropout would make them two"),
            ("--precision fp16", "invalid choice: 'fp16'"),
            ("--accumulate 0", "at least 1"),
        ],
    )
    def test_what_does_not_go_together_is_refused_when_parsed(self, command: str, reason: str, capsys) -> None:
        with pytest.raises(SystemExit) as ending:
            TrainOptions().parse(command.split())
        assert ending.value.code == 2
        assert re.search(reason, capsys.readouterr().err)

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ("--precision tf32", "number format of NVIDIA GPUs"),
            ("--cuda_graphs", "needs an NVIDIA GPU; leave it out"),
            ("--model cycle_gan --cuda_graphs", "give --pool_size 0"),
        ],
    )
    def test_what_method_or_machine_cannot_is_refused_when_the_model_is_built(self, command: str, reason: str) -> None:
        with pytest.raises(UserError, match=reason):
            tiny_model(command)

    def test_compilation_without_a_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(UserError, match=r"neither g\+\+ nor clang\+\+"):
            tiny_model("--compile")

    def test_fast_leaves_what_is_given(self) -> None:
        cpu = torch.device("cpu")
        chosen = chosen_speed(TrainOptions().parse(["--fast", "--precision", "fp32", "--accumulate", "3"]), cpu)
        assert (chosen.precision, chosen.accumulate) == ("fp32", 3)
        assert chosen_speed(TrainOptions().parse([]), cpu) == Speed()
        assert chosen_speed(TestOptions().parse([]), cpu) == Speed()
