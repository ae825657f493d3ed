"""Curves as a drawing inside a page: SVG without a script, in the colors of page.css."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from dominate import svg, tags

WIDTH, HEIGHT = 360, 165  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22  # margins around the curves, for the labels of the axes
MAX_POINTS = 300  # of a curve; more than that are summed up in as many groups
SMOOTHING_WINDOW = 0.06  # of a curve that each point of its smooth version is the mean of
COLORS = 6  # that page.css has for curves

Curve = Sequence[tuple[float, float | None]]  # (x, y) in order of x; None where there is no number


def chart(
    title: str,
    curves: Mapping[str, Curve],
    smooth: bool = False,
    best: Callable[[Sequence[float]], float] | None = None,
) -> str:
    """The markup of a chart: its title, the last value of each curve, and the curves over common axes.

    Args:
        title: what is shown, such as "G_GAN". Any text is escaped.
        curves: over epochs, by their names; with more than one, a legend names them.
        smooth: draws noisy curves faintly, and their moving mean over that.
        best: `min` or `max`, where one of them tells the best value of a curve: it is marked and named.
    Returns:
        a `<figure class="chart">`; one that says so where there is no number in it.
    """
    finite = {name: [(x, y) for x, y in curve if y is not None and math.isfinite(y)] for name, curve in curves.items()}
    caption = tags.figcaption(tags.b(title))
    for place, (name, points) in enumerate(finite.items()):
        if points:
            caption.add(_legend(name if len(curves) > 1 else "", place, points, best))
    figure = tags.figure(caption, cls="chart")
    everything = [point for points in finite.values() for point in points]
    if everything:
        figure.add(_drawing(title, curves, everything, smooth, best))
    else:
        figure.add(tags.p("no numbers yet"))
    return figure.render(pretty=False)


def _legend(name: str, place: int, points: Sequence[tuple[float, float]], best: Callable | None) -> tags.html_tag:
    entry = tags.span(cls=f"legend curve-{place % COLORS}")
    if name:
        entry.add(tags.i(), f"{name} ")
    entry.add(_number(points[-1][1]))
    if best:
        value = best([y for _, y in points])
        entry.add(tags.small(f"best {_number(value)} at epoch {_number(next(x for x, y in points if y == value))}"))
    return entry


class _Axes:
    """Maps values to the drawing. Attributes: x, y: (lowest, highest) value shown."""

    def __init__(self, points: Sequence[tuple[float, float]], shown: Sequence[float]) -> None:
        self.x = _pad_range(points[0][0] if len(points) == 1 else min(x for x, _ in points), max(x for x, _ in points))
        self.y = _pad_range(min(shown), max(shown))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a value lies; one outside the axes lies on their edge."""
        right = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = min(1.0, max(0.0, (y - self.y[0]) / (self.y[1] - self.y[0])))
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _drawing(
    title: str,
    curves: Mapping[str, Curve],
    everything: Sequence[tuple[float, float]],
    smooth: bool,
    best: Callable | None,
) -> svg.svg:
    raw = {name: _downsample(curve) for name, curve in curves.items()}
    smoothed = {name: _moving_mean(curve) for name, curve in raw.items()} if smooth else {}
    values = [y for curve in raw.values() for _, y in curve if y is not None]
    # A single wild step shall not press all the others flat.
    shown = list(np.percentile(values, (1, 99))) if smooth else [min(values), max(values)]
    shown += [y for curve in smoothed.values() for _, y in curve if y is not None]
    axes = _Axes(everything, shown)

    drawing = svg.svg(viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} over epochs")
    # For the script that tells the values under the pointer: what lies at the corners of the curves' rectangle.
    drawing["data-x"], drawing["data-y"] = ("{} {}".format(*map(_exact, ends)) for ends in (axes.x, axes.y))
    drawing["data-area"] = f"{LEFT} {HEIGHT - BOTTOM} {WIDTH - RIGHT} {TOP}"
    drawing.add(_grid(axes))
    for place, name in enumerate(curves):
        group = svg.g(cls=f"curve-{place % COLORS}")
        if smooth:
            group.add(_lines(axes, raw[name], "faint"))
        group.add(_lines(axes, smoothed.get(name, raw[name]), "line"))
        points = [(x, y) for x, y in curves[name] if y is not None and math.isfinite(y)]
        if points and best:
            value = best([y for _, y in points])
            left, top = axes.place(next(x for x, y in points if y == value), value)
            group.add(svg.circle(cx=f"{left:.1f}", cy=f"{top:.1f}", r="3.5", cls="best"))
        drawing.add(group)
    return drawing


