"""Where a replay buffer keeps its rows: one ring per stream and column, in memory or in mapped files."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_toolkit.checkpoint import load_json, replace_folder, save_json
from wm_toolkit.data.tables import ColumnSpec, Layout, Table, layouts
from wm_toolkit.errors import CheckpointError, DataError

log = logging.getLogger(__name__)

DEFAULT_MEMORY = 4 * 2**30
HEAD = "replay.json"
RESERVE = 64 * 2**20
"""Bytes of a disk that mapped files leave free."""
PIECE = 16 * 2**20
"""Bytes of a saved file; what has not changed since the last time is linked, not written again."""


class Rings:
    """Columns [streams, size, ...] that are written round and round, one row of every stream at a time.

    Args:
        specs: of every column.
        streams: N, environments that write side by side.
        size: rows kept of each stream.
        memory: bytes that may be held in memory; larger rings are mapped files.
        folder: where the mapped files go; by default a temporary folder that goes with the buffer.
        expected: rows of each stream that will be written, if that is known: a disk needs to hold no more.
        copies: how often they will lie on that disk, those in checkpoints counted.

    Attributes:
        tables: the memory they lie in.
        columns: by name; those of a few bytes are views into rows in which they lie side by side.
        written: rows written to every stream so far, those overwritten included.
        mapped: whether the columns lie in files.

    Raises:
        DataError: if a size is not positive, or the files cannot be made.
    """

    def __init__(
        self,
        specs: Mapping[str, ColumnSpec],
        *,
        streams: int,
        size: int,
        memory: int = DEFAULT_MEMORY,
        folder: str | Path | None = None,
        expected: int | None = None,
        copies: int = 1,
    ) -> None:
        if streams < 1 or size < 1:
            raise DataError(f"{streams} streams of {size} rows hold nothing; both must be positive")
        self.specs, self.streams, self.size, self.written = dict(specs), streams, size, 0
        self._layouts = layouts(self.specs)
        self.mapped = self.nbytes > memory
        self._own: tempfile.TemporaryDirectory[str] | None = None
        if self.mapped:
            log.warning(
                "a full replay needs %.1f GiB, more than its %.1f GiB of memory: its columns are files",
                self.nbytes / 2**30,
                memory / 2**30,
            )
            if folder is None:
                self._own = tempfile.TemporaryDirectory(prefix="wm-replay-")
                folder = self._own.name
            Path(folder).mkdir(parents=True, exist_ok=True)
            rows = size if expected is None else min(size, expected)
            self._warn_of_the_disk(Path(folder), rows, copies)
        self._folder = folder
        self.tables = [Table(each, self._allocate(each, folder)) for each in self._layouts]
        views = {name: view for table in self.tables for name, view in table.columns.items()}
        self.columns = {name: views[name] for name in self.specs}
        self._between_looks = max(1, PIECE // max(1, self.nbytes // size))
        self._rows = {n: max(1, PIECE // max(1, s.nbytes * streams)) for n, s in self.specs.items()}
        self._saved = ""
        self._same: set[tuple[str, int]] = set()  # pieces that lie in the files of `_saved`

    @property
    def nbytes(self) -> int:
        """Bytes of all columns when full."""
        return self.streams * self.size * sum(layout.nbytes for layout in self._layouts)

    def __len__(self) -> int:
        """Rows kept of each stream."""
        return min(self.written, self.size)

    @property
    def oldest(self) -> int:
        """Number of the oldest row that is kept; rows are numbered as they were written."""
        return max(0, self.written - self.size)

    def add(self, rows: Mapping[str, Any]) -> None:
        """Write one row of every stream, [N, ...] per column.

        Raises:
            DataError: naming a column that is missing, unknown or of another shape.
        """
        if rows.keys() != self.specs.keys():
            raise DataError(f"columns {sorted(rows)} were given, expected {sorted(self.specs)}")
        slot = self.written % self.size
        if self.written < self.size and self.written % self._between_looks == 0:
            self.require_room(self._between_looks)
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
        split: list[int] = []
        if max(slot.tolist(), default=0) > self.size - length:
            split = (slot > self.size - length).nonzero()[0].tolist()
            place[split] = 0  # they go on at the front of the ring, and are copied below
        found: dict[str, np.ndarray] = {}
        for table in self.tables:
            found |= table.sequences(place, length)
        for row in split:
            for name, rows in found.items():
                _copy(self.columns[name][stream[row]], slot[row], rows[row])
        return found

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

    def _warn_of_the_disk(self, folder: Path, rows: int, copies: int) -> None:
        """Say before the start what would fill the disk in the middle of a run.

        Rows that were never written take no room: the files have holes there.
        """
        free, row = shutil.disk_usage(folder).free, self.nbytes // self.size * copies
        if free < rows * row:
            fit = free // row * self.streams
            log.warning(
                "%s has %.1f GiB left and %s rows of replay take %.1f (checkpoints counted), so this will "
                "stop after some %s of them: take a folder on a larger disk, or a capacity of at most that",
                folder,
                free / 2**30,
                f"{rows * self.streams:,}",
                rows * row / 2**30,
                f"{fit:,}",
            )

    def require_room(self, rows: int) -> None:
        """Stop before a disk is full: the system ends a process that writes to a mapped file then.

        Args:
            rows: of each stream that are to be written where nothing was written yet.

        Raises:
            DataError: if too little of the disk is left for them.
        """
        if not self.mapped:
            return
        free = shutil.disk_usage(str(self._folder)).free
        if free < RESERVE + rows * (self.nbytes // self.size):
            raise DataError(
                f"{self._folder} has {free / 2**20:.0f} MiB left, too little for {rows * self.streams:,} more "
                f"rows behind the {self.written * self.streams:,} that were written; make room on the disk "
                "and go on, or begin anew with a smaller capacity"
            )

    def _allocate(self, layout: Layout, folder: str | Path | None) -> np.ndarray:
        shape = (self.streams, self.size, *layout.shape)
        if not self.mapped:
            return np.zeros(shape, layout.dtype)
        path = Path(str(folder)) / f"{layout.name.replace('/', '.')}.ring"
        try:
            return np.memmap(path, layout.dtype, "w+", shape=shape)
        except OSError as error:
            raise DataError(
                f"{path} cannot hold {layout.nbytes * self.streams * self.size / 2**30:.1f} GiB ({error}); "
                "give another folder, or a smaller capacity"
            ) from error


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
