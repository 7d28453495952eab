"""Charts as SVG strings: crisp at every size, light and dark, readable by screen readers.

Colours are CSS variables, so a chart inside a page follows the page; `standalone` makes a file of one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

from wm_toolkit.errors import ShapeError
from wm_toolkit.render.svg import Scale, element, label, span, text

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 44, 38
MOST_POINTS = 240  # of a line; more would be finer than a pixel
COLOURS = 6

STYLE = """
.chart{--c0:#2563eb;--c1:#d97706;--c2:#059669;--c3:#db2777;--c4:#7c3aed;--c5:#64748b;
--ink:#0f172a;--faint:#64748b;--rule:#e2e8f0;font:11px system-ui,-apple-system,"Segoe UI",
Roboto,sans-serif;display:block;width:100%;height:auto}
@media(prefers-color-scheme:dark){.chart{--c0:#60a5fa;--c1:#fbbf24;--c2:#34d399;--c3:#f472b6;
--c4:#a78bfa;--c5:#94a3b8;--ink:#e2e8f0;--faint:#94a3b8;--rule:#293548}}
.chart text{fill:var(--faint)}.chart .title{fill:var(--ink);font-weight:600;font-size:13px}
.chart .value{fill:var(--ink);font-weight:600}
.chart .rule{stroke:var(--rule);stroke-width:1}.chart .axis{stroke:var(--faint);stroke-width:1}
.chart .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.chart .dashed{stroke-dasharray:5 4}.chart .band{opacity:.16;stroke:none}
.chart .whisker{stroke:var(--ink);stroke-width:1.4}
""" + "".join(
    f".chart .s{i}{{stroke:var(--c{i})}}.chart .f{i}{{fill:var(--c{i})}}" for i in range(COLOURS)
)


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: for the legend.
        x, y: equally long; a NaN in `y` breaks the line.
        low, high: the interval around `y`, drawn as a band.
        dashed: for references and baselines.
        markers: show every point, for few points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False
    markers: bool = False

    def __post_init__(self) -> None:
        for what, values in (("y", self.y), ("low", self.low), ("high", self.high)):
            if values is not None and len(values) != len(self.x):
                raise ShapeError(
                    f"series {self.name!r} has {len(self.x)} x but {len(values)} {what}"
                )


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar: a value and, if known, its interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    log_y: bool = False,
    zero: bool = False,
) -> str:
    """Draw lines over a common axis.

    Args:
        series: at least one; beyond 240 points a line shows means of neighbours.
        title: what the chart shows; also its accessible name.
        x_label, y_label: quantities and units.
        log_y: logarithmic y axis; values of zero and below are left out.
        zero: let the y axis begin at zero.
    """
    drawn = [_thinned(one) for one in series]
    heights = [v for s in drawn for part in (s.y, s.low, s.high) if part is not None for v in part]
    x = Scale(*_x_range([v for s in drawn for v in s.x]), LEFT, WIDTH - RIGHT)
    y = Scale(*span(heights, log=log_y, zero=zero), HEIGHT - BOTTOM, TOP, log_y)
    lines = [_line(one, x, y, i % COLOURS) for i, one in enumerate(drawn)]
    whole = all(float(v).is_integer() for one in series for v in one.x)
    marks = x.ticks(6, finest=1.0 if whole else 0.0)
    parts = [_axes(x, y, marks, x_label, y_label), *lines, _legend(drawn)]
    return _chart(title, _describe_lines(series), "".join(parts), HEIGHT)


def bar_chart(
    bars: Sequence[Bar], *, title: str, unit: str = "", highest: float | None = None
) -> str:
    """Draw horizontal bars with their intervals, in the given order.

    Args:
        bars: names, values and intervals; none negative.
        title: what the chart shows; also its accessible name.
        unit: written behind every value ("%").
        highest: the right end of the axis; by default the largest value.
    """
    pitch, top = 34, 34
    height = top + pitch * len(bars) + 26
    ends = [bar.high if bar.high is not None else bar.value for bar in bars]
    x = Scale(0.0, highest or span([0.0, *ends], zero=True)[1], 96, WIDTH - 58)
    rules = [
        element("line", x1=x(t), x2=x(t), y1=top, y2=height - 26, class_="rule")
        + text(label(t) + unit, x(t), height - 10, text_anchor="middle")
        for t in x.ticks(4)
    ]
    rows = [_bar(bar, x, top + pitch * i, unit, i % COLOURS) for i, bar in enumerate(bars)]
    said = "; ".join(f"{bar.name} {bar.value:.3g}{unit}" for bar in bars)
    return _chart(title, said, "".join(rules + rows), height)


def standalone(chart: str) -> str:
    """A chart as the text of an .svg file of its own."""
    return chart.replace(">", f"><style>{escape(STYLE, quote=False)}</style>", 1)


def _chart(title: str, description: str, content: str, height: int) -> str:
    head = element("title", escape(title)) + element("desc", escape(description))
    return element(
        "svg",
        head + text(title, 8, 16, class_="title") + content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        class_="chart",
        role="img",
        aria_label=title,
    )


def _describe_lines(series: Sequence[Series]) -> str:
    return "; ".join(
        f"{one.name} from {one.y[0]:.3g} to {one.y[-1]:.3g}" for one in series if len(one.y)
    )


def _x_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axes(x: Scale, y: Scale, x_ticks: Sequence[float], x_label: str, y_label: str) -> str:
    rules = [
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(t), y2=y(t), class_="rule")
        + text(label(t), LEFT - 7, y(t) + 3.5, text_anchor="end")
        for t in y.ticks(5)
    ]
    marks = [text(label(t), x(t), HEIGHT - BOTTOM + 15, text_anchor="middle") for t in x_ticks]
    base = HEIGHT - BOTTOM
    axis = element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis")
    names = text(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, text_anchor="middle")
    if y_label:
        middle = (TOP + base) / 2
        turned = f"rotate(-90 11 {middle:g})"
        names += text(y_label, 11, middle, text_anchor="middle", transform=turned)
    return "".join([*rules, axis, *marks, names])


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    parts, left = [], float(LEFT)
    for i, one in enumerate(series):
        style = f"line s{i % COLOURS}" + (" dashed" if one.dashed else "")
        parts.append(element("line", x1=left, x2=left + 16, y1=30, y2=30, class_=style))
        parts.append(text(one.name, left + 21, 33.5))
        left += 37 + 6.2 * len(one.name)  # an average letter of the 11 px font, with room
    return "".join(parts)


def _line(series: Series, x: Scale, y: Scale, colour: int) -> str:
    style = f"line s{colour}" + (" dashed" if series.dashed else "")
    points = [
        (x(a), y(b)) if _drawable(b, y.log) else None
        for a, b in zip(series.x, series.y, strict=True)
    ]
    parts = [_band(series, x, y, colour), element("path", d=_path(points), class_=style)]
    if series.markers:
        for point, a, b in zip(points, series.x, series.y, strict=True):
            if point is not None:
                said = element("title", escape(f"{series.name}: {label(b)} at {label(a)}"))
                dot = element("circle", said, cx=point[0], cy=point[1], r=2.8, class_=f"f{colour}")
                parts.append(dot)
    return "".join(parts)


def _band(series: Series, x: Scale, y: Scale, colour: int) -> str:
    if series.low is None or series.high is None:
        return ""
    rows = zip(series.x, series.low, series.high, strict=True)
    kept = [r for r in rows if _drawable(r[1], y.log) and _drawable(r[2], y.log)]
    outline = [(x(a), y(high)) for a, _, high in kept]
    outline += [(x(a), y(low)) for a, low, _ in reversed(kept)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in outline)
    return element("polygon", points=points, class_=f"band f{colour}")


def _bar(bar: Bar, x: Scale, top: float, unit: str, colour: int) -> str:
    middle, right = top + 15, x(bar.value)
    said = element("title", escape(f"{bar.name}: {bar.value:.3g}{unit}"))
    length = max(right - x(0.0), 0.5)
    parts = [
        text(bar.name, 88, middle + 4, text_anchor="end"),
        element(
            "rect", said, x=x(0.0), y=top + 6, width=length, height=18, rx=2, class_=f"f{colour}"
        ),
    ]
    end = right
    if bar.low is not None and bar.high is not None:
        low, end = x(bar.low), max(right, x(bar.high))
        parts.append(element("line", x1=low, x2=end, y1=middle, y2=middle, class_="whisker"))
        for cap in (low, x(bar.high)):
            top_end, low_end = middle - 4, middle + 4
            parts.append(element("line", x1=cap, x2=cap, y1=top_end, y2=low_end, class_="whisker"))
    parts.append(text(f"{bar.value:.3g}{unit}", end + 8, middle + 4, class_="value"))
    return "".join(parts)


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """An SVG path through the points; None lifts the pen."""
    parts, down = [], False
    for point in points:
        if point is not None:
            parts.append(f"{'L' if down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        down = point is not None
    return "".join(parts)


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _thinned(series: Series) -> Series:
    """Means of equally many neighbours, if there are more points than pixels can show."""
    size = math.ceil(len(series.x) / MOST_POINTS)
    if size <= 1:
        return series

    def means(values: Sequence[float] | None) -> list[float] | None:
        if values is None:
            return None
        groups = (values[i : i + size] for i in range(0, len(values), size))
        return [sum(group) / len(group) for group in groups]

    fields = {name: means(getattr(series, name)) for name in ("x", "y", "low", "high")}
    return dataclasses.replace(series, **fields)  # type: ignore[arg-type]
