"""A recording in progress: a folder of raw column files that survives a killed process.

`header.json` says what the columns are. Every episode's bytes are appended to the column files and handed
to the operating system; then one line is added to `index.jsonl`, with the number of rows and a CRC. An
episode is finished when its line is whole and its bytes match, so whatever a crash leaves behind is cut
off at the last finished episode.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import zlib
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np

from wm_toolkit.checkpoint import load_json, save_json
from wm_toolkit.errors import CheckpointError, DataError

log = logging.getLogger(__name__)


def partial_folder(path: Path) -> Path:
    """The folder beside `path` where its unfinished recording lies."""
    return path.parent / f".{path.name}.partial"


class Partial:
    """The finished episodes of an unfinished recording, and room for more.

    Args:
        folder: created if it does not exist; otherwise its finished episodes are picked up.

    Attributes:
        header: what `begin` stored, or None before the first episode.
        episodes: one dict per finished episode: rows, crc, info.

    Raises:
        DataError: if another process is writing to the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: dict[str, Any] | None = None
        self.episodes: list[dict[str, Any]] = []
        self._files: dict[str, IO[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = hold(folder)
        if (folder / "header.json").exists():
            self._recover()

    def begin(self, columns: dict[str, np.ndarray], header: dict[str, Any]) -> None:
        """Fix the columns (dtype and row shape of the first episode) and store the header."""
        specs = {n: {"dtype": a.dtype.str, "shape": list(a.shape[1:])} for n, a in columns.items()}
        self.header = {**header, "columns": specs}
        save_json(self.folder / "header.json", self.header)
        self._open()

    def append(self, rows: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        """Add one finished episode; `rows` holds every column of the header.

        Raises:
            DataError: if a column is missing or new, or has another dtype or row shape.
        """
        assert self.header is not None
        self._check(rows)
        crc = 0
        for name in self._files:
            data = np.ascontiguousarray(rows[name]).reshape(-1).view(np.uint8).data
            self._files[name].write(data)
            self._files[name].flush()
            crc = zlib.crc32(data, crc)
        entry = {"rows": len(rows["action"]), "crc": crc, "info": info}
        with open(self.folder / "index.jsonl", "a", encoding="utf-8") as index:
            index.write(json.dumps(entry, default=plain) + "\n")
        self.episodes.append(entry)

    def column(self, name: str) -> np.ndarray:
        """All finished rows [rows, ...] of a column, memory-mapped."""
        assert self.header is not None
        spec = self.header["columns"][name]
        shape = (sum(entry["rows"] for entry in self.episodes), *spec["shape"])
        dtype = np.dtype(spec["dtype"])
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(self._path(name), dtype, "r", shape=shape))

    def close(self) -> None:
        """Close the files and give up the lock; everything stays on disk."""
        # Closing a file flushes it, which fails on a full disk; the others are closed all the same.
        with contextlib.ExitStack() as each:
            for file in (self._lock, *self._files.values()):
                each.callback(file.close)
            self._files.clear()

    def remove(self) -> None:
        """Delete the recording."""
        self.close()
        shutil.rmtree(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='')}.bin"

    def _open(self) -> None:
        assert self.header is not None
        self._files = {name: self._path(name).open("ab") for name in self.header["columns"]}

    def _check(self, rows: dict[str, np.ndarray]) -> None:
        assert self.header is not None
        columns, number = self.header["columns"], len(self.episodes)
        if rows.keys() != columns.keys():
            raise DataError(
                f"{self.folder}: episode {number} has columns {sorted(rows)}, "
                f"the episodes before have {sorted(columns)}"
            )
        for name, spec in columns.items():
            have = (rows[name].dtype.str, list(rows[name].shape[1:]))
            if have != (spec["dtype"], spec["shape"]):
                raise DataError(
                    f"{self.folder}: column {name!r}, episode {number} has dtype and row shape {have}, "
                    f"the episodes before have {(spec['dtype'], spec['shape'])}"
                )

    def _recover(self) -> None:
        try:
            self.header = load_json(self.folder / "header.json")
        except CheckpointError as error:
            raise DataError(f"{error}. Delete {self.folder} to start over") from error
        assert self.header is not None
        lines = _lines(self.folder / "index.jsonl")
        sizes = self._row_bytes()
        done = 0
        for entry in lines:
            if self._crc(done, entry["rows"], sizes) != entry["crc"]:
                break
            self.episodes.append(entry)
            done += entry["rows"]
        for name, size in sizes.items():
            with open(self._path(name), "ab") as file:
                file.truncate(done * size)
        whole = "".join(json.dumps(entry, default=plain) + "\n" for entry in self.episodes)
        (self.folder / "index.jsonl").write_text(whole, encoding="utf-8")
        log.info("%s: recovered %d finished episodes", self.folder, len(self.episodes))
        self._open()

    def _row_bytes(self) -> dict[str, int]:
        assert self.header is not None
        specs = self.header["columns"].items()
        return {n: int(np.prod(s["shape"])) * np.dtype(s["dtype"]).itemsize for n, s in specs}

    def _crc(self, start: int, rows: int, sizes: dict[str, int]) -> int:
        crc = 0
        for name, size in sizes.items():
            if not self._path(name).exists():
                return -1
            with open(self._path(name), "rb") as file:
                file.seek(start * size)
                crc = zlib.crc32(file.read(rows * size), crc)
        return crc


def plain(value: Any) -> Any:
    """Numpy values and sets as JSON knows them (for `json.dumps(default=...)`)."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    raise DataError(f"{value!r} ({type(value).__name__}) cannot be stored as JSON metadata")


def _lines(index: Path) -> list[dict[str, Any]]:
    """The whole lines of the index; a torn one ends it."""
    entries: list[dict[str, Any]] = []
    if not index.exists():
        return entries
    for line in index.read_bytes().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            log.warning("%s: line %d is torn; the recording ends there", index, len(entries) + 1)
            break
    return entries


def hold(folder: Path, *, wait: bool = False) -> IO[bytes]:
    """Keep a folder for this process until the returned file is closed (or the process dies).

    Args:
        folder: exists.
        wait: until another process lets go of it, instead of raising.

    Raises:
        DataError: if another process holds it.
    """
    file = (folder / "lock").open("wb")
    if sys.platform == "win32":
        return file
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        raise DataError(
            f"{folder} is in use: another writer has this data set open; close it or choose another path"
        ) from None
    return file
