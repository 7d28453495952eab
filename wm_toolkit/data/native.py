"""The native file: one HDF5 file of flat, contiguous columns, readable by plain h5py.

    /columns/obs/<key>, /columns/action, reward, terminated, truncated, <extra>   [rows, ...]
    /episode_length                                                             int64 [episodes]
    /episode_info                                               JSON text [episodes], if there is any
    attributes: format, version, spaces (JSON), metadata (JSON: source, licence, env ...), checksum
    attributes of a column: unit, description

Rows follow the row convention of `wm_toolkit.data.trajectory`. Columns are neither chunked nor compressed
and begin on a page, so a memory map reads them as plain arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wm_toolkit.checkpoint import replace_file
from wm_toolkit.data.checks import Problem, raise_problems
from wm_toolkit.data.columns import ChunkedRows, Column, Rows, map_rows
from wm_toolkit.data.foreign import reading
from wm_toolkit.data.partial import plain
from wm_toolkit.data.statistics import chunk_rows
from wm_toolkit.data.trajectory import OBS, Trajectory
from wm_toolkit.errors import DataError, SpaceError
from wm_toolkit.spaces import Spaces

VERSION = 1
PAGE = 4096
REQUIRED = ("action", "terminated", "truncated")


@dataclasses.dataclass
class NativeData:
    """An opened native file; its columns are memory maps.

    Attributes:
        path: the file.
        columns: by name.
        episode_lengths: int64 [episodes] rows of each episode (steps + 1).
        spaces: observation spaces and the raw action space.
        metadata: source, licence, env ...
        checksum: SHA-256 of the content, as it was when written.
        info: one dict per episode (seed, options ...), or empty.
        problems: empty; structural errors are raised when opening.
    """

    path: Path
    columns: dict[str, Column]
    episode_lengths: np.ndarray
    spaces: Spaces
    metadata: dict[str, Any]
    checksum: str
    info: list[dict[str, Any]]
    problems: list[Problem] = dataclasses.field(default_factory=list)

    @property
    def units(self) -> dict[str, str]:
        """Units by column name, where known."""
        return {name: column.unit for name, column in self.columns.items() if column.unit}

    def __len__(self) -> int:
        return len(self.episode_lengths)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on; arrays are views of the file."""
        stops = np.cumsum(self.episode_lengths)
        for i in range(start, len(self)):
            rows = slice(int(stops[i] - self.episode_lengths[i]), int(stops[i]))
            arrays = {name: column.array[rows] for name, column in self.columns.items()}
            yield Trajectory.from_rows(arrays, self.info[i] if self.info else {})


def open_native(path: str | Path, *, check: bool = True) -> NativeData:
    """Open a native file without reading its rows.

    Args:
        path: the file.
        check: compare columns, lengths and spaces with one another (cheap).

    Raises:
        DataError: if the file is missing, truncated, of another layout, or does not add up.
    """
    path = Path(path)
    with reading(path):
        return _open_native(path, check)


def _open_native(path: Path, check: bool) -> NativeData:
    file = _open_file(path)
    spaces = Spaces.from_dict(_attribute(file, "spaces", path))
    if check:
        raise_problems(dataclasses.replace(p, file=str(path)) for p in structure(file, spaces))
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    columns = {name: _column(name, data, raw) for name, data in _datasets(file).items()}
    lengths = _small(file, "episode_length")
    texts = _small(file, "episode_info") if "episode_info" in file else ()
    info = [_json(text, f"{path}, episode_info of episode {i}") for i, text in enumerate(texts)]
    data = NativeData(
        path,
        columns,
        lengths.astype(np.int64),
        spaces,
        _attribute(file, "metadata", path),
        str(file.attrs.get("checksum", "")),
        info,
    )
    if not any(isinstance(column.array, ChunkedRows) for column in columns.values()):
        file.close()
    return data


def structure(file: h5py.File, spaces: Spaces) -> Iterator[Problem]:
    """What does not add up in an opened file: missing columns, lengths, shapes, dtypes."""
    datasets = _datasets(file)
    if "episode_length" not in file:
        yield Problem("is missing; it says how many rows each episode has", column="episode_length")
        return
    lengths = _small(file, "episode_length")
    for i in np.flatnonzero(lengths < 1)[:1]:
        yield Problem(
            f"is {lengths[i]}, expected at least 1", column="episode_length", episode=int(i)
        )
    for name in [*REQUIRED, *(OBS + key for key in spaces.observation)]:
        if name not in datasets:
            yield Problem(f"is missing; there are {sorted(datasets)}", column=name)
    rows = int(lengths.sum())
    for name, data in datasets.items():
        if len(data) != rows:
            yield Problem(
                f"has {len(data)} rows, but the {len(lengths)} episodes add up to {rows}",
                column=name,
            )
    if "episode_info" in file and len(_small(file, "episode_info")) != len(lengths):
        count = len(_small(file, "episode_info"))
        yield Problem(f"has {count} entries for {len(lengths)} episodes", column="episode_info")
    known = {"action": spaces.action} | {OBS + k: s for k, s in spaces.observation.items()}
    for name in known.keys() & datasets.keys():
        shape, dtype = datasets[name].shape[1:], datasets[name].dtype
        if shape != tuple(known[name].shape or ()):
            yield Problem(f"rows have shape {shape}, expected {known[name].shape}", column=name)
        if not np.can_cast(dtype, np.dtype(known[name].dtype), "same_kind"):
            yield Problem(f"has dtype {dtype}, its space asks for {known[name].dtype}", column=name)


