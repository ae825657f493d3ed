"""Charts inside a page: curves as SVG without a script, in the colors of page.css."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np
from dominate import svg, tags

from util.train_log import Row, metric_results

WIDTH, HEIGHT = 360, 165  # of the SVG, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22  # margins around the plot area, for axis labels
MAX_POINTS = 300  # of a curve; a longer one is downsampled
SMOOTHING_WINDOW = 0.06  # moving-average window as a fraction of the curve
COLORS = 6  # of curves in page.css

Curve = Sequence[tuple[float, float | None]]  # (x, y) in order of x; None: not a number


def chart(
    title: str,
    curves: Mapping[str, Curve],
    smooth: bool = False,
    lower_is_better: bool | None = None,
    from_zero: bool = False,
) -> str:
    """Return the HTML of a chart: title, last value of each curve, and the curves in common axes.

    Args:
        title: such as "G_GAN". All text is escaped.
        curves: values over epochs by name. A legend shows the names if there are several curves.
        smooth: for noisy curves: plot them faintly, with their moving average on top.
        lower_is_better: direction of a metric, whose best value is marked. None: no best value.
        from_zero: the axis starts at zero, unless values are negative.
    Returns:
        A `<figure class="chart">`. It contains a note instead of curves if there are no values yet.
    """
    finite = {name: [(x, y) for x, y in curve if y is not None and math.isfinite(y)] for name, curve in curves.items()}
    caption = tags.figcaption(tags.b(title))
    for index, (name, points) in enumerate(finite.items()):
        if points:
            caption.add(_legend(name if len(curves) > 1 else "", index, points, lower_is_better))
    figure = tags.figure(caption, cls="chart")
    all_points = [point for points in finite.values() for point in points]
    if all_points:
        figure.add(_plot(title, curves, all_points, smooth, lower_is_better, from_zero))
    else:
        figure.add(tags.p("no values yet"))
    return figure.render(pretty=False)


def _best(points: Sequence[tuple[float, float]], lower_is_better: bool) -> tuple[float, float]:
    """Return the first point with the best value."""
    return (min if lower_is_better else max)(points, key=lambda point: point[1])


def _legend(name: str, index: int, points: Sequence[tuple[float, float]], lower_is_better: bool | None) -> tags.html_tag:
    entry = tags.span(cls=f"legend curve-{index % COLORS}")
    if name:
        entry.add(tags.i(), f"{name} ")
    entry.add(_number(points[-1][1]))
    if lower_is_better is not None:
        epoch, value = _best(points, lower_is_better)
        entry.add(tags.small(f"best {_number(value)} at epoch {_number(epoch)}"))
    return entry


class _Axes:
    """Maps values to SVG coordinates. Attributes: x, y: (lowest, highest) value in the plot area."""

    def __init__(self, points: Sequence[tuple[float, float]], shown: Sequence[float]) -> None:
        self.x = _pad_range(min(x for x, _ in points), max(x for x, _ in points))
        self.y = _pad_range(min(shown), max(shown))

    def to_svg(self, x: float, y: float) -> tuple[float, float]:
        """Return the coordinates of a value. A value above or below the axes is moved to their edge."""
        right = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = min(1.0, max(0.0, (y - self.y[0]) / (self.y[1] - self.y[0])))
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _plot(
    title: str,
    curves: Mapping[str, Curve],
    all_points: Sequence[tuple[float, float]],
    smooth: bool,
    lower_is_better: bool | None,
    from_zero: bool,
) -> svg.svg:
    raw = {name: _downsample(curve) for name, curve in curves.items()}
    smoothed = {name: _moving_mean(curve) for name, curve in raw.items()} if smooth else {}
    values = [y for curve in raw.values() for _, y in curve if y is not None]
    # A single outlier must not flatten all other values.
    shown = list(np.percentile(values, (1, 99))) if smooth else [min(values), max(values)]
    shown += [y for curve in smoothed.values() for _, y in curve if y is not None]
    axes = _Axes(all_points, [0.0, *shown] if from_zero and min(shown) > 0 else shown)

    plot = svg.svg(viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} over epochs")
    # For the script that shows the values under the pointer: ranges of the axes, and corners of the plot area.
    plot["data-x"], plot["data-y"] = ("{} {}".format(*map(_exact, ends)) for ends in (axes.x, axes.y))
    plot["data-area"] = f"{LEFT} {HEIGHT - BOTTOM} {WIDTH - RIGHT} {TOP}"
    plot.add(_grid(axes))
    for index, name in enumerate(curves):
        group = svg.g(cls=f"curve-{index % COLORS}")
        if smooth:
            group.add(_lines(axes, raw[name], "faint"))
        group.add(_lines(axes, smoothed.get(name, raw[name]), "line"))
        points = [(x, y) for x, y in curves[name] if y is not None and math.isfinite(y)]
        if points and lower_is_better is not None:
            left, top = axes.to_svg(*_best(points, lower_is_better))
            group.add(svg.circle(cx=f"{left:.1f}", cy=f"{top:.1f}", r="3.5", cls="best"))
        plot.add(group)
    return plot


def _grid(axes: _Axes) -> svg.g:
    grid = svg.g(cls="grid")
    for value in _ticks(*axes.y):
        _, top = axes.to_svg(axes.x[0], value)
        grid.add(svg.line(x1=LEFT, x2=WIDTH - RIGHT, y1=f"{top:.1f}", y2=f"{top:.1f}"))
        grid.add(svg.text(_number(value), x=LEFT - 6, y=f"{top + 3.5:.1f}", text_anchor="end"))
    ticks = _ticks(*axes.x)
    for value in ticks:
        left, _ = axes.to_svg(value, axes.y[0])
        label = f"epoch {_number(value)}" if value == ticks[0] else _number(value)
        anchor = "start" if left < LEFT + 20 else "end" if left > WIDTH - RIGHT - 12 else "middle"
        grid.add(svg.text(label, x=f"{left:.1f}", y=HEIGHT - 6, text_anchor=anchor))
    return grid


def _lines(axes: _Axes, curve: Curve, kind: str) -> list[svg.html_tag]:
    """Return one polyline for each part of the curve without a gap. A part of one point becomes a dot."""
    lines = []
    for is_number, part in groupby(curve, key=lambda point: point[1] is not None):
        if is_number:
            points = [axes.to_svg(x, y) for x, y in part if y is not None]
            points = points * 2 if len(points) == 1 else points  # a line of zero length shows as a dot
            lines.append(svg.polyline(points=" ".join(f"{left:.1f},{top:.1f}" for left, top in points), cls=kind))
    return lines


def _downsample(curve: Curve) -> Curve:
    """Return at most 2 * MAX_POINTS points: the lowest and the highest of each group of neighbors, to keep peaks."""
    if len(curve) <= MAX_POINTS:
        return [(x, y if y is not None and math.isfinite(y) else None) for x, y in curve]
    kept: list[tuple[float, float | None]] = []
    for group in np.array_split(np.arange(len(curve)), MAX_POINTS):
        points = [curve[index] for index in group]
        numbers = [(y, x) for x, y in points if y is not None and math.isfinite(y)]
        ends = sorted({min(numbers), max(numbers)}, key=lambda end: end[1]) if numbers else []
        kept += [(x, y) for y, x in ends] or [(points[0][0], None)]
    return kept


def _moving_mean(curve: Curve) -> Curve:
    """Return the mean around each point, over a fixed fraction of the curve."""
    radius = int(len(curve) * SMOOTHING_WINDOW / 2)
    numbers = np.array([np.nan if y is None else y for _, y in curve], dtype=float)
    valid = ~np.isnan(numbers)
    sums = np.concatenate([[0.0], np.cumsum(np.where(valid, numbers, 0.0))])
    counts = np.concatenate([[0], np.cumsum(valid)])
    means: list[tuple[float, float | None]] = []
    for index, (x, y) in enumerate(curve):
        first, last = max(0, index - radius), min(len(curve), index + radius + 1)
        count = counts[last] - counts[first]
        means.append((x, float(sums[last] - sums[first]) / count if y is not None else None))
    return means


def _ticks(low: float, high: float) -> list[float]:
    """Return up to five round values within the range."""
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _pad_range(low: float, high: float) -> tuple[float, float]:
    """Return the range, or a wider one around a single value."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    padding = abs(low) / 2 or 0.5
    return low - padding, high + padding


