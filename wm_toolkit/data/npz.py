"""NPZ files read a run of rows at a time, and never a pickled object."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from wm_toolkit.data.foreign import reading
from wm_toolkit.errors import DataError


class NpzFile:
    """The arrays of an NPZ file, compressed or not.

    Args:
        path: the file.

    Attributes:
        path: the file.
        names: of its arrays.

    Raises:
        DataError: if it is no NPZ file, or a truncated one.

    Example:
        >>> NpzFile("episode.npz").read("action").shape
        (501, 6)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._zip = zipfile.ZipFile(path)
        files = self._zip.namelist()
        self.names = [name.removesuffix(".npy") for name in files if name.endswith(".npy")]

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of an array, without reading it.

        Raises:
            DataError: naming file and column, if it is missing, damaged or holds Python objects.
        """
        with reading(self.path, name), self._open(name) as file:
            shape, _, dtype = _header(file)
            return shape, dtype

    def read(self, name: str) -> np.ndarray:
        """A whole array.

        Raises:
            DataError: naming file and column, if it is missing, damaged or holds Python objects.
        """
        with reading(self.path, name), self._open(name) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def runs(self, name: str, lengths: Sequence[int], start: int = 0) -> Iterator[np.ndarray]:
        """Runs of `lengths` rows one after the other, in memory one at a time.

        Args:
            name: of the array.
            lengths: rows of every run.
            start: number of the first run wanted; those before are skipped.

        Raises:
            DataError: naming file, column and run, if the array is damaged or too short.
        """
        with reading(self.path, name):
            file = self._open(name)
            shape, fortran, dtype = _header(file)
            if not fortran:
                file.seek(file.tell() + int(sum(lengths[:start])) * _row_bytes(shape, dtype))
        if fortran:  # its rows do not lie one after the other
            yield from _split(self.read(name), lengths, start)
            return
        for i, length in enumerate(lengths[start:], start):
            rows = np.empty((length, *shape[1:]), dtype)
            with reading(self.path, name, i):
                _fill(rows, file)
            yield rows

    def _open(self, name: str) -> IO[bytes]:
        if name not in self.names:
            raise DataError(f"{self.path} has no {name!r}; there are {sorted(self.names)}")
        return self._zip.open(f"{name}.npy")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    formats: Any = np.lib.format
    version = formats.read_magic(file)
    read = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"version {version} of NPY is not for plain arrays")
    shape, fortran, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are not loaded")
    return shape, fortran and len(shape) > 1, dtype


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return int(np.prod(shape[1:])) * dtype.itemsize


def _fill(rows: np.ndarray, file: IO[bytes]) -> None:
    data = file.read(rows.nbytes)
    if len(data) < rows.nbytes:
        raise ValueError(f"it ends {rows.nbytes - len(data)} bytes early")
    rows.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)


def _split(array: np.ndarray, lengths: Sequence[int], start: int) -> Iterator[np.ndarray]:
    stops = np.cumsum(lengths)
    for stop, length in list(zip(stops, lengths, strict=True))[start:]:
        yield np.ascontiguousarray(array[stop - length : stop])
