"""Geometry of tests and evaluations: with equal domains, the identity is perfect for every --preprocess."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from image_factory import noise
from PIL import Image
from torch import Tensor, nn

from data.eval_data import EvalDataset
from models.networks import GENERATORS, GeneratorSpec
from models.networks.base import Generator
from options import TrainOptions
from options.saved_options import save_options
from scripts.evaluate import evaluate, parse
from test import parse_with_saved_options
from test import test as translate
from util.metrics.evaluator import MetricEvaluator
from util.metrics.paired import PairedMetrics
from util.metrics.validation import Validator

SIZES = ["--load_size", "40", "--crop_size", "32"]
PREPROCESS = [
    *("resize_and_crop", "crop", "patch", "trim", "zoom", "zoom_and_patch", "scale_width", "scale_width_and_crop"),
    *("scale_shortside", "scale_shortside_and_crop", "fixsize_and_trim", "none"),
]
EXCESS = 1e-3  # saved values are truncated, so an identity adds a fraction of a level


class Identity(Generator):
    """Return the image itself, for any size."""

    size_multiple = min_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.excess = nn.Parameter(torch.tensor(EXCESS))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.excess


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add the generator to the choices of --netG."""
    monkeypatch.setitem(GENERATORS, "identity", GeneratorSpec(Identity, lambda config: Identity()))
    yield


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """Write a dataset whose domains are equal, and weights of a run. Return the options of both."""
    for domain in ("testA", "testB"):
        (tmp_path / "data" / domain).mkdir(parents=True)
        for number, size in enumerate([(53, 48), (48, 61), (70, 49)]):
            noise(*size, seed=number).save(tmp_path / "data" / domain / f"{number}.png")
    (tmp_path / "checkpoints" / "run").mkdir(parents=True)
    torch.save({"excess": torch.tensor(EXCESS)}, tmp_path / "checkpoints" / "run" / "latest_net_G.pth")
    return ["--checkpoints_dir", str(tmp_path / "checkpoints"), "--name", "run", "--gpu_ids", "-1", "--netG", "identity"]


def metrics_of_test(folder: Path, run: list[str], *arguments: str) -> dict[str, float | None]:
    """Return the paired metrics that evaluate.py computes from the page of test.py."""
    data = ["--dataroot", str(folder / "data"), "--results_dir", str(folder / "results"), "--num_threads", "0"]
    translate(parse_with_saved_options([*run, *data, *arguments]))
    page = str(folder / "results" / "run" / "test_latest")
    evaluate(parse(["--results", page, "--dataroot", str(folder / "data"), "--paired", "--gpu_ids", "-1"]))
    entries = json.loads((Path(page) / "evaluation.json").read_text())
    assert [figure["pairs"] for figure in entries[-1]["figures"]] == [3, 3]
    return {figure["name"]: figure["value"] for figure in entries[-1]["figures"]}


def metrics_in_training(run: list[str], folder: Path, *arguments: str) -> dict[str, float]:
    """Return the paired metrics of an evaluation during training."""
    opt = TrainOptions().parse([*run, "--dataroot", str(folder / "data"), *arguments])
    logged: list[dict[str, float]] = []

    class Log:
        pause_timer = staticmethod(nullcontext)

        def print(self, line: str) -> None: ...

        def log_metrics(self, values: dict[str, float], results: list) -> None:
            logged.append(values)

    evaluator = MetricEvaluator({"paired": PairedMetrics()}, seed=0)
    Validator(evaluator, EvalDataset(opt), {"G": Identity()}, lambda name: None, torch.device("cpu")).run(1, 4, Log())
    return logged[0]


@pytest.mark.parametrize("preprocess", PREPROCESS)
def test_the_identity_is_perfect_for_equal_domains(tmp_path: Path, run: list[str], preprocess: str) -> None:
    """For the geometry of a run, for the same --preprocess given to test.py, and during training."""
    arguments = ["--preprocess", preprocess, *SIZES]
    perfect = {"PSNR": None, "SSIM": pytest.approx(1)}  # infinity is null in JSON
    assert metrics_of_test(tmp_path, run, *arguments) == perfect
    assert metrics_in_training(run, tmp_path, *arguments) == {"PSNR": np.inf, "SSIM": pytest.approx(1)}
    save_options(TrainOptions().parse([*run, *arguments]), tmp_path / "checkpoints" / "run")
    assert metrics_of_test(tmp_path, run) == perfect


def test_a_run_trained_on_crops_translates_whole_images(
    tmp_path: Path, run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_options(TrainOptions().parse([*run, "--preprocess", "crop", *SIZES]), tmp_path / "checkpoints" / "run")
    metrics_of_test(tmp_path, run)
    assert "\nsize:     tested on whole images, trained on crops of 32 px\n" in capsys.readouterr().out
    sizes = [Image.open(path).size for path in sorted((tmp_path / "results").rglob("fake_B/*.png"))]
    assert sizes == [(52, 48), (48, 60), (72, 48)]  # multiples of 4


def test_a_crop_given_to_a_test_is_the_center(tmp_path: Path, run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    metrics_of_test(tmp_path, run, "--preprocess", "crop", *SIZES)
    assert "\nsize:     tested on the central 32 px\n" in capsys.readouterr().out
    for number, box in enumerate([(10, 8, 42, 40), (8, 14, 40, 46), (19, 8, 51, 40)]):
        saved = tmp_path / "results" / "run" / "test_latest" / "images" / "fake_B" / f"{number}.png"
        with Image.open(tmp_path / "data" / "testA" / f"{number}.png") as source, Image.open(saved) as result:
            assert np.array_equal(np.asarray(source.crop(box)), np.asarray(result))


@pytest.mark.parametrize("preprocess", ["zoom_and_patch", "zoom_and_crop", "none"])
def test_a_test_of_sincut_is_not_random(tmp_path: Path, run: list[str], preprocess: str) -> None:
    image = noise(48, 52)
    for domain in ("trainA", "trainB"):
        (tmp_path / "data" / domain).mkdir()
        image.save(tmp_path / "data" / domain / "image.png")
    results = []
    for seed in ("0", "1"):
        arguments = ["--model", "sincut", "--preprocess", preprocess, *SIZES, "--seed", seed]
        translate(parse_with_saved_options([*run, "--dataroot", str(tmp_path / "data"), *arguments, *output(tmp_path)]))
        page = tmp_path / "results" / "run" / "test_latest"
        results.append(np.asarray(Image.open(page / "images" / "fake_B" / "image.png")))
        evaluate(parse(["--results", str(page), "--real", str(tmp_path / "data" / "trainB"), "--paired", "--gpu_ids", "-1"]))
        figures = json.loads((page / "evaluation.json").read_text())[-1]["figures"]
        assert [figure["value"] for figure in figures] == [None, pytest.approx(1)]
    assert np.array_equal(*results)


def output(folder: Path) -> list[str]:
    return ["--results_dir", str(folder / "results"), "--num_threads", "0"]
