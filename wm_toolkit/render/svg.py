"""The small part of SVG that charts need: elements, scales, ticks, number labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

FINEST_LOG_DECADES = 2.0  # below this many decades a log axis also labels 2 and 5


def element(name: str, content: str = "", **attributes: object) -> str:
    """One element; `class_` and `stroke_width` style names become `class` and `stroke-width`."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{text}>{content}</{name}>" if content else f"<{name}{text}/>"


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """Escaped text at a place."""
    return element("text", escape(content), x=x, y=y, **attributes)


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def label(value: float) -> str:
    """A number as a tick label: 1500 -> "1.5k", 0.00002 -> "2e-5"."""
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values to pixels.

    Attributes:
        low, high: the values at both ends; positive if `log`.
        start, end: their pixels; `start > end` for an axis that points up.
        log: logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self._forward(self.low), self._forward(self.high)
        return self.start + (self._forward(value) - low) / (high - low) * (self.end - self.start)

    def _forward(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, about: int = 5, finest: float = 0.0) -> list[float]:
        """Round values inside the range, on a linear axis at least `finest` apart."""
        if self.log:
            return log_ticks(self.low, self.high, about)
        return linear_ticks(self.low, self.high, about, finest)


def linear_ticks(low: float, high: float, about: int = 5, finest: float = 0.0) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside [low, high], about so many.

    Args:
        low, high: the range.
        about: how many to aim at.
        finest: no smaller step than this; 1 for whole numbers.
    """
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = max(finest, power * min((1, 2, 5, 10), key=lambda m: abs(m * power - raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Powers of ten inside [low, high]; over a short range also 2 and 5 times them, or round steps."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high / low)
    every = max(1, math.ceil(decades / about))
    factors = (1, 2, 5) if decades < FINEST_LOG_DECADES else (1,)
    ticks = [f * 10.0**p for p in range(first, last + 1, every) for f in factors]
    inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return inside if len(inside) > 2 else [t for t in linear_ticks(low, high, about) if t > 0]


def span(values: Sequence[float], *, log: bool = False, zero: bool = False) -> tuple[float, float]:
    """The range an axis shows: all finite values with a little room, at least a sliver wide.

    Args:
        values: what is plotted; NaN and infinity are left out, as are values a log axis cannot show.
        log: for a logarithmic axis.
        zero: begin at zero if nothing is negative.
    """
    shown = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not shown:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(shown), max(shown)
    if log:
        return low / 1.1, high * 1.1
    if zero and low >= 0:
        low = 0.0
    if high == low:
        return low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    room = 0.04 * (high - low)
    return (low if low == 0 and zero else low - room), high + room
