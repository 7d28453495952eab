"""Where a replay buffer keeps its rows: one ring per stream and column, in memory or in mapped files."""

from __future__ import annotations

import dataclasses
import logging
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_toolkit.checkpoint import load_json, replace_folder, save_json
from wm_toolkit.errors import CheckpointError, DataError

log = logging.getLogger(__name__)

DEFAULT_MEMORY = 4 * 2**30
HEAD = "replay.json"


@dataclasses.dataclass(frozen=True)
class ColumnSpec:
    """Shape and dtype of one row of a column."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


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
        self.columns = {name: self._allocate(name, folder) for name in self.specs}

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
        self.written += 1

    def read(self, name: str, stream: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Rows [B, T, ...] of a column: streams [B], row numbers [B, T]."""
        flat = stream[:, None] * self.size + number % self.size
        column = self.columns[name]
        return column.reshape(-1, *column.shape[2:])[flat]

    def write(self, name: str, stream: np.ndarray, number: np.ndarray, values: np.ndarray) -> None:
        """Overwrite rows [B, T] that are still kept with [B, T, ...]; others are left alone."""
        kept = (number >= self.oldest) & (number < self.written)
        rows = np.broadcast_to(stream[:, None], number.shape)[kept]
        self.columns[name][rows, number[kept] % self.size] = values[kept]

    # -- on disk -----------------------------------------------------------------------------------
    def save(self, folder: str | Path, about: Mapping[str, Any]) -> None:
        """Write what is kept, with JSON-ready facts; the old folder stays whole until the new one is."""
        with replace_folder(Path(folder)) as target:
            for name, column in self.columns.items():
                np.save(target / f"{name.replace('/', '.')}.npy", column[:, : len(self)])
            save_json(target / HEAD, {**about, "written": self.written, **self._layout()})

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
        for name, column in self.columns.items():
            path = folder / f"{name.replace('/', '.')}.npy"
            kept = _load(path)
            column[:, : kept.shape[1]] = kept
        self.written = int(head["written"])
        return head

    def _layout(self) -> dict[str, Any]:
        specs = {n: [list(s.shape), s.dtype.str] for n, s in sorted(self.specs.items())}
        return {"streams": self.streams, "size": self.size, "columns": specs}

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


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); the saved replay is damaged"
        ) from error
