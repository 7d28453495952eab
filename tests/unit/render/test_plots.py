"""Charts are well-formed SVG with every value where the axis says."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm_toolkit.errors import ShapeError
from wm_toolkit.render import plots, svg
from wm_toolkit.render.plots import Bar, Series

NS = {"s": "http://www.w3.org/2000/svg"}


def paths(chart):
    root = ET.fromstring(chart)
    return [
        [tuple(map(float, point.split())) for point in re.findall(r"[ML]([^ML]+)", p.get("d", ""))]
        for p in root.findall("s:path", NS)
    ]


def gridlines(chart):
    """Pixel height of every labelled value on the y axis."""
    texts = ET.fromstring(chart).findall("s:text[@text-anchor='end']", NS)
    return {t.text: float(t.get("y")) - 3.5 for t in texts}


def test_values_lie_on_the_gridlines_of_their_value():
    chart = plots.line_chart([Series("a", [0, 1, 2], [0.0, 10.0, 5.0])], title="t", zero=True)
    (line,), grid = paths(chart), gridlines(chart)
    assert line[0] == pytest.approx((plots.LEFT, grid["0"]), abs=0.06)
    assert line[1][1] == pytest.approx(grid["10"], abs=0.06)
    assert line[2] == pytest.approx(
        (plots.WIDTH - plots.RIGHT, (grid["0"] + grid["10"]) / 2), abs=0.06
    )


def test_a_log_axis_puts_equal_factors_at_equal_distances():
    chart = plots.line_chart([Series("a", [0, 1, 2], [0.01, 1.0, 100.0])], title="t", log_y=True)
    ((a, b, c),), grid = paths(chart), gridlines(chart)
    assert b[1] - a[1] == pytest.approx(c[1] - b[1], abs=0.11)
    assert grid["0.01"] == pytest.approx(a[1], abs=0.06)
    assert grid["100"] == pytest.approx(c[1], abs=0.06)


def test_nan_breaks_the_line_and_zero_is_left_out_of_a_log_axis():
    chart = plots.line_chart([Series("a", range(5), [1, 2, math.nan, 3, 4])], title="t")
    assert chart.count("M") == 2
    chart = plots.line_chart([Series("a", range(3), [1, 0, 100])], title="t", log_y=True)
    assert len(paths(chart)[0]) == 2


def test_a_band_spans_its_interval():
    one = Series("a", [0, 1], [2.0, 2.0], low=[0.0, 0.0], high=[4.0, 4.0])
    chart = plots.line_chart([one], title="t")
    polygon = ET.fromstring(chart).find("s:polygon", NS)
    heights = [float(p.split(",")[1]) for p in polygon.get("points").split()]
    grid = gridlines(chart)
    assert heights[:2] == pytest.approx([grid["4"]] * 2, abs=0.06)
    assert heights[2:] == pytest.approx([grid["0"]] * 2, abs=0.06)


def test_bars_are_as_long_as_their_values_and_whiskers_as_their_intervals():
    bars = [Bar("half", 50.0, 40.0, 60.0), Bar("full", 100.0)]
    root = ET.fromstring(plots.bar_chart(bars, title="t", unit=" %", highest=100.0))
    half, full = (float(r.get("width")) for r in root.findall("s:rect", NS))
    assert half == pytest.approx(full / 2, abs=0.02)
    whisker = root.find("s:line[@class='whisker']", NS)
    left = float(root.find("s:rect", NS).get("x"))
    assert float(whisker.get("x1")) - left == pytest.approx(0.4 * full, abs=0.02)
    assert float(whisker.get("x2")) - left == pytest.approx(0.6 * full, abs=0.02)


def test_a_long_line_is_thinned_to_means_of_neighbours():
    x = list(range(2400))
    chart = plots.line_chart([Series("a", x, [v % 10 for v in x])], title="t")
    (line,) = paths(chart)
    assert len(line) == plots.MOST_POINTS
    assert len({y for _, y in line}) == 1


def test_a_chart_names_itself_and_escapes_what_it_is_told():
    chart = plots.line_chart([Series("a<b", [0], [1.0]), Series("&", [0], [2.0])], title='x > "y"')
    root = ET.fromstring(chart)
    assert root.get("role") == "img"
    assert root.find("s:title", NS).text == 'x > "y"'
    assert "a<b from 1 to 1" in root.find("s:desc", NS).text
    assert {"a<b", "&"} <= {t.text for t in root.findall("s:text", NS)}


def test_a_standalone_chart_brings_its_colours_for_light_and_dark():
    alone = plots.standalone(plots.bar_chart([Bar("a", 1.0)], title="t"))
    style = ET.fromstring(alone).find("s:style", NS).text
    assert "--c0" in style
    assert "prefers-color-scheme:dark" in style


@pytest.mark.parametrize("y", [[], [1.0], [3.0, 3.0, 3.0], [math.nan] * 2, [0.0, 0.0]])
@pytest.mark.parametrize("log", [False, True])
def test_degenerate_data_still_gives_a_chart(y, log):
    chart = plots.line_chart([Series("a", range(len(y)), y)], title="t", log_y=log)
    assert ET.fromstring(chart).find("s:path", NS) is not None


def test_a_series_of_uneven_lengths_is_refused_by_name():
    with pytest.raises(ShapeError, match="'loss' has 2 x but 1 y"):
        Series("loss", [0, 1], [1.0])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_and_are_evenly_spaced(low, width):
    ticks = svg.linear_ticks(low, low + width)
    room = 1e-6 * (abs(low) + width)
    assert 1 <= len(ticks) <= 12
    assert all(low - room <= t <= low + width + room for t in ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(steps, default=0) - min(steps, default=0) <= 1e-6 * (abs(low) + width)


def test_a_log_axis_over_less_than_a_factor_of_five_gets_round_steps():
    assert svg.log_ticks(1.2, 2.4) == pytest.approx([1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4])
    assert svg.log_ticks(0.9, 110) == pytest.approx([1, 10, 100])
    assert svg.log_ticks(0.9, 11) == pytest.approx([1, 2, 5, 10])


def test_whole_numbers_get_whole_ticks():
    assert svg.linear_ticks(1, 5, 8, finest=1.0) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (1500, "1.5k"), (2e6, "2M"), (0.00002, "2e-5"), (0.25, "0.25"), (-3e12, "-3e12")],
)
def test_numbers_are_short(value, said):
    assert svg.label(value) == said
