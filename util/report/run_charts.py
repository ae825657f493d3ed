"""The charts of a run, drawn from its reports (see metrics_log.py)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from util.html.charts import Curve, chart

HIGHER_IS_BETTER = ("psnr", "ssim", "precision", "recall", "density", "coverage")  # how the names of such figures begin


def run_charts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The markup of a chart for each figure of the evaluations, with its best value, and for each loss, smoothed."""
    return [
        *(chart(name, {name: curve}, best=better_of(name)) for name, curve in curves(records, "evaluation").items()),
        *(chart(name, {name: curve}, smooth=True) for name, curve in curves(records, "losses").items()),
    ]


def curves(records: Iterable[Mapping[str, Any]], report: str) -> dict[str, Curve]:
    """The curves over epochs of what was reported under that name, such as "losses": one for each of its figures."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    for record in records:
        for name, value in record.get(report, {}).items():
            found.setdefault(name, []).append((record["epochs_done"], value))
    return dict(found)


def better_of(figure: str) -> Callable[[Sequence[float]], float]:
    """`max` or `min`: which of two values of a figure is the better one."""
    return max if figure.lower().startswith(HIGHER_IS_BETTER) else min
