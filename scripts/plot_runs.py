"""Plot the losses and metrics of several runs over time: `python scripts/plot_runs.py checkpoints/cut_* --plot cut.png`.

Prints a table of the last and the best values of the metrics that evaluation during training stored (docs/evaluation.md).
Runs whose names differ only in a final number (demo_CUT_0, demo_CUT_1, ...) are seeds of one group; several seeds give mean
± standard deviation.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

from util.cli import CLIParser, configure_stdio
from util.errors import UserError, exit_on_user_error
from util.files import prepare_output_file
from util.metrics.evaluator import METRICS
from util.plotting import figure_to_file
from util.terminal import print_line
from util.train_log import metric_results, read_metrics

PANELS_PER_ROW = 3
SMOOTHING = 0.95  # weight of the past in the moving average of a loss


@dataclass
class Curve:
    """Values of a loss or metric in one run, each after so many training images."""

    images: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, images: int, value: float) -> None:
        self.images.append(images)
        self.values.append(value)


@dataclass
class MetricCurve(Curve):
    """Values of a metric in one run."""

    lower_is_better: bool = False
    conditions: set[tuple[tuple[str, Any], ...]] = field(default_factory=set)  # of its values: `CONDITIONS`

    @property
    def last(self) -> float:
        return self.values[-1]

    @property
    def best(self) -> float:
        return (min if self.lower_is_better else max)(self.values)


# Settings of a metric whose values are comparable only if they are equal (docs/evaluation.md).
CONDITIONS = ("split", "pictures", "real_pictures", "resize", "network", "weights_sha256")
AnyCurve = TypeVar("AnyCurve", bound=Curve)
Group = dict[str, list[AnyCurve]]  # loss or metric -> one curve per seed


def read_metric_curves(run: Path) -> dict[str, MetricCurve]:
    """Return the curves of a run by metric."""
    curves: dict[str, MetricCurve] = {}
    for row in read_metrics(run / "metrics.jsonl"):
        for name, result in metric_results(row).items():
            if result["value"] is not None:
                curve = curves.setdefault(name, MetricCurve(lower_is_better=result["lower_is_better"]))
                curve.add(row["images"], result["value"])
                curve.conditions.add(tuple((key, result[key]) for key in CONDITIONS if key in result))
    return curves


def read_loss_curves(run: Path) -> dict[str, Curve]:
    """Return the curves of a run by loss."""
    curves: dict[str, Curve] = {}
    for row in read_metrics(run / "metrics.jsonl"):
        for name, value in row.get("losses", {}).items():
            if value is not None:  # not finite
                curves.setdefault(name, Curve()).add(row["images"], value)
    return curves


def check_runs(runs: Sequence[Path]) -> None:
    """Raise UserError if a run does not exist, or if two runs have the same name."""
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run}: no such folder. Check the path.")
    names = [run.resolve().name for run in runs]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{duplicates[0]}: two runs have this name. Give each run once, and rename one of two folders.")


def group_by_seed(runs: Sequence[Path], read: Callable[[Path], dict[str, AnyCurve]]) -> dict[str, Group[AnyCurve]]:
    """Return the curves that `read` finds by group (the run's name without a final number) and loss or metric."""
    groups: dict[str, Group[AnyCurve]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for name, curve in read(run).items():
            groups[re.sub(r"_\d+$", "", run.resolve().name)][name].append(curve)
    return groups


def find_names(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the losses or metrics of all groups, in the order of their first appearance."""
    return list(dict.fromkeys(name for curves in groups.values() for name in curves))


def differing_conditions(groups: Mapping[str, Group[MetricCurve]]) -> Iterator[str]:
    """Yield a line for each metric whose values were measured under different conditions."""
    for name in find_names(groups):
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


def table(groups: Mapping[str, Group[MetricCurve]]) -> str:
    """Return a Markdown table with one row per group and metric."""
    lines = ["| run | seeds | metric | last | best |", "|---|---:|---|---:|---:|"]
    for title, metrics in groups.items():
        for name, curves in metrics.items():
            last, best = (mean_std([getattr(curve, which) for curve in curves]) for which in ("last", "best"))
            arrow = "↓" if curves[0].lower_is_better else "↑"
            lines.append(f"| {title} | {len(curves)} | {name} {arrow} | {last} | {best} |")
    return "\n".join(lines)


def plot(losses: Mapping[str, Group[Curve]], metrics: Mapping[str, Group[MetricCurve]], path: Path) -> None:
    """Save a plot with one panel per loss and metric, three in a row; one color per group and one line per run.

    A loss is shown as its moving average, because the loss of a single step is noise.
    """
    names = [(losses, name) for name in find_names(losses)] + [(metrics, name) for name in find_names(metrics)]
    rows = -(-len(names) // PANELS_PER_ROW)
    colors = {title: f"C{index}" for index, title in enumerate(dict.fromkeys([*losses, *metrics]))}
    with figure_to_file(path, 5 * min(len(names), PANELS_PER_ROW), 3.4 * rows) as figure:
        for position, (groups, name) in enumerate(names, start=1):
            panel = figure.add_subplot(rows, min(len(names), PANELS_PER_ROW), position)
            for title, curves in groups.items():
                for seed, curve in enumerate(curves.get(name, [])):
                    is_line = groups is losses and len(curve.values) > 1
                    values, style = (smooth(curve.values), "-") if is_line else (curve.values, ".-")
                    panel.plot(curve.images, values, style, color=colors[title], label=None if seed else title)
            panel.set_title(name)
            panel.set_xlabel("images")
            panel.legend()


def smooth(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average of the values, each over itself and all before it.

    Dividing by the sum of the weights removes the bias to the first value (Kingma and Ba, Adam, 2015, section 3).
    """
    sums = accumulate(values, lambda average, value: SMOOTHING * average + (1 - SMOOTHING) * value, initial=0.0)
    return [total / (1 - SMOOTHING**count) for count, total in enumerate(sums) if count]


def main() -> None:
    configure_stdio()
    parser = CLIParser(description="Print the metrics of several runs, and plot their losses and metrics over time.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="run folders, such as checkpoints/demo_CUT_0")
    parser.add_argument(
        "--figures", nargs="+", metavar="NAME", help="losses and metrics, such as NCE, PSNR or 'FID of G_ema'; default: all"
    )
    parser.add_argument("--plot", type=Path, help="file of the plot")
    with exit_on_user_error():
        arguments = parser.parse_args()
        check_runs(arguments.runs)
        if arguments.plot:
            prepare_output_file(arguments.plot, "--plot")
        metrics = group_by_seed(arguments.runs, read_metric_curves)
        losses = group_by_seed(arguments.runs, read_loss_curves)
        known = [*find_names(losses), *find_names(metrics)]
        if not known or not (metrics or arguments.plot):
            flags = ", ".join(f"--{key}" for key in METRICS)
            raise UserError(
                f"{arguments.runs[0]}: no metrics. Train the run with at least one of {flags}, "
                "or plot its losses with --plot FILE."
            )
        for name in set(arguments.figures or []) - set(known):
            raise UserError(f"--figures {name}: no run has this loss or metric. Choose from {', '.join(known)}.")
        names = arguments.figures or known
        metrics = {title: {name: group[name] for name in names if name in group} for title, group in metrics.items()}
        losses = {title: {name: group[name] for name in names if name in group} for title, group in losses.items()}
        if find_names(metrics):
            print(table(metrics))
        for line in differing_conditions(metrics):
            print_line(line)
        if arguments.plot:
            plot(losses, metrics, arguments.plot)
            print(f"written: {arguments.plot}")


if __name__ == "__main__":
    main()