def _grid(axes: _Axes) -> svg.g:
    grid = svg.g(cls="grid")
    for value in _ticks(*axes.y):
        _, top = axes.place(axes.x[0], value)
        grid.add(svg.line(x1=LEFT, x2=WIDTH - RIGHT, y1=f"{top:.1f}", y2=f"{top:.1f}"))
        grid.add(svg.text(_number(value), x=LEFT - 6, y=f"{top + 3.5:.1f}", text_anchor="end"))
    ticks = _ticks(*axes.x)
    for value in ticks:
        left, _ = axes.place(value, axes.y[0])
        label = f"epoch {_number(value)}" if value == ticks[0] else _number(value)
        anchor = "start" if left < LEFT + 20 else "end" if left > WIDTH - RIGHT - 12 else "middle"
        grid.add(svg.text(label, x=f"{left:.1f}", y=HEIGHT - 6, text_anchor=anchor))
    return grid


def _lines(axes: _Axes, curve: Curve, kind: str) -> list[svg.html_tag]:
    """One polyline for each stretch of the curve without a gap; a stretch of one point is a dot."""
    lines = []
    for is_number, stretch in groupby(curve, key=lambda point: point[1] is not None):
        if is_number:
            places = [axes.place(x, y) for x, y in stretch if y is not None]
            places = places * 2 if len(places) == 1 else places  # a line of no length is drawn as a dot
            lines.append(svg.polyline(points=" ".join(f"{left:.1f},{top:.1f}" for left, top in places), cls=kind))
    return lines


def _downsample(curve: Curve) -> Curve:
    """At most 2 * MOST_POINTS points: of each group of neighbors the lowest and the highest, so that peaks stay."""
    if len(curve) <= MAX_POINTS:
        return [(x, y if y is not None and math.isfinite(y) else None) for x, y in curve]
    thinned: list[tuple[float, float | None]] = []
    for group in np.array_split(np.arange(len(curve)), MAX_POINTS):
        points = [curve[place] for place in group]
        numbers = [(y, x) for x, y in points if y is not None and math.isfinite(y)]
        ends = sorted({min(numbers), max(numbers)}, key=lambda end: end[1]) if numbers else []
        thinned += [(x, y) for y, x in ends] or [(points[0][0], None)]
    return thinned


def _moving_mean(curve: Curve) -> Curve:
    """The mean around each point, over a fixed share of the curve."""
    reach = int(len(curve) * SMOOTHING_WINDOW / 2)
    numbers = np.array([np.nan if y is None else y for _, y in curve], dtype=float)
    there = ~np.isnan(numbers)
    sums = np.concatenate([[0.0], np.cumsum(np.where(there, numbers, 0.0))])
    counts = np.concatenate([[0], np.cumsum(there)])
    means: list[tuple[float, float | None]] = []
    for place, (x, y) in enumerate(curve):
        first, last = max(0, place - reach), min(len(curve), place + reach + 1)
        count = counts[last] - counts[first]
        means.append((x, float(sums[last] - sums[first]) / count if y is not None else None))
    return means


def _ticks(low: float, high: float) -> list[float]:
    """Up to five round values within the range."""
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _pad_range(low: float, high: float) -> tuple[float, float]:
    """The range, or a little room around it where it is a single value."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) / 2 or 0.5
    return low - room, high + room


def _number(value: float) -> str:
    return f"{value:.4g}"


def _exact(value: float) -> str:
    return f"{value:.9g}"


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
