"""Mean, spread and range of columns, computed in one pass over chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

CHUNK_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of a column, one number per component of a row (images: per channel).

    Attributes:
        mean: float64.
        std: population standard deviation.
        min: smallest value.
        max: largest value.
        count: how many values each number summarises.
    """

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    count: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "std", "min", "max")}
        return {**arrays, "count": self.count}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Statistics:
        """Read what `to_dict` wrote."""
        arrays = {
            name: np.asarray(data[name], np.float64) for name in ("mean", "std", "min", "max")
        }
        return cls(**arrays, count=int(data["count"]))


@dataclasses.dataclass(frozen=True)
class Moments:
    """Running count, mean and sum of squared deviations, with the range."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    min: np.ndarray
    max: np.ndarray

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + delta**2 * (self.count * other.count / count),
            np.minimum(self.min, other.min),
            np.maximum(self.max, other.max),
        )

    def statistics(self) -> Statistics:
        """Mean, population deviation and range."""
        return Statistics(
            self.mean, np.sqrt(self.squares / self.count), self.min, self.max, self.count
        )


def stream(chunks: Iterable[np.ndarray], *, image: bool = False) -> Statistics:
    """Statistics of rows [n, ...] that arrive in chunks.

    Args:
        chunks: arrays [n, *shape] of numbers or bools.
        image: rows are uint8 [h, w, C]; the statistics are per channel, [C].

    Returns:
        Arrays of the row's shape (or [C]); NaN, with count 0, if no row came.
    """
    total: Moments | None = None
    shape: tuple[int, ...] = ()
    for chunk in chunks:
        shape = chunk.shape[-1:] if image else chunk.shape[1:]
        if len(chunk):
            part = moments(chunk, image=image)
            total = part if total is None else total.merge(part)
    if total is None:
        nothing = np.full(shape, np.nan)
        return Statistics(nothing, nothing, nothing, nothing, 0)
    return total.statistics()


def chunk_rows(row_bytes: int) -> int:
    """How many rows make a chunk of about CHUNK_BYTES."""
    return max(1, CHUNK_BYTES // max(1, row_bytes))


def moments(chunk: np.ndarray, *, image: bool = False) -> Moments:
    """Moments of rows [n, *shape], n > 0; of uint8 images [n, h, w, C] per channel."""
    if image:
        return _image_moments(chunk)
    values = chunk.astype(np.float64)
    mean = values.mean(0)
    squares = ((values - mean) ** 2).sum(0)
    return Moments(len(values), mean, squares, values.min(0), values.max(0))


def _image_moments(chunk: np.ndarray) -> Moments:
    """Exact integer sums per channel, several times faster than floats."""
    channels = np.ascontiguousarray(chunk.reshape(-1, chunk.shape[-1]).T)
    count = channels.shape[1]
    total = channels.sum(1, dtype=np.int64)
    squares = np.array([_sum_of_squares(channel) for channel in channels])
    mean = total / count
    low, high = channels.min(1).astype(np.float64), channels.max(1).astype(np.float64)
    return Moments(count, mean, squares - total * mean, low, high)


def _sum_of_squares(channel: np.ndarray) -> int:
    wide = channel.astype(np.uint16)  # 255^2 fits
    return int((wide * wide).sum(dtype=np.int64))
