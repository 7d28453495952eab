"""Where a replay buffer keeps its rows: one ring per stream and column, in memory or in mapped files."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wm_toolkit.checkpoint import load_json, replace_folder, save_json
from wm_toolkit.data.buffers import LEAST, Buffers
from wm_toolkit.errors import CheckpointError, DataError

log = logging.getLogger(__name__)

DEFAULT_MEMORY = 4 * 2**30
HEAD = "replay.json"
PIECE = 16 * 2**20
"""Bytes of a saved file; what has not changed since the last time is linked, not written again."""


@dataclasses.dataclass(frozen=True)
class ColumnSpec:
    """Shape and dtype of one row of a column."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


class Pieces(NamedTuple):
    """Every sequence of a column that lies in one piece.

    Attributes:
        view: [streams * size - length + 1] overlapping items, each the bytes of one sequence.
        shape: [length, ...] of a sequence.
        dtype: of its numbers.
    """

    view: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype


class Rings:
    """Columns [streams, size, ...] that are written round and round, one row of every stream at a time.

    Args:
        specs: of every column.
        streams: N, environments that write side by side.
        size: rows kept of each stream.
        memory: bytes that may be held in memory; larger rings are mapped files.
        folder: where the mapped files go; by default a temporary folder that goes with the buffer.

    Attributes:
        columns: by name.
        written: rows written to every stream so far, those overwritten included.
        mapped: whether the columns lie in files.

    Raises:
        DataError: if a size is not positive, or a disk cannot hold the files.
    """

    def __init__(
        self,
        specs: Mapping[str, ColumnSpec],
        *,
        streams: int,
        size: int,
        memory: int = DEFAULT_MEMORY,
        folder: str | Path | None = None,
    ) -> None:
        if streams < 1 or size < 1:
            raise DataError(f"{streams} streams of {size} rows hold nothing; both must be positive")
        self.specs, self.streams, self.size, self.written = dict(specs), streams, size, 0
        self.mapped = self.nbytes > memory
        self._own: tempfile.TemporaryDirectory[str] | None = None
        if self.mapped:
            log.warning(
                "the replay needs %.1f GiB, more than its %.1f GiB of memory: its columns are files",
                self.nbytes / 2**30,
                memory / 2**30,
            )
            if folder is None:
                self._own = tempfile.TemporaryDirectory(prefix="wm-replay-")
                folder = self._own.name
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._check_room(Path(folder))
        self.columns = {name: self._allocate(name, folder) for name in self.specs}
        self._rows = {n: max(1, PIECE // max(1, s.nbytes * streams)) for n, s in self.specs.items()}
        self._buffers = Buffers()
        self._cuts: dict[int, tuple[dict[str, Pieces], dict[str, np.ndarray]]] = {}
        self._saved = ""
        self._same: set[tuple[str, int]] = set()  # pieces that lie in the files of `_saved`

    @property
    def nbytes(self) -> int:
        """Bytes of all columns when full."""
        return self.streams * self.size * sum(spec.nbytes for spec in self.specs.values())

    def __len__(self) -> int:
        """Rows kept of each stream."""
        return min(self.written, self.size)

    @property
    def oldest(self) -> int:
        """Number of the oldest row that is kept; rows are numbered as they were written."""
        return self.written - len(self)

    def add(self, rows: Mapping[str, Any]) -> None:
        """Write one row of every stream, [N, ...] per column.

        Raises:
            DataError: naming a column that is missing, unknown or of another shape.
        """
        if rows.keys() != self.specs.keys():
            raise DataError(f"columns {sorted(rows)} were given, expected {sorted(self.specs)}")
        slot = self.written % self.size
        for name, value in rows.items():
            array, expected = np.asarray(value), (self.streams, *self.specs[name].shape)
            if array.shape != expected:
                raise DataError(f"{name} has shape {array.shape}, expected {expected}")
            self.columns[name][:, slot] = array
            self._same.discard((name, slot // self._rows[name]))
        self.written += 1

    def read(self, name: str, stream: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Rows [B, T, ...] of a column: streams [B], row numbers [B, T]."""
        flat = stream[:, None] * self.size + number % self.size
        column = self.columns[name]
        return column.reshape(-1, *column.shape[2:])[flat]

    def sequences(
        self, stream: np.ndarray, start: np.ndarray, length: int
    ) -> dict[str, np.ndarray]:
        """Rows [B, length, ...] of every column, from rows [B] of streams [B] on.

        What `read` gives for their numbers, nearly as fast as memory can be copied.
        """
        slot = start % self.size
        place = stream * self.size + slot
        split = (slot > self.size - length).nonzero()[0].tolist()
        if split:  # they go on at the front of the ring, and are copied below
            place[split] = 0
        small, large = self._cuts.get(length) or self._cut(length)
        found = {
            name: np.ndarray((len(place), *shape), dtype, view[place])
            for name, (view, shape, dtype) in small.items()
        }
        for name, rows in large.items():
            found[name] = self._large(rows, place, length)
        for row in split:
            for name, rows in found.items():
                _copy(self.columns[name][stream[row]], slot[row], rows[row])
        return found

    def _large(self, rows: np.ndarray, place: np.ndarray, length: int) -> np.ndarray:
        """Sequences that are large in memory that was used before, as clearing it would take as long."""
        found = self._buffers.empty((len(place), length, *rows.shape[1:]), rows.dtype)
        for row, first in enumerate(place.tolist()):
            found[row] = rows[first : first + length]
        return found

    def _cut(self, length: int) -> tuple[dict[str, Pieces], dict[str, np.ndarray]]:
        """Columns whose sequences are small enough to be copied in one call, and rows of the others."""
        small, large = {}, {}
        for name, spec in self.specs.items():
            # Not as a memory map, which takes a microsecond for every slice.
            rows = np.asarray(self.columns[name]).reshape(self.streams * self.size, *spec.shape)
            if spec.nbytes * length < LEAST:
                small[name] = _pieces(rows, length)
            else:
                large[name] = rows
        self._cuts[length] = small, large
        return small, large

    def write(self, name: str, stream: np.ndarray, start: np.ndarray, values: np.ndarray) -> None:
        """Overwrite rows from rows [B] of streams [B] on with [B, T, ...], where they are still kept."""
        column = np.asarray(self.columns[name])
        for n, first, rows in zip(stream.tolist(), start.tolist(), values, strict=True):
            low = max(first, self.oldest)
            kept = rows[low - first : max(0, self.written - first)]
            self._put(name, column[n], low % self.size, kept)

    def _put(self, name: str, ring: np.ndarray, slot: int, rows: np.ndarray) -> None:
        """Write rows into one ring from a slot on, in at most two pieces."""
        head, size = min(len(ring) - slot, len(rows)), self._rows[name]
        for first, part in ((slot, rows[:head]), (0, rows[head:])):
            if len(part):
                ring[first : first + len(part)] = part
                touched = range(first // size, (first + len(part) - 1) // size + 1)
                self._same.difference_update((name, piece) for piece in touched)

    # -- on disk -----------------------------------------------------------------------------------
    def save(
        self,
        folder: str | Path,
        about: Mapping[str, Any],
        previous: str | Path | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write what is kept, with JSON-ready facts; the old folder stays whole until the new one is.

        Args:
            folder: where to.
            about: the facts.
            previous: where it was saved to before; what has not changed is linked from there.
            arrays: what is no column, for `load_array`.
        """
        saved = uuid.uuid4().hex
        old = None if previous is None or not self._lies_in(Path(previous)) else Path(previous)
        with replace_folder(Path(folder)) as target:
            for name, column in self.columns.items():
                for piece, rows in self._pieces(name):
                    file = _file(name, piece)
                    known = old / file if old and (name, piece) in self._same else None
                    _place(column[:, rows], target / file, known)
            for name, array in (arrays or {}).items():
                np.save(target / f"{name}.npy", array)
            head = {**about, "saved": saved, "written": self.written, **self._layout()}
            save_json(target / HEAD, head)
        self._saved, self._same = saved, self._all_pieces()

    def _lies_in(self, folder: Path) -> bool:
        """Whether a folder holds what was saved or loaded last."""
        return (folder / HEAD).exists() and load_json(folder / HEAD).get("saved") == self._saved

    def _pieces(self, name: str) -> Iterator[tuple[int, slice]]:
        """Numbers and slots of the files of a column."""
        rows = self._rows[name]
        for piece in range(-(-len(self) // rows)):
            yield piece, slice(piece * rows, min((piece + 1) * rows, len(self)))

    def _all_pieces(self) -> set[tuple[str, int]]:
        return {(name, piece) for name in self.specs for piece, _ in self._pieces(name)}

    def load(self, folder: str | Path) -> dict[str, Any]:
        """Read what `save` wrote; returns its facts.

        Raises:
            CheckpointError: if it is damaged, or was saved by a buffer of another layout.
        """
        folder = Path(folder)
        head = load_json(folder / HEAD)
        saved = {key: head.get(key) for key in self._layout()}
        if saved != self._layout():
            raise CheckpointError(
                f"{folder} holds a replay of layout {saved}, this one is {self._layout()}"
            )
        self.written = int(head["written"])
        for name, column in self.columns.items():
            for piece, rows in self._pieces(name):
                column[:, rows] = _load(folder / _file(name, piece))
        self._saved, self._same = str(head["saved"]), self._all_pieces()
        return head

    def _layout(self) -> dict[str, Any]:
        specs = {n: [list(s.shape), s.dtype.str] for n, s in sorted(self.specs.items())}
        return {"streams": self.streams, "size": self.size, "columns": specs}

    def _check_room(self, folder: Path) -> None:
        """Refuse before the start what would fill the disk in the middle of a run."""
        free = shutil.disk_usage(folder).free
        if free < self.nbytes:
            raise DataError(
                f"{folder} has {free / 2**30:.1f} GiB left and the replay needs "
                f"{self.nbytes / 2**30:.1f} GiB; give another folder, or a smaller capacity"
            )

    def _allocate(self, name: str, folder: str | Path | None) -> np.ndarray:
        spec = self.specs[name]
        shape = (self.streams, self.size, *spec.shape)
        if not self.mapped:
            return np.zeros(shape, spec.dtype)
        path = Path(str(folder)) / f"{name.replace('/', '.')}.ring"
        try:
            return np.memmap(path, spec.dtype, "w+", shape=shape)
        except OSError as error:
            raise DataError(
                f"{path} cannot hold {spec.nbytes * self.streams * self.size / 2**30:.1f} GiB ({error}); "
                "give another folder, or a smaller capacity"
            ) from error


def _pieces(rows: np.ndarray, length: int) -> Pieces:
    """Every sequence of rows [N, ...]."""
    step = rows.strides[0]
    memory = rows.reshape(-1).view(np.uint8)
    view = np.ndarray((len(rows) - length + 1,), f"V{step * length}", memory, strides=(step,))
    return Pieces(view, (length, *rows.shape[1:]), rows.dtype)


def _copy(ring: np.ndarray, first: int, target: np.ndarray) -> None:
    """Rows of one ring from slot `first` on, in at most two pieces."""
    head = min(len(ring) - first, len(target))
    target[:head] = ring[first : first + head]
    if head < len(target):
        target[head:] = ring[: len(target) - head]


def _file(name: str, piece: int) -> str:
    return f"{name.replace('/', '.')}.{piece:05d}.npy"


def _place(rows: np.ndarray, path: Path, known: Path | None) -> None:
    """A file of these rows: another name of one that holds them, or a new one."""
    if known is not None:
        try:
            os.link(known, path)
            return
        except OSError:
            log.debug("%s cannot be linked here, so it is written again", known)
    np.save(path, rows)


def load_array(folder: str | Path, name: str) -> np.ndarray:
    """An array that was saved beside the columns.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    return _load(Path(folder) / f"{name}.npy")


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); the saved replay is damaged"
        ) from error
