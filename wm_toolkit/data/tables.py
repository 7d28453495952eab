"""Memory for rows of several columns, from which sequences are copied at nearly the speed of memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from wm_toolkit.data.buffers import LEAST, Buffers
from wm_toolkit.data.trajectory import OBS
from wm_toolkit.spaces import Spaces

FLAGS = ("is_first", "terminated", "truncated")
NARROW = 256
"""Bytes of a row. Columns of less lie side by side in one table: a copy of one long piece takes as long as
one of a short piece."""


@dataclasses.dataclass(frozen=True)
class ColumnSpec:
    """Shape and dtype of one row of a column."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


def specs_of(spaces: Spaces) -> dict[str, ColumnSpec]:
    """Columns for everything that happens in an environment; double precision is halved."""
    columns = {
        OBS + key: ColumnSpec(tuple(space.shape or ()), _kept(np.dtype(space.dtype)))
        for key, space in spaces.observation.items()
    }
    columns["action"] = ColumnSpec((spaces.action_width,), np.dtype(np.float32))
    columns["reward"] = ColumnSpec((), np.dtype(np.float32))
    return columns | {name: ColumnSpec((), np.dtype(bool)) for name in FLAGS}


def _kept(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32) if dtype == np.float64 else dtype


@dataclasses.dataclass(frozen=True)
class Layout(ColumnSpec):
    """What a table holds: its only column, or a record with a field for every one.

    Attributes:
        name: of its file.
        names: of its columns.
    """

    name: str
    names: tuple[str, ...]


def layouts(specs: Mapping[str, ColumnSpec]) -> list[Layout]:
    """Tables for these columns: one for all that are narrow, one for each of the others."""
    narrow = {name: spec for name, spec in specs.items() if 0 < spec.nbytes < NARROW}
    found = [Layout(s.shape, s.dtype, n, (n,)) for n, s in specs.items() if n not in narrow]
    if not narrow:
        return found
    # From the widest numbers to the narrowest, so that all lie aligned, as torch asks for, without gaps.
    names = sorted(narrow, key=lambda name: (-narrow[name].dtype.itemsize, name))
    fields = [(name, narrow[name].dtype, narrow[name].shape) for name in names]
    return [Layout((), np.dtype(fields, align=True), "_narrow", tuple(names)), *found]


class Table:
    """Rows [streams, size] of some columns, and the sequences that can be cut out of them.

    Args:
        layout: of a row.
        array: [streams, size, *layout.shape] the memory.
    """

    def __init__(self, layout: Layout, array: np.ndarray) -> None:
        self.layout, self.array = layout, array
        # Not as a memory map, which takes a microsecond for every slice.
        self._rows = np.asarray(array).reshape(math.prod(array.shape[:2]), *layout.shape)
        self._cuts: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
        self._buffers = Buffers()

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Every column [streams, size, ...], as a view."""
        return self._split(self.array)

    def sequences(self, place: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Copies [B, length, ...] of every column, from rows [B], counted through all streams, on."""
        cut = self._cuts.get(length) or self._make_cut(length)
        return self._split(cut(place))

    def _split(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        names = self.layout.names
        if self.layout.dtype.names is None:
            return {names[0]: rows}
        return {name: rows[name] for name in names}

    def _make_cut(self, length: int) -> Callable[[np.ndarray], np.ndarray]:
        """How sequences of a length are copied: all in one call while they are small."""
        # A column of records does not hold on to memory of the pool, so those are always copied anew.
        small = self.layout.nbytes * length < LEAST or self.layout.dtype.names is not None
        self._cuts[length] = cut = self._at_once(length) if small else self._one_by_one(length)
        return cut

    def _at_once(self, length: int) -> Callable[[np.ndarray], np.ndarray]:
        rows, step = self._rows, self._rows.strides[0]
        memory = rows.reshape(-1).view(np.uint8)
        # Overlapping items, each the bytes of one whole sequence.
        every = np.ndarray((len(rows) - length + 1,), f"V{step * length}", memory, strides=(step,))
        shape, dtype = (length, *rows.shape[1:]), rows.dtype
        return lambda place: np.ndarray((len(place), *shape), dtype, every[place])

    def _one_by_one(self, length: int) -> Callable[[np.ndarray], np.ndarray]:
        """Into memory that was used before, as clearing it would take as long."""
        rows, shape = self._rows, (length, *self._rows.shape[1:])

        def cut(place: np.ndarray) -> np.ndarray:
            found = self._buffers.empty((len(place), *shape), rows.dtype)
            for row, first in enumerate(place.tolist()):
                found[row] = rows[first : first + length]
            return found

        return cut
