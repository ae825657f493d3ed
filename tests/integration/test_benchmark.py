"""The benchmark's scripts: the published step is the published step, and what is measured is shown."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from tiny_models import CUT, TINY, TINY_HEADS, assert_same, random_batch, tiny_model

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))

import benchmark
import compare_precision
import reference_step
import results

from models.base_model import BaseModel
from options import TrainOptions
from util.errors import UserError

METHODS = {
    "cut": CUT,
    "fastcut": f"{CUT} --CUT_mode FastCUT",
    "sincut": "--model sincut --num_patches 8",
    "cycle_gan": f"--model cycle_gan {CUT}",
}


@pytest.mark.parametrize("command", METHODS.values(), ids=METHODS)
def test_published_step_has_the_same_losses_and_gradients(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pairs of images: alone, PyTorch's own instance norm would give it wrong gradients on a CPU."""
    monkeypatch.setattr(np.random, "permutation", np.arange)
    monkeypatch.setattr(
        "models.networks.patch_sampler.sample_patch_ids", lambda features, count, generator: torch.arange(count)
    )
    monkeypatch.setattr("models.cut_model.sample_flip", lambda generator: True)
    ours = tiny_model(command)
    published = reference_step.PUBLISHED[ours.opt.model](ours.opt)
    for name, network in published.networks.items():
        network.load_state_dict(ours.networks[name].state_dict())
    for model in (ours, published):
        for network in model.networks.values():
            network.double()
        model.set_input(random_batch(ours))
        model.optimize_parameters()
    assert_same(published, ours)


def test_published_step_makes_the_published_passes() -> None:
    opt = TrainOptions().parse([*TINY.split(), *TINY_HEADS.split(), *CUT.split()])
    model: BaseModel = reference_step.PublishedCUT(opt)
    passes = []
    for name, network in model.networks.items():
        network.register_forward_pre_hook(lambda _, inputs, name=name: passes.append((name, torch.is_grad_enabled())))
    model.set_input(random_batch(model))
    model.optimize_parameters()
    assert all(with_graph for _, with_graph in passes), "keys are encoded with a graph"
    assert Counter(name for name, _ in passes) == {"G": 5, "D": 3, "F": 4}


@pytest.mark.slow
def test_measures_shows_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("matplotlib")
    page, figures, plot = tmp_path / "page.md", tmp_path / "figures.json", tmp_path / "plot.png"
    page.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    command = f"benchmark.py --device cpu --size 32 --rounds 2 --json {figures} --plot {plot} --page {page} --ngf 2 --ndf 2"
    monkeypatch.setattr(sys, "argv", command.split())
    benchmark.main()
    (run,) = json.loads(figures.read_text())["runs"]
    assert list(run["ways"]) == benchmark.ON_CPU
    for found in run["ways"].values():
        assert len(found["seconds"]) == 2
        assert found["over_Y"] * run["Y"] == pytest.approx(found["median"])
        assert found["peak_GB"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| as published |" in text
    assert "not measured" in text


def test_loss_curves_of_both_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for domain in "AB":
        folder = tmp_path / f"train{domain}"
        folder.mkdir()
        for number in range(2):
            Image.effect_noise((32, 32), 100).convert("RGB").save(folder / f"{number}.png")
    table = tmp_path / "new" / "table.csv"
    command = f"compare_precision.py --steps 3 --csv {table} --dataroot {tmp_path} --num_threads 0 {TINY} {TINY_HEADS} {CUT}"
    monkeypatch.setattr(sys, "argv", command.split())
    compare_precision.main()
    head, values = table.read_text().splitlines()
    assert head.startswith('steps,G_GAN (fp32),G_GAN (bf16),"G_GAN (fp32, other draws)",')
    fp32, bf16, other = map(float, values.split(",")[1:4])
    assert bf16 == pytest.approx(fp32, rel=0.1)
    assert len({fp32, bf16, other}) > 1


def test_a_page_without_a_place_for_figures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(UserError, match="has no place for figures"):
        results.replace_figures(tmp_path / "page.md", "figures")