def file_problems(path: Path) -> list[Problem]:
    """Everything that keeps a native file from being opened; empty if it is sound."""
    try:
        with reading(path), _open_file(path) as file:
            _attribute(file, "metadata", path)
            spaces = Spaces.from_dict(_attribute(file, "spaces", path))
            return [dataclasses.replace(p, file=str(path)) for p in structure(file, spaces)]
    except (DataError, SpaceError) as error:
        return [Problem(str(error))]  # the message names the file


def write_file(
    path: Path,
    parts: Mapping[str, Sequence[Rows]],
    episodes: Sequence[Mapping[str, Any]],
    *,
    spaces: Spaces,
    metadata: Mapping[str, Any],
    units: Mapping[str, str],
    descriptions: Mapping[str, str],
) -> None:
    """Write a native file under a temporary name, then rename it onto `path`.

    Args:
        path: the file; an older one stays whole until the new one is complete.
        parts: arrays [rows, ...] per column, concatenated in order.
        episodes: per episode its number of "rows" and its "info".
        spaces: observation spaces and the raw action space.
        metadata: JSON-ready.
        units: by column name.
        descriptions: by column name.
    """
    lengths = np.array([entry["rows"] for entry in episodes], np.int64)
    with (
        replace_file(path) as temporary,
        h5py.File(temporary, "w", alignment_threshold=PAGE, alignment_interval=PAGE) as file,
    ):
        digests = {}
        for name in sorted(parts):
            column, digests[name] = _write_column(file, name, parts[name])
            column.attrs["unit"] = units.get(name, "")
            column.attrs["description"] = descriptions.get(name, "")
        file["episode_length"] = lengths
        if any(entry["info"] for entry in episodes):
            file["episode_info"] = [json.dumps(e["info"], default=plain) for e in episodes]
        file.attrs["format"], file.attrs["version"] = "wm_toolkit", VERSION
        file.attrs["spaces"] = json.dumps(spaces.to_dict())
        file.attrs["metadata"] = json.dumps(dict(metadata), default=plain)
        file.attrs["checksum"] = _combine(digests, lengths)


def content_checksum(columns: Mapping[str, Column], lengths: np.ndarray) -> str:
    """SHA-256 of every row, name and dtype and of the lengths [N] of episodes; reads everything."""
    digests = {}
    for name, column in columns.items():
        digest = _column_digest(name, column.dtype, column.array.shape)
        for block in _blocks(column.array):
            digest.update(_bytes(block))
        digests[name] = digest.hexdigest()
    return _combine(digests, lengths)


def _open_file(path: Path) -> h5py.File:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path} cannot be opened ({error}); it is truncated or not HDF5, copy it again"
        ) from error
    if file.attrs.get("format") != "wm_toolkit":
        found = sorted(file)
        file.close()
        raise DataError(
            f"{path} is HDF5 but not a wm_toolkit data set (no attribute format='wm_toolkit'; it holds "
            f"{found}). Record it with Hdf5Writer, or convert from Minari with `wm convert`"
        )
    if int(file.attrs.get("version", 0)) > VERSION:
        raise DataError(
            f"{path} has version {file.attrs['version']}, this one reads up to {VERSION}; "
            "upgrade wm_toolkit"
        )
    return file


def _attribute(file: h5py.File, name: str, path: Path) -> Any:
    """An attribute that holds JSON."""
    if name not in file.attrs:
        raise DataError(f"{path} lacks the attribute {name!r}; it has {sorted(file.attrs)}")
    return _json(str(file.attrs[name]), f"{path}, attribute {name!r}")


def _json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON ({error}); the file is damaged") from error


def _small(file: h5py.File, name: str) -> np.ndarray:
    """A whole data set outside /columns."""
    data: Any = file[name]
    return data[:]


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node

    columns = file.get("columns")
    if isinstance(columns, h5py.Group):
        columns.visititems(visit)
    return found


def _column(name: str, data: h5py.Dataset, raw: np.ndarray) -> Column:
    unit, about = (str(data.attrs.get(key, "")) for key in ("unit", "description"))
    return Column(name, map_rows(data, raw), unit, about)


def _write_column(file: h5py.File, name: str, parts: Sequence[Rows]) -> tuple[h5py.Dataset, str]:
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    column = file.create_dataset(f"columns/{name}", shape, parts[0].dtype)
    digest = _column_digest(name, column.dtype, shape)
    row = 0
    for part in parts:
        for block in _blocks(part):
            column[row : row + len(block)] = block
            digest.update(_bytes(block))
            row += len(block)
    return column, digest.hexdigest()


def _blocks(array: Rows) -> Iterator[np.ndarray]:
    row_bytes = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    step = chunk_rows(row_bytes)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _bytes(block: np.ndarray) -> memoryview:
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data


def _column_digest(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
    return hashlib.sha256(f"{name} {dtype.str} {shape}".encode())


def _combine(digests: Mapping[str, str], lengths: np.ndarray) -> str:
    text = "".join(f"{name}={digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(text.encode() + lengths.astype("<i8").tobytes()).hexdigest()
