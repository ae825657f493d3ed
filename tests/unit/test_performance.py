"""Faster ways to compute a network, against the step as it is written; and which flags go together."""

import re
import shutil
import warnings
from argparse import Namespace

import pytest
import torch
from tiny_models import CUT, CYCLE_GAN, SINCUT, assert_same, double_model, random_batch, take_step, tiny_model

from models import MODELS
from models.performance import PerformanceConfig, configure_backend, resolve_performance_config
from options import TestOptions, TrainOptions
from util.errors import UserError


def resolve(opt: Namespace) -> PerformanceConfig:
    """Return the performance options on the CPU."""
    return resolve_performance_config(opt, torch.device("cpu"), MODELS[opt.model].cuda_graph_blocker)


METHODS = [CUT, f"{CUT} --CUT_mode FastCUT", f"{CUT} --normG none --no_antialias", SINCUT, CYCLE_GAN]

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")


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


def test_noise_is_compiled_without_a_warning() -> None:
    """Use the "eager" backend: all warnings about the code come from the compiler's front end."""
    network = tiny_model(SINCUT).networks["G"]
    with warnings.catch_warnings(record=True) as warned:
        torch.compile(network, backend="eager", dynamic=False)(torch.zeros(1, 3, 64, 64))
    assert [str(warning.message) for warning in warned if "Dynamo" in str(warning.message)] == []


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
        assert {image.dtype for image in model.get_current_visuals().values()} == {torch.float32}

    def test_penalties_see_the_plain_discriminator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        monkeypatch.setattr(
            "models.sincut_model.r1_penalty",
            lambda discriminator, real: seen.append(discriminator(real).dtype) or real.new_zeros(()),
        )
        take_step(tiny_model(f"{SINCUT} --precision bf16"))
        assert seen == [torch.float32]


class TestCommandLines:
    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ("--cuda_graphs --accumulate 2", "--cuda_graphs: incompatible with --accumulate"),
            ("--cuda_graphs --grad_checkpoint --no_dropout false", "Leave out one of them"),
            ("--model cycle_gan --netG unet_128 --grad_checkpoint", "not supported by --netG unet_128"),
            ("--normG batch --grad_checkpoint", "would count batches twice"),
            ("--normD batch --accumulate 2", "incompatible with batch norm"),
            ("--no_dropout false --accumulate 2", "incompatible with dropout"),
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
            ("--precision tf32", "--precision tf32: needs an NVIDIA GPU"),
            ("--cuda_graphs", "--cuda_graphs: needs an NVIDIA GPU"),
            ("--model cycle_gan --cuda_graphs", "Use --pool_size 0"),
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
        opt = TrainOptions().parse(["--fast", "--precision", "fp32", "--accumulate", "3"])
        chosen = resolve(opt)
        assert (chosen.precision, chosen.accumulate) == ("fp32", 3)
        assert resolve(TrainOptions().parse([])) == PerformanceConfig()
        assert resolve(TestOptions().parse([])) == PerformanceConfig()

    def test_fast_leaves_out_what_the_method_cannot(self, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        monkeypatch.setattr("models.performance._fast_preset", lambda device, is_train: {"cuda_graphs": True})
        monkeypatch.setattr("models.performance._unsupported", lambda config, device: None)
        command = ["--model", "cycle_gan", "--fast"]
        assert not resolve(TrainOptions().parse(command)).cuda_graphs
        assert "note: --fast leaves out --cuda_graphs: incompatible with the image pool" in capsys.readouterr().out
        assert resolve(TrainOptions().parse([*command, "--pool_size", "0"])).cuda_graphs
        assert resolve(TestOptions().parse(command)) == PerformanceConfig()  # a test has neither a step nor a pool
        assert capsys.readouterr().out == ""

    def test_fast_compiles_for_training_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("models.performance._unsupported", lambda config, device: None)
        gpu = torch.device("cuda", 0)
        for options, compiled in ((TrainOptions(), True), (TestOptions(), False)):
            config = resolve_performance_config(options.parse(["--fast"]), gpu, lambda opt: None)
            assert (config.compile, config.channels_last) == (compiled, True)

    def test_compiling_for_a_cpu_prints_that_it_is_slower(self, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        monkeypatch.setattr("models.performance._unsupported", lambda config, device: None)
        resolve(TrainOptions().parse(["--compile"]))
        assert "note: --compile: makes a step slower on a CPU" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("device", "is_train", "deterministic", "expected"),
        [
            ("cuda", True, False, True),
            ("cuda", True, True, False),
            ("cuda", False, False, False),
            ("cpu", True, False, False),
        ],
    )
    def test_cudnn_measures_its_algorithms_in_training(
        self, device: str, is_train: bool, deterministic: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
        configure_backend(torch.device(device), PerformanceConfig(), is_train)
        assert torch.backends.cudnn.benchmark is expected
