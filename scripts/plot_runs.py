"""The figures of several runs over time: `python scripts/plot_runs.py checkpoints/cut_* checkpoints/fastcut_*`.

Reads what the runs were judged by while they trained (docs/evaluation.md). Runs whose names differ in a number at the end
alone (demo_CUT_0, demo_CUT_1, ...) count as one training with several seeds. Prints a table of the last and the best values;
several seeds give mean ± standard deviation.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import CLIParser, configure_stdio
from util.errors import UserError, exit_on_user_error
from util.plotting import figure_to_file
from util.train_log import read_metrics


@dataclass(frozen=True)
class Curve:
    """A figure of one run: after so many images it had these values, the last of them at the end."""

    images: list[int]
    values: list[float]
    lower_is_better: bool

    @property
    def last(self) -> float:
        return self.values[-1]

    @property
    def best(self) -> float:
        return (min if self.lower_is_better else max)(self.values)


Group = dict[str, list[Curve]]  # figure -> one curve for each seed


def read_curves(run: Path) -> dict[str, Curve]:
    """The figures of a run, by their names. Raises UserError where it has none."""
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    lower_is_better = {}
    for record in read_metrics(run / "metrics.jsonl"):
        for figure in record.get("taken_with", []):
            if figure["value"] is not None:
                name = figure["name"] if figure["judged"] in ("G", "G_A") else f"{figure['name']} of {figure['judged']}"
                points[name].append((record["images"], figure["value"]))
                lower_is_better[name] = figure["lower_is_better"]
    if not points:
        raise UserError(
            f"{run} holds no figures: train it with --paired, --inception, --features or --lpips, or name another"
        )
    return {
        name: Curve([images for images, _ in found], [value for _, value in found], lower_is_better[name])
        for name, found in points.items()
    }


def grouped(runs: Sequence[Path]) -> dict[str, Group]:
    """The curves of the runs by training, which is a run's name without a number at its end, and by figure. Raises UserError
    where two go by one name."""
    names = [run.resolve().name for run in runs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two runs are called {twice[0]}; name each run once, and give others a name of their own")
    groups: dict[str, Group] = defaultdict(lambda: defaultdict(list))
    for name, run in zip(names, runs, strict=True):
        for figure, curve in read_curves(run).items():
            groups[re.sub(r"_\d+$", "", name)][figure].append(curve)
    return groups


def several(values: Sequence[float]) -> str:
    """The value; of several, mean ± standard deviation."""
    spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    return f"{fmean(values):.4g}{spread}"


def table(groups: Mapping[str, Group]) -> str:
    """In Markdown, a line for each training and figure."""
    lines = ["| training | runs | figure | last | best |", "|---|---:|---|---:|---:|"]
    for title, figures in groups.items():
        for name, curves in figures.items():
            last, best = (several([getattr(curve, which) for curve in curves]) for which in ("last", "best"))
            arrow = "↓" if curves[0].lower_is_better else "↑"
            lines.append(f"| {title} | {len(curves)} | {name} {arrow} | {last} | {best} |")
    return "\n".join(lines)


def draw(groups: Mapping[str, Group], names: Sequence[str], path: Path) -> None:
    """A panel for each figure, a color for each training, a line for each run."""
    with figure_to_file(path, 5 * len(names), 3.4) as figure:
        for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for index, (title, figures) in enumerate(groups.items()):
                for seed, curve in enumerate(figures.get(name, [])):
                    panel.plot(curve.images, curve.values, ".-", color=f"C{index}", label=None if seed else title)
            panel.set_title(name)
            panel.set_xlabel("images")
            panel.legend()


def main() -> None:
    configure_stdio()
    parser = CLIParser(description="A table and a drawing of the figures of several runs over time.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="such as checkpoints/demo_CUT_0")
    parser.add_argument("--figures", nargs="+", metavar="NAME", help="such as PSNR or 'FID of G_ema'; all by default")
    parser.add_argument("--plot", type=Path, help="file for the drawing")
    with exit_on_user_error():
        arguments = parser.parse_args()
        groups = grouped(arguments.runs)
        known = list(dict.fromkeys(name for figures in groups.values() for name in figures))
        for name in set(arguments.figures or []) - set(known):
            raise UserError(f"--figures: no run was judged by {name!r}; there are {', '.join(known)}")
        wanted = arguments.figures or known
        chosen = {title: {name: figures[name] for name in wanted if name in figures} for title, figures in groups.items()}
        print(table(chosen))
        if arguments.plot:
            draw(chosen, wanted, arguments.plot)


if __name__ == "__main__":
    main()
