"""Registry of metrics, and the evaluator that computes the requested ones.

To add a metric, write a file with its `MetricSpec` (see base.py) and add a line to METRICS. The option, evaluation during
training, scripts/evaluate.py, plots and tables follow from the entry. docs/extending.md has an example.
"""

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from util.errors import UserError
from util.metrics import distances, faithfulness, paired
from util.metrics.base import EvalImages, Kind, Metric, MetricResult, MetricSpec
from util.metrics.feature_extractors import WeightsAbsentError
from util.runtime.rng import fork_rng_seeded

METRICS: dict[str, MetricSpec] = {  # option name -> spec, in the order of tables and logs
    "inception": distances.INCEPTION_SPEC,
    "features": distances.FEATURES_SPEC,
    "paired": paired.PAIRED_SPEC,
    "lpips": paired.LPIPS_SPEC,
    "faithfulness": faithfulness.FAITHFULNESS_SPEC,
}
TERMINAL_WIDTH = 80  # columns


class MetricEvaluator:
    """Computes metrics of a set of translations.

    Args:
        metrics: the metrics to compute, by their keys in METRICS.
        seed: stored with the results.
    """

    def __init__(self, metrics: Mapping[str, Metric], seed: int) -> None:
        self.metrics = metrics
        self.seed = seed

    def needs(self, kind: Kind) -> bool:
        """Return True if a metric of this kind is computed."""
        return any(METRICS[key].kind == kind for key in self.metrics)

    def check_computes(self, metric: str, requested: Iterable[str] = ()) -> None:
        """Raise UserError unless this metric, without its variant, is computed.

        `requested` are the keys of the metrics that the command line asks for, with those whose weights are unavailable.
        """
        computed = list(dict.fromkeys(name for key in self.metrics for name in METRICS[key].lower_is_better))
        if not self.needs("faithfulness"):  # the structure distance needs a network and the sources
            computed = [name for name in computed if name != distances.STRUCTURE]
        if metric not in computed:
            others = f", or use one of {', '.join(computed)}" if computed else ""
            for key in requested:
                if key not in self.metrics and metric in METRICS[key].lower_is_better:
                    raise UserError(f"--best_by {metric}: the weights of --{key} are unavailable. Copy them here{others}.")
            options = " or ".join(f"--{key}" for key, spec in METRICS.items() if metric in spec.lower_is_better)
            if metric == distances.STRUCTURE:
                options = f"--faithfulness with {options}"
            raise UserError(f"--best_by {metric}: not computed. Add {options}{others}.")

    def evaluate(self, images: EvalImages, split: str) -> list[MetricResult]:
        """Compute all metrics.

        Args:
            images: the translations, and the images that the kinds of metrics in use compare them with.
            split: the part of the dataset that the translations come from; stored with the results.
        Raises:
            UserError: there are too few images, or an image has the wrong size.
        """
        settings = {"split": split, "pictures": len(images.results), "seed": self.seed}
        return [
            MetricResult(
                " ".join(filter(None, (found.metric, found.variant))),
                found.value,
                METRICS[key].lower_is_better[found.metric],
                settings | channels | dict(found.settings),
                found.std,
                found.metric,
            )
            for key, metric in self.metrics.items()
            for channels in [self._channels(key, images)]
            for found in metric.measure(images)
        ]

    @staticmethod
    def _channels(key: str, images: EvalImages) -> dict[str, str]:
        """Return the setting that says which channels a metric uses, and the value range."""
        if not images.channels:
            return {}
        used = "all" if METRICS[key].uses_all_channels else "shown"
        return {"channels": images.channels[used], "value_range": images.channels["value_range"]}


def create_evaluator(
    config: Mapping[str, Any],
    seed: int,
    device: torch.device,
    on_missing_weights: Callable[[WeightsAbsentError], None] | None = None,
) -> MetricEvaluator:
    """Create an evaluator, and load or download the pretrained networks that its metrics need.

    The random state stays unchanged.

    Args:
        config: option values by their keys in METRICS.
        seed: seed of metrics that sample, such as KID.
        device: where networks are computed.
        on_missing_weights: called if pretrained weights are unavailable; that metric is then left out. None: raise.
    Raises:
        UserError: a package is not installed, or a file does not contain the expected weights.
        WeightsAbsentError: weights are unavailable and `on_missing_weights` is None.
    """
    for key in config:
        for package in METRICS[key].packages:
            if importlib.util.find_spec(package) is None:
                name = package.replace("_", "-")
                raise UserError(f"--{key}: {name} is not installed. Install it with `pip install {name}`.")
    metrics = {}
    with fork_rng_seeded(seed):  # networks are initialized at random before their weights are loaded
        for key, value in config.items():
            try:
                metrics[key] = METRICS[key].load(value, device, seed)
            except WeightsAbsentError as error:
                if on_missing_weights is None:
                    raise
                on_missing_weights(error)
    return MetricEvaluator(metrics, seed)


def format_metric(result: MetricResult) -> str:
    """Return the value to four significant digits, with its standard deviation if it has one: "0.0125 ±0.003"."""
    std = "" if result.std is None else f" ±{float(f'{result.std:.2g}'):g}"
    return f"{result.value:.4g}{std}"


def metric_table(results: Mapping[str, Sequence[MetricResult]], counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return a text table with one row per metric and one column per title; an arrow shows the better direction.

    If the titles make it wider than 80 columns, numbers take their place, and lines above the table explain the numbers.

    Args:
        results: the metrics of each title, the same for all.
        counts: further rows above the metrics, by their headings: a number for each title.
    """
    names = [f"{result.name} {'↓' if result.lower_is_better else '↑'}" for result in next(iter(results.values()))]
    headings = ["", *counts, *names]
    columns: dict[str, list[str]] = {}
    for title, row in results.items():
        columns[title] = [*(str(count[title]) for count in counts.values()), *map(format_metric, row)]
    lines = _align([headings, *([title, *cells] for title, cells in columns.items())])
    if max(map(len, lines)) > TERMINAL_WIDTH:
        numbers = {title: f"({number})" for number, title in enumerate(columns, 1)}
        lines = [f"{number} {title}" for title, number in numbers.items()]
        lines += _align([headings, *([numbers[title], *cells] for title, cells in columns.items())])
    return "\n".join(lines)


def _align(columns: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column is aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return ["   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
