"""The registry of metrics and the evaluator, for every metric in METRICS."""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from options.metric_options import add_metric_arguments, metric_config
from util.metrics.base import EvalImages, Measurement, MetricSpec
from util.metrics.distances import DistributionMetrics
from util.metrics.evaluator import METRICS, MetricEvaluator, create_evaluator, metric_table
from util.metrics.feature_extractors import FeatureExtractor, ReferenceSet

CPU = torch.device("cpu")
MISSING = "nowhere.pth"


def parse(*arguments: str) -> dict:
    parser = ArgumentParser()
    add_metric_arguments(parser)
    return metric_config(parser.parse_args(arguments))


def flags_of(key: str) -> list[str]:
    """Return arguments that request the metric: the flag, with a file name if it needs a value."""
    argument = METRICS[key].argument
    return [f"--{key}"] if "action" in argument or "nargs" in argument else [f"--{key}", MISSING]


def images(seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8))


def test_no_metric_is_requested_by_default() -> None:
    assert parse() == {}


@pytest.mark.parametrize("key", METRICS)
def test_every_metric_is_requested_by_its_option(key: str) -> None:
    assert list(parse(*flags_of(key))) == [key]
    assert METRICS[key].kind in ("distribution", "paired", "faithfulness")


@pytest.mark.parametrize("key", METRICS)
def test_every_metric_is_created_or_skipped_without_its_weights(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no server: downloads fail
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    skipped: list[Exception] = []
    evaluator = create_evaluator(parse(*flags_of(key)), 0, CPU, skipped.append)
    assert len(evaluator.metrics) + len(skipped) == 1
    assert evaluator.needs(METRICS[key].kind) == bool(evaluator.metrics)


def extractor(name: str) -> FeatureExtractor:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return FeatureExtractor(
        name, "0" * 64, ("clean", "legacy"), network, lambda image, _: torch.tensor(image.transpose(2, 0, 1)).float(), CPU
    )


@pytest.mark.parametrize(("key", "network"), [("inception", ""), ("features", " (tiny)")])
def test_distribution_metrics_have_their_names_and_directions(key: str, network: str) -> None:
    evaluator = MetricEvaluator({key: DistributionMetrics(extractor(network.strip(" ()") or "inception"), 0)}, 0)
    results = evaluator.evaluate(EvalImages(images(0), real=ReferenceSet(images(1))), "testB")
    assert {result.name: result.lower_is_better for result in results} == {
        f"FID{network}": True,
        f"FID legacy{network}": True,
        f"KID{network}": True,
        f"precision{network}": False,
        f"recall{network}": False,
    }
    assert list(results[0].to_row()) == [
        *("name", "value", "lower_is_better", "spread", "split", "pictures", "seed"),
        *("real_pictures", "network", "weights_sha256", "resize"),
    ]


def test_the_direction_comes_from_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Brightness:
        def measure(self, images: EvalImages) -> list[Measurement]:
            return [Measurement("bright", float(np.mean(images.results)), {}), Measurement("dark", 0.0, {}, variant="(x)")]

    spec = MetricSpec("paired", {"bright": False, "dark": True}, {"action": "store_true"}, lambda *_: Brightness())
    monkeypatch.setitem(METRICS, "brightness", spec)
    results = create_evaluator(parse("--brightness"), 0, CPU).evaluate(EvalImages(images(0)), "testB")
    assert [(result.name, result.lower_is_better) for result in results] == [("bright", False), ("dark (x)", True)]
    lines = metric_table({"run": results}, {"results": {"run": 5}}).splitlines()
    assert [line[:10].strip() for line in lines] == ["", "results", "bright ↑", "dark (x) ↓"]

    folder = "results/" + 70 * "x"
    lines = metric_table({"input": results, folder: results}, {"results": {"input": 5, folder: 5}}).splitlines()
    assert lines[:2] == ["(1) input", f"(2) {folder}"]
    assert lines[2].split() == ["(1)", "(2)"] and max(map(len, lines[2:])) <= 80
