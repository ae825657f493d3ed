"""The charts of a page, read back from their drawings."""

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


def drawn(markup: str, kind: str = "line") -> list[list[tuple[float, float]]]:
    """The lines of a chart, in the values that its axes give their points."""
    (left, bottom, right, top), x, y = (numbers(markup, name) for name in ("area", "x", "y"))
    lines = []
    for points in re.findall(rf'<polyline class="{kind}" points="([^"]+)"', markup):
        places = [tuple(map(float, place.split(","))) for place in points.split()]
        lines.append(
            [
                (
                    x[0] + (at - left) / (right - left) * (x[1] - x[0]),
                    y[0] + (up - bottom) / (top - bottom) * (y[1] - y[0]),
                )
                for at, up in places
            ]
        )
    return lines


def labels(markup: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", markup)


def test_a_curve_lies_where_its_axes_say() -> None:
    (line,) = drawn(chart("FID", {"FID": RAMP}))
    assert line == [pytest.approx(point, abs=0.05) for point in RAMP]


def test_axes_have_round_labels() -> None:
    assert labels(chart("FID", {"FID": RAMP})) == ["0", "2", "4", "6", "8", *("epoch 0", "1", "2", "3", "4")]
    assert "2e-05" in labels(chart("lr", {"lr": [(0, 1e-5), (1, 3e-5)]}))


def test_a_value_that_is_no_number_is_a_gap() -> None:
    curve = [(0, 1.0), (1, 2.0), (2, None), (3, math.nan), (4, 3.0)]
    first, second = drawn(chart("G", {"G": curve}))
    assert [round(x) for x, _ in first] == [0, 1]
    assert [round(x) for x, _ in second] == [4, 4]  # a dot


@pytest.mark.parametrize("curve", [[], [(0.0, None)], [(0.0, math.inf)]])
def test_a_curve_without_numbers_says_so(curve) -> None:
    assert "no numbers yet" in chart("G", {"G": curve})


@pytest.mark.parametrize("value", [0.0, 1e-30, -1e30, 5.0])
def test_a_curve_of_one_value_is_drawn(value: float) -> None:
    for curve in ([(1.0, value)], [(1.0, value), (2.0, value)]):
        (line,) = drawn(chart("G", {"G": curve}))
        assert len(line) == 2
    assert len(labels(chart("G", {"G": [(1.0, value)]}))) >= 2


def test_a_long_curve_is_thinned_and_keeps_its_peaks() -> None:
    curve = [(float(x), 100.0 if x == 51_234 else math.sin(x)) for x in range(100_000)]
    (line,) = drawn(chart("G", {"G": curve}))
    assert len(line) <= 2 * MAX_POINTS
    assert max(line, key=lambda point: point[1]) == pytest.approx((51_234, 100), rel=0.01)
    assert line == sorted(line, key=lambda point: point[0])


def test_a_noisy_curve_is_drawn_faintly_under_its_moving_mean_and_without_its_wildest_peak() -> None:
    curve = [(float(x), 1e6 if x == 500 else 3.0 + (-1) ** x) for x in range(1000)]
    curve[500] = (500.0, 50.0)
    markup = chart("G", {"G": curve}, smooth=True)
    assert len(drawn(markup, "faint")) == 1
    (mean,) = drawn(markup)
    assert [y for x, y in mean if x < 450] == pytest.approx([3.0] * sum(x < 450 for x, _ in mean), abs=0.1)
    assert numbers(markup, "y")[1] < 10


@pytest.mark.parametrize(("best", "told"), [(min, "best 3 at epoch 1"), (max, "best 9 at epoch 0")])
def test_the_best_value_is_marked_and_named(best, told: str) -> None:
    markup = chart("FID", {"FID": [(0, 9.0), (1, 3.0), (2, 4.0)]}, best=best)
    assert told in markup
    assert markup.count('class="best"') == 1


def test_several_curves_have_a_legend_and_colors_of_their_own() -> None:
    markup = chart("FID", {"CUT": RAMP, "FastCUT": RAMP})
    assert "CUT" in markup and "FastCUT" in markup
    assert "curve-0" in markup and "curve-1" in markup


def test_names_stay_text() -> None:
    name = "</figure><script>alert('&amp;')</script>"
    markup = chart(name, {name: RAMP, "G": RAMP})
    assert "<script" not in markup
    assert name in unescape(markup)


def test_the_charts_of_a_run_are_its_evaluations_and_its_losses() -> None:
    records = [
        {"epochs_done": 0.5, "losses": {"G": 2.0, "D": 1.0}},
        {"epochs_done": 1.0, "losses": {"G": 1.0, "D": None}},
        {"epochs_done": 1.0, "evaluation": {"FID": 60.0, "PSNR": 20.0}},
        {"epochs_done": 2.0, "evaluation": {"FID": 70.0, "PSNR": 21.0}},
    ]
    assert curves(records, "losses") == {"G": [(0.5, 2.0), (1.0, 1.0)], "D": [(0.5, 1.0), (1.0, None)]}
    titles = [re.findall("<b>(.*?)</b>", markup) for markup in run_charts(records)]
    assert titles == [["FID"], ["PSNR"], ["G"], ["D"]]
    assert "best 60 at epoch 1" in run_charts(records)[0]
    assert "best 21 at epoch 2" in run_charts(records)[1]
    assert run_charts([]) == []
