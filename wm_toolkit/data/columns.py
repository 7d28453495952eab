"""Columns: named arrays over rows, usually memory maps of one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import h5py
import numpy as np


class Rows(Protocol):
    """The part of an array that columns need: a shape, a dtype, slices and index arrays."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a data set.

    Attributes:
        name: "obs/image", "action", "reward", "terminated", "truncated", or any extra name.
        array: [rows, *shape]; indexing it reads from disk.
        unit: "m", "rad/s", "px" ...; empty if unknown.
        description: one sentence.
    """

    name: str
    array: Rows
    unit: str = ""
    description: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Type of one number."""
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all rows together."""
        return int(np.prod(self.array.shape, dtype=np.int64)) * self.dtype.itemsize


class ChunkedRows:
    """A chunked or compressed HDF5 data set behind the interface of an array (slow; convert it)."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)
        self.dtype: np.dtype = dataset.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> np.ndarray:
        if isinstance(index, np.ndarray):
            # h5py wants increasing, unique indices.
            unique, inverse = np.unique(index, return_inverse=True)
            return self._dataset[unique][inverse.reshape(index.shape)]
        return self._dataset[index]


def feature_columns(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The columns of encoded frames that a data set's metadata speaks of: {column: identity}."""
    return dict(metadata.get("features") or {})


def map_rows(dataset: h5py.Dataset, raw: np.ndarray) -> Rows:
    """An HDF5 data set [rows, ...] as a view of its file's bytes, or read through h5py if chunked.

    Args:
        dataset: any HDF5 data set.
        raw: uint8 [N], the memory-mapped bytes of the whole file.

    Returns:
        [rows, ...], an array that reads from disk when it is indexed.
    """
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset() if dataset.chunks is None else None
    native = dataset.dtype.isnative and not dataset.dtype.hasobject
    if offset is None or not native or dataset.external:
        return ChunkedRows(dataset)
    size = dataset.size * dataset.dtype.itemsize
    return raw[offset : offset + size].view(dataset.dtype).reshape(dataset.shape)
