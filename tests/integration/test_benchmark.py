"""The benchmarks: the reference step computes the published step, and measurements are taken, stored and shown."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import measure_step
import numpy as np
import pytest
import reference_step
import results
import torch
from conftest import ROOT
from image_factory import two_domains
from programs import ENVIRONMENT
from tiny_models import CUT, TINY, TINY_HEADS, assert_same, random_batch, tiny_model
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from models.base_model import BaseModel
from options import TrainOptions
from util.errors import UserError

BENCHMARKS = ROOT / "scripts" / "benchmarks"
METHODS = {
    "cut": CUT,
    "fastcut": f"{CUT} --CUT_mode FastCUT",
    "sincut": "--model sincut --num_patches 8",
    "cycle_gan": f"--model cycle_gan {CUT}",
}


@pytest.mark.parametrize("command", METHODS.values(), ids=METHODS)
def test_reference_step_has_the_same_losses_and_gradients(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two images: for a single one, PyTorch's instance norm has wrong gradients on a CPU."""
    monkeypatch.setattr(np.random, "permutation", np.arange)
    monkeypatch.setattr(
        "models.networks.patch_sampler.sample_patch_ids", lambda features, count, generator: torch.arange(count)
    )
    monkeypatch.setattr("models.cut_model.sample_flip", lambda generator: True)
    ours = tiny_model(command)
    published = reference_step.REFERENCE_MODELS[ours.opt.model](ours.opt)
    for name, network in published.networks.items():
        network.load_state_dict(ours.networks[name].state_dict())
    for model in (ours, published):
        for network in model.networks.values():
            network.double()
        model.set_input(random_batch(ours))
        model.optimize_parameters()
    assert_same(published, ours)


def test_reference_step_runs_the_published_passes() -> None:
    opt = TrainOptions().parse([*TINY.split(), *TINY_HEADS.split(), *CUT.split()])
    model: BaseModel = reference_step.ReferenceCUT(opt)
    passes = []
    for name, network in model.networks.items():
        network.register_forward_pre_hook(lambda _, inputs, name=name: passes.append((name, torch.is_grad_enabled())))
    model.set_input(random_batch(model))
    model.optimize_parameters()
    assert all(with_graph for _, with_graph in passes), "keys are encoded with a graph"
    assert Counter(name for name, _ in passes) == {"G": 5, "D": 3, "F": 4}


def run_benchmark(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / program), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)


def fake_results(device: str, over_Y: float = 2.0, **more: Any) -> dict[str, Any]:
    """Results of a device on which only the default step was measured."""
    measured = {"seconds": [0.5, 0.7], "Y": [0.25] * 3, "ratios": [2.0, 2.8], "median": 0.6, "over_Y": over_Y}
    measured |= {"images_per_second": 1.7, "flops": 6e9, "peak_flops": 1e11, "precision": "fp32", "peak_GB": 1.0, **more}
    machine = {"device": device, "type": "cuda" if more else "cpu", "date": "2026-01-01", "python": "3.11", "torch": "2"}
    run = {"method": "cut", "size": 32, "batch": 1, "configs": {"default": measured, "fast": {"error": "out of memory"}}}
    return {"machine": machine, "runs": [run]}


