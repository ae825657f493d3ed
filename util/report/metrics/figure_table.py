"""Figures as a table for people: a line for each figure, a column for each set of translations."""

from collections.abc import Mapping, Sequence

from util.metrics.evaluator import MetricResult


def format_metric(figure: MetricResult) -> str:
    """The value to four significant digits, with its spread: "45.51", "0.0125 ±0.003"."""
    spread = "" if figure.spread is None else f" ±{float(f'{figure.spread:.2g}'):g}"
    return f"{figure.value:.4g}{spread}"


def metric_table(judged: Mapping[str, Sequence[MetricResult]]) -> str:
    """The table; for each title, `judged` has the same figures. An arrow shows which way is better."""
    names = [f"{figure.name} {'↓' if figure.lower_is_better else '↑'}" for figure in next(iter(judged.values()))]
    columns = [["", *names], *([title, *map(format_metric, figures)] for title, figures in judged.items())]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join("   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)
