"""What can be wrong with a trajectory's numbers, said with column, episode and row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import gymnasium as gym
import numpy as np
from gymnasium import spaces as gs

from wm_toolkit.errors import DataError
from wm_toolkit.spaces import is_image

# Bounds are stored in the space's own precision; actions may have been computed in another one.
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        message: what is wrong, with the value, and what was expected.
        file: where.
        column: "action", "obs/image" ...; empty if the whole file is meant.
        episode: number of the episode, from 0.
        row: row inside the episode, from 0.
        severity: "error" makes the data unfit for training, "note" is worth knowing.
    """

    message: str
    file: str = ""
    column: str = ""
    episode: int | None = None
    row: int | None = None
    severity: str = "error"

    def __str__(self) -> str:
        place = [self.file] if self.file else []
        place += [f"column {self.column!r}"] if self.column else []
        place += [f"episode {self.episode}"] if self.episode is not None else []
        place += [f"row {self.row}"] if self.row is not None else []
        return f"{', '.join(place)}: {self.message}" if place else self.message


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise a DataError for the first error (and count the others); notes pass.

    Raises:
        DataError: naming file, column, episode and row.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more; see `wm inspect`)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")


def column_problems(
    column: str, values: np.ndarray, space: gym.Space, rows: int
) -> Iterator[Problem]:
    """Check length, row shape and dtype of `values` [rows, *space.shape] against a space."""
    shape = tuple(space.shape or ())
    if len(values) != rows:
        yield Problem(f"has {len(values)} rows, expected {rows}", column=column)
    if values.shape[1:] != shape:
        yield Problem(f"rows have shape {values.shape[1:]}, expected {shape}", column=column)
    dtype = np.dtype(space.dtype)
    if dtype == np.uint8 and values.dtype != np.uint8 and is_image(space):
        yield Problem(f"is {values.dtype}, images are uint8 [h, w, C] in 0..255", column=column)
    elif not np.can_cast(values.dtype, dtype, "same_kind"):
        yield Problem(f"has dtype {values.dtype}, its space asks for {dtype}", column=column)
    elif column.endswith(("image", "pixels")) and len(shape) == 3 and dtype != np.uint8:
        yield Problem(f"image stored as {dtype}, expected uint8 [h, w, C]", column=column)


def action_problems(action: np.ndarray, space: gym.Space) -> Iterator[Problem]:
    """Look for NaN, infinite and out-of-space actions [T, *space.shape]."""
    low, high = space_bounds(space)
    if action.shape[1:] != low.shape:
        return
    finite = np.isfinite(action)
    yield from _first("action", action, ~finite, "expected finite numbers")
    margin = TOLERANCE * np.maximum(1.0, np.maximum(_size(low), _size(high)))
    outside = finite & ((action < low - margin) | (action > high + margin))
    yield from _first("action", action, outside, f"lies outside the action space {space}")


def number_problems(
    column: str, values: np.ndarray, *, infinity: bool, first_row: int = 0
) -> Iterator[Problem]:
    """Look for NaN (and, unless `infinity` is allowed, infinite) numbers in values [N, ...]."""
    if values.dtype.kind != "f":
        return
    bad = np.isnan(values) if infinity else ~np.isfinite(values)
    yield from _first(column, values, bad, "expected a number", first_row)


def ending_problems(flags: Mapping[str, np.ndarray]) -> Iterator[Problem]:
    """terminated and truncated [T] may be true on the last step only."""
    for column, values in flags.items():
        early = np.flatnonzero(values[:-1])
        if len(early):
            yield Problem(
                f"is true before the episode's last row ({len(values)}); split the episode there",
                column=column,
                row=int(early[0]) + 1,
            )


def space_bounds(space: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of every component, arrays of the space's shape."""
    if isinstance(space, gs.Box):
        return space.low, space.high
    if isinstance(space, gs.Discrete):
        return np.asarray(space.start), np.asarray(space.start + space.n - 1)
    if isinstance(space, gs.MultiDiscrete):
        return np.asarray(space.start), np.asarray(space.start + space.nvec - 1)
    shape = space.shape or ()
    return np.zeros(shape, np.int8), np.ones(shape, np.int8)


def _size(bound: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(bound), np.abs(bound.astype(np.float64)), 0.0)


def _first(
    column: str, values: np.ndarray, bad: np.ndarray, expected: str, first_row: int = 0
) -> Iterator[Problem]:
    """One problem for all marked values [n, ...], placed at the first of them."""
    if not bad.any():
        return
    place = np.argwhere(bad)[0]
    component = f" component {tuple(map(int, place[1:]))}" if len(place) > 1 else ""
    rows = int(bad.reshape(len(bad), -1).any(1).sum())
    yield Problem(
        f"{values[tuple(place)]}{component} {expected} ({rows} such rows in this episode)",
        column=column,
        row=int(place[0]) + first_row,
    )
