"""The charts of a page, read back from their SVG."""

import math
import re
from html import unescape

import pytest

from util.html.charts import MAX_POINTS, chart, curves, run_charts

RAMP = [(float(x), 2.0 * x) for x in range(5)]


def numbers(markup: str, attribute: str) -> list[float]:
    found = re.search(rf'data-{attribute}="([^"]+)"', markup)
    assert found, markup
    return [float(number) for number in found[1].split()]


def plotted(markup: str, kind: str = "line") -> list[list[tuple[float, float]]]:
    """Return the lines of a chart in data coordinates."""
    (left, bottom, right, top), x, y = (numbers(markup, name) for name in ("area", "x", "y"))
    lines = []
    for points in re.findall(rf'<polyline class="{kind}" points="([^"]+)"', markup):
        coordinates = [tuple(map(float, pair.split(","))) for pair in points.split()]
        lines.append(
            [
                (
                    x[0] + (at - left) / (right - left) * (x[1] - x[0]),
                    y[0] + (up - bottom) / (top - bottom) * (y[1] - y[0]),
                )
                for at, up in coordinates
            ]
        )
    return lines


def labels(markup: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", markup)


def test_points_match_the_axes() -> None:
    (line,) = plotted(chart("FID", {"FID": RAMP}))
    assert line == [pytest.approx(point, abs=0.05) for point in RAMP]


def test_axis_labels_are_round() -> None:
    assert labels(chart("FID", {"FID": RAMP})) == ["0", "2", "4", "6", "8", *("epoch 0", "1", "2", "3", "4")]
    assert "2e-05" in labels(chart("lr", {"lr": [(0, 1e-5), (1, 3e-5)]}))


def test_nan_and_none_are_gaps() -> None:
    curve = [(0, 1.0), (1, 2.0), (2, None), (3, math.nan), (4, 3.0)]
    first, second = plotted(chart("G", {"G": curve}))
    assert [round(x) for x, _ in first] == [0, 1]
    assert [round(x) for x, _ in second] == [4, 4]  # a dot


@pytest.mark.parametrize("curve", [[], [(0.0, None)], [(0.0, math.inf)]])
def test_a_curve_without_values_has_a_note(curve) -> None:
    assert "no values yet" in chart("G", {"G": curve})


@pytest.mark.parametrize("value", [0.0, 1e-30, -1e30, 5.0])
def test_a_curve_of_one_value_is_plotted(value: float) -> None:
    for curve in ([(1.0, value)], [(1.0, value), (2.0, value)]):
        (line,) = plotted(chart("G", {"G": curve}))
        assert len(line) == 2
    assert len(labels(chart("G", {"G": [(1.0, value)]}))) >= 2


def test_a_long_curve_is_downsampled_and_keeps_its_peaks() -> None:
    curve = [(float(x), 100.0 if x == 51_234 else math.sin(x)) for x in range(100_000)]
    (line,) = plotted(chart("G", {"G": curve}))
    assert len(line) <= 2 * MAX_POINTS
    assert max(line, key=lambda point: point[1]) == pytest.approx((51_234, 100), rel=0.01)
    assert line == sorted(line, key=lambda point: point[0])


def test_a_noisy_curve_is_faint_below_its_moving_average_and_outliers_are_cut() -> None:
    curve = [(float(x), 1e6 if x == 500 else 3.0 + (-1) ** x) for x in range(1000)]
    curve[500] = (500.0, 50.0)
    markup = chart("G", {"G": curve}, smooth=True)
    assert len(plotted(markup, "faint")) == 1
    (mean,) = plotted(markup)
    assert [y for x, y in mean if x < 450] == pytest.approx([3.0] * sum(x < 450 for x, _ in mean), abs=0.1)
    assert numbers(markup, "y")[1] < 10


@pytest.mark.parametrize(("lower_is_better", "text"), [(True, "best 3 at epoch 1"), (False, "best 9 at epoch 0")])
def test_the_best_value_is_marked_and_named(lower_is_better: bool, text: str) -> None:
    markup = chart("FID", {"FID": [(0, 9.0), (1, 3.0), (2, 4.0)]}, lower_is_better=lower_is_better)
    assert text in markup
    assert markup.count('class="best"') == 1


def test_several_curves_have_a_legend_and_different_colors() -> None:
    markup = chart("FID", {"CUT": RAMP, "FastCUT": RAMP})
    assert "CUT" in markup and "FastCUT" in markup
    assert "curve-0" in markup and "curve-1" in markup


def test_names_are_escaped() -> None:
    name = "</figure><script>alert('&amp;')</script>"
    markup = chart(name, {name: RAMP, "G": RAMP})
    assert "<script" not in markup
    assert name in unescape(markup)


def test_a_run_has_charts_of_its_metrics_and_losses() -> None:
    taken_with = [
        {"judged": "G", "name": "FID", "lower_is_better": True},
        {"judged": "G", "name": "PSNR", "lower_is_better": False},
    ]
    rows = [
        {"epochs_done": 0.5, "losses": {"G": 2.0, "D": 1.0}},
        {"epochs_done": 1.0, "losses": {"G": 1.0, "D": None}},
        {"epochs_done": 1.0, "evaluation": {"FID": 60.0, "PSNR": 20.0}, "taken_with": taken_with},
        {"epochs_done": 2.0, "evaluation": {"FID": 70.0, "PSNR": 21.0}, "taken_with": taken_with},
    ]
    assert curves(rows, "losses") == {"G": [(0.5, 2.0), (1.0, 1.0)], "D": [(0.5, 1.0), (1.0, None)]}
    titles = [re.findall("<b>(.*?)</b>", markup) for markup in run_charts(rows)]
    assert titles == [["G"], ["D"], ["FID"], ["PSNR"]]
    assert "best 60 at epoch 1" in run_charts(rows)[2]
    assert "best 21 at epoch 2" in run_charts(rows)[3]
    lowest = [numbers(markup, "y")[0] for markup in run_charts(rows)]
    assert lowest == [0, 0, 0, 20]  # zero is no value of interest for a PSNR
    assert run_charts([]) == []


def test_an_axis_from_zero_shows_negative_values() -> None:
    curve = [(0.0, -1.0), (1.0, 3.0)]
    assert numbers(chart("G", {"G": curve}, from_zero=True), "y") == [-1, 3]


def test_networks_share_the_chart_of_a_metric() -> None:
    taken_with = [{"judged": judged, "name": "FID", "lower_is_better": True} for judged in ("G", "G_ema")]
    rows = [
        {"epochs_done": epoch, "evaluation": {"FID": value, "FID of G_ema": value - 5}, "taken_with": taken_with}
        for epoch, value in ((1, 60.0), (2, 70.0))
    ]
    (markup,) = run_charts(rows)
    assert re.findall("<b>(.*?)</b>", markup) == ["FID"]
    assert [[round(y) for _, y in line] for line in plotted(markup)] == [[60, 70], [55, 65]]
    assert "</i>G " in markup and "</i>G_ema " in markup and "best 55 at epoch 1" in markup


def test_the_direction_of_a_metric_comes_from_the_stored_rows() -> None:
    """Any name: nothing is derived from it."""
    taken_with = [
        {"judged": "G", "name": "PSNR", "lower_is_better": True},
        {"judged": "G", "name": "FID", "lower_is_better": False},
    ]
    values = ({"PSNR": 1.0, "FID": 1.0, "unknown": 1.0}, {"PSNR": 2.0, "FID": 2.0, "unknown": 2.0})
    rows = [{"epochs_done": n, "evaluation": each, "taken_with": taken_with} for n, each in enumerate(values)]
    lower, higher, unknown = run_charts(rows)
    assert "best 1 at epoch 0" in lower
    assert "best 2 at epoch 1" in higher
    assert "best" not in unknown