def test_cases_are_measured_stored_and_shown(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, file, plot = tmp_path / "page.md", tmp_path / "results.json", tmp_path / "plot.png"
    page.write_text(f"before\n{results.END}\nafter\n")
    arguments = f"--device cpu --size 32 --rounds 2 --json {file} --plot {plot} --page {page} --ngf 2 --ndf 2"
    done = run_benchmark("benchmark.py", *arguments.split(), "--ways", "default", "as published")
    assert done.returncode == 0, done.stderr
    ((device, stored),) = json.loads(file.read_text()).items()
    (run,) = stored["runs"]
    assert list(run["configs"]) == ["as published", "default"]
    for measured in run["configs"].values():
        assert len(measured["seconds"]) == len(measured["ratios"]) == 2
        assert len(measured["Y"]) == 3
        assert min(measured["ratios"]) <= measured["over_Y"] <= max(measured["ratios"])
        assert measured["peak_GB"] > 0
        assert measured["flops"] > 0
    assert run["configs"]["as published"]["flops"] > run["configs"]["default"]["flops"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert results.BEGIN.format(device) in page.read_text()
    assert "| as published |" in page.read_text()
    assert "| as published |" in done.stdout


@pytest.mark.parametrize("program", ["benchmark.py", "benchmark_translate.py"])
def test_images_that_are_too_small_are_refused_in_one_line(program: str) -> None:
    arguments = {"benchmark.py": "--device cpu --ways default --ngf 2 --ndf 2", "benchmark_translate.py": "--gpu_ids -1"}
    done = run_benchmark(program, "--size", "1", "--rounds", "1", *arguments[program].split())
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_pipeline_of_translations_is_compared_with_the_generator() -> None:
    arguments = ("--netG", "resnet_4blocks", "--size", "16", "--images", "1", "--rounds", "1")
    done = run_benchmark("benchmark_translate.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "images per second from file to file" in done.stdout


def test_a_case_that_fails_does_not_end_the_others() -> None:
    table = results.markdown(fake_results("CPU"))
    assert "| default | 2.0 | 2.0 to 2.8 | 1.7 | 1.00 | 10 | 10% |" in table
    assert "| fast | failed: out of memory |" in table


def test_results_of_other_devices_are_kept(tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"before\n{results.END}\nafter\n")
    on_gpu = {"device_seconds": 0.1, "host_seconds": 0.2, "kernels": 42.0}
    for measured in (fake_results("CPU", 3.0), fake_results("GPU", 4.0, **on_gpu), fake_results("CPU", 5.0)):
        results.save_results(file, measured)
        results.replace_results(page, measured)
    stored = json.loads(file.read_text())
    assert list(stored) == ["CPU", "GPU"]
    assert stored["CPU"]["runs"][0]["configs"]["default"]["over_Y"] == 5
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| default | 3.0 |" not in text
    assert "| default | 5.0 |" in text
    assert "| default | 4.0 | 2.0 to 2.8 | 1.7 | 1.00 | 10 | 10% | 600 | 100 | 200 | 42 |" in text


def test_a_page_without_a_section_for_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("no section")
    with pytest.raises(UserError, match=r"page\.md: no section for benchmark results\. Add "):
        results.replace_results(tmp_path / "page.md", fake_results("CPU"))


def test_kernels_are_counted_and_their_times_added() -> None:
    """With the operators of a CPU in place of the kernels of a GPU."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler, torch.profiler.record_function("annotation"):
        for _ in range(4):
            torch.neg(torch.ones(()))
    names = Counter(event.name for event in profiler.events())
    assert names["aten::neg"] == 4
    per_step = measure_step.sum_events(profiler.events(), DeviceType.CPU, steps=2)
    assert per_step["kernels"] == (names.total() - names["annotation"]) / 2
    assert per_step["device_seconds"] > 0
    assert measure_step.sum_events(profiler.events(), DeviceType.CUDA, steps=2)["kernels"] == 0


def test_losses_of_both_precisions_are_compared(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=2, n_B=2, size=(32, 32))
    table = tmp_path / "new" / "table.csv"
    arguments = f"--steps 3 --csv {table} --dataroot {tmp_path / 'data'} --num_threads 0 {TINY} {TINY_HEADS} {CUT}"
    done = run_benchmark("compare_precision.py", *arguments.split())
    assert done.returncode == 0, done.stderr
    head, values = table.read_text().splitlines()
    assert head.startswith('steps,G_GAN (fp32),G_GAN (bf16),"G_GAN (fp32, other seed)",')
    fp32, bf16, other = map(float, values.split(",")[1:4])
    assert bf16 == pytest.approx(fp32, rel=0.1)
    assert len({fp32, bf16, other}) > 1
