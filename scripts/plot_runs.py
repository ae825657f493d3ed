"""Plot the metrics of several runs over time: `python scripts/plot_runs.py checkpoints/cut_* checkpoints/fastcut_*`.

Reads the metrics that evaluation during training stored (docs/evaluation.md). Runs whose names differ only in a final number
(demo_CUT_0, demo_CUT_1, ...) are seeds of one group. Prints a table of the last and the best values; several seeds give
mean ± standard deviation.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import CLIParser, configure_stdio
from util.errors import UserError, exit_on_user_error
from util.metrics.evaluator import METRICS
from util.plotting import figure_to_file
from util.train_log import metric_results, read_metrics


@dataclass
class MetricCurve:
    """Values of a metric in one run, each after so many training images."""

    lower_is_better: bool
    images: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    conditions: set[tuple[tuple[str, Any], ...]] = field(default_factory=set)  # of its values: `CONDITIONS`

    @property
    def last(self) -> float:
        return self.values[-1]

    @property
    def best(self) -> float:
        return (min if self.lower_is_better else max)(self.values)


# Settings of a metric whose values are comparable only if they are equal (docs/evaluation.md).
CONDITIONS = ("split", "pictures", "real_pictures", "resize", "network", "weights_sha256")
Group = dict[str, list[MetricCurve]]  # metric -> one curve per seed


def read_curves(run: Path) -> dict[str, MetricCurve]:
    """Return the curves of a run by metric. Raise UserError if there are none."""
    curves: dict[str, MetricCurve] = {}
    for row in read_metrics(run / "metrics.jsonl"):
        for name, result in metric_results(row).items():
            if result["value"] is not None:
                curve = curves.setdefault(name, MetricCurve(result["lower_is_better"]))
                curve.images.append(row["images"])
                curve.values.append(result["value"])
                curve.conditions.add(tuple((key, result[key]) for key in CONDITIONS if key in result))
    if not curves:
        flags = ", ".join(f"--{key}" for key in METRICS)
        raise UserError(f"{run}: no metrics. Train the run with at least one of {flags}.")
    return curves


def group_by_seed(runs: Sequence[Path]) -> dict[str, Group]:
    """Return the curves of the runs by group (the run's name without a final number) and metric.

    Raise UserError if two runs have the same name.
    """
    names = [run.resolve().name for run in runs]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{duplicates[0]}: two runs have this name. Give each run once, and rename one of two folders.")
    groups: dict[str, Group] = defaultdict(lambda: defaultdict(list))
    for name, run in zip(names, runs, strict=True):
        for metric, curve in read_curves(run).items():
            groups[re.sub(r"_\d+$", "", name)][metric].append(curve)
    return groups


def differing_conditions(groups: Mapping[str, Group]) -> Iterator[str]:
    """Yield a line for each metric whose values were measured under different conditions."""
    for name in dict.fromkeys(name for metrics in groups.values() for name in metrics):
        curves = [curve for metrics in groups.values() for curve in metrics.get(name, [])]
        conditions = [dict(condition) for curve in curves for condition in curve.conditions]
        for key in CONDITIONS:
            values = sorted({str(condition[key]) for condition in conditions if key in condition})
            if len(values) > 1:
                yield f"warning: {name}: {key} differs ({', '.join(values)}), so its values cannot be compared."


def mean_std(values: Sequence[float]) -> str:
    """Return the value, or mean ± standard deviation of several values."""
    std = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    return f"{fmean(values):.4g}{std}"


def table(groups: Mapping[str, Group]) -> str:
    """Return a Markdown table with one row per group and metric."""
    lines = ["| run | seeds | metric | last | best |", "|---|---:|---|---:|---:|"]
    for title, metrics in groups.items():
        for name, curves in metrics.items():
            last, best = (mean_std([getattr(curve, which) for curve in curves]) for which in ("last", "best"))
            arrow = "↓" if curves[0].lower_is_better else "↑"
            lines.append(f"| {title} | {len(curves)} | {name} {arrow} | {last} | {best} |")
    return "\n".join(lines)


def plot(groups: Mapping[str, Group], names: Sequence[str], path: Path) -> None:
    """Save a plot with one panel per metric, one color per group and one line per run."""
    with figure_to_file(path, 5 * len(names), 3.4) as figure:
        for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for index, (title, metrics) in enumerate(groups.items()):
                for seed, curve in enumerate(metrics.get(name, [])):
                    panel.plot(curve.images, curve.values, ".-", color=f"C{index}", label=None if seed else title)
            panel.set_title(name)
            panel.set_xlabel("images")
            panel.legend()


def main() -> None:
    configure_stdio()
    parser = CLIParser(description="Print and plot the metrics of several runs over time.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="run folders, such as checkpoints/demo_CUT_0")
    parser.add_argument("--figures", nargs="+", metavar="NAME", help="metrics, such as PSNR or 'FID of G_ema'; default: all")
    parser.add_argument("--plot", type=Path, help="file of the plot")
    with exit_on_user_error():
        arguments = parser.parse_args()
        groups = group_by_seed(arguments.runs)
        known = list(dict.fromkeys(name for metrics in groups.values() for name in metrics))
        for name in set(arguments.figures or []) - set(known):
            raise UserError(f"--figures {name}: no run has this metric. Choose from {', '.join(known)}.")
        names = arguments.figures or known
        chosen = {title: {name: metrics[name] for name in names if name in metrics} for title, metrics in groups.items()}
        print(table(chosen))
        for line in differing_conditions(chosen):
            print(line)
        if arguments.plot:
            plot(chosen, names, arguments.plot)


if __name__ == "__main__":
    main()