def _number(value: float) -> str:
    return f"{value:.4g}"


def _exact(value: float) -> str:
    return f"{value:.9g}"


def run_charts(rows: Sequence[Row]) -> list[str]:
    """Return the HTML of one chart per loss, smoothed, and one per evaluation metric, with the best values.

    The results of several networks, such as G and G_ema, share the chart of their metric. Axes start at zero where zero is
    the ideal value: for losses, and for metrics of which lower values are better.

    Args:
        rows: rows of metrics.jsonl. The direction of a metric is the one stored with its results.
    """
    results = {name: result for row in rows for name, result in metric_results(row).items()}
    metrics: dict[str, dict[str, Curve]] = {}
    for name, curve in curves(rows, "evaluation").items():
        result = results.get(name, {"name": name, "judged": name})
        metrics.setdefault(result["name"], {})[result["judged"]] = curve
    directions = {result["name"]: result["lower_is_better"] for result in results.values()}
    return [
        *(chart(name, {name: curve}, smooth=True, from_zero=True) for name, curve in curves(rows, "losses").items()),
        *(
            chart(name, networks, lower_is_better=directions.get(name), from_zero=bool(directions.get(name)))
            for name, networks in metrics.items()
        ),
    ]


def curves(rows: Iterable[Row], key: str) -> dict[str, Curve]:
    """Return the curves over epochs of the values that the rows store under `key`: "losses" or "evaluation"."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    for row in rows:
        for name, value in row.get(key, {}).items():
            found.setdefault(name, []).append((row["epochs_done"], value))
    return dict(found)
