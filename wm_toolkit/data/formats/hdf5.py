"""The native format: a streaming, crash-safe writer of `wm_toolkit.data.native` files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_toolkit.checkpoint import sweep
from wm_toolkit.data.columns import Rows
from wm_toolkit.data.formats import FORMATS, Format, Writer
from wm_toolkit.data.native import NativeData, open_native, write_file
from wm_toolkit.data.partial import Partial, partial_folder
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

SUFFIXES = (".h5", ".hdf5")


class Hdf5Writer(Writer):
    """Write episodes one by one; the file appears, whole, when the writer is closed.

    Finished episodes lie in the folder `.<name>.partial` beside the file until then. If the process dies
    they are still there: open the writer again with `append=True`, or call `recover(path)`.

    Args:
        path: the file; its folder is created.
        spaces: observation spaces and the raw action space (block 1).
        metadata: JSON-ready: source, licence, env, action_repeat, render settings ...
        units: unit by column name, {"obs/vector": "m"}.
        descriptions: one sentence by column name.
        append: keep the episodes of an existing file and of an unfinished recording; otherwise an
            existing file is replaced when the writer is closed.

    Attributes:
        finished: episodes of this recording that are safe on disk.

    Raises:
        DataError: if an unfinished recording lies there and append is false, or the spaces differ.

    Example:
        >>> with Hdf5Writer("walk.h5", Spaces.of(env), metadata={"env": "Walk-v0"}) as writer:
        ...     writer.add_episode(trajectory)
    """

    def __init__(
        self,
        path: str | Path,
        spaces: Spaces,
        *,
        metadata: Mapping[str, Any] | None = None,
        units: Mapping[str, str] | None = None,
        descriptions: Mapping[str, str] | None = None,
        append: bool = False,
    ) -> None:
        self.path, self.spaces = Path(path), spaces
        if spaces.block != 1:
            raise DataError(
                f"data sets store raw actions; these spaces hold blocks of {spaces.block}"
            )
        self._old = open_native(self.path) if append and self.path.exists() else None
        if self._old is not None:
            _require_same(self.path, self._old.spaces, spaces)
        self._partial = Partial(partial_folder(self.path))
        sweep(self.path.parent, self.path.name)  # the recording is ours alone from here on
        try:
            header = self._continue(append)
        except DataError:
            self._partial.close()
            raise
        self.unfinished_metadata = dict(header.get("metadata", {}))
        self.metadata = {**self.unfinished_metadata, **(metadata or {})}
        self.units = {**header.get("units", {}), **(units or {})}
        self.descriptions = {**header.get("descriptions", {}), **(descriptions or {})}

    @property
    def finished(self) -> int:
        return len(self._partial.episodes)

    def add_episode(self, trajectory: Trajectory) -> None:
        """Check one episode and put it on disk.

        Raises:
            DataError: naming column, episode and row, if it does not fit the spaces or the episodes
                before it.
        """
        trajectory.validate(self.spaces, file=str(self.path), episode=self.finished)
        rows = trajectory.to_rows(self.spaces.action)
        if self._partial.header is None:
            self._partial.begin(rows, self._header())
        self._partial.append(rows, dict(trajectory.info))

    def close(self) -> None:
        """Assemble the file from all finished episodes and remove the recording.

        Raises:
            DataError: if there is not a single episode.
        """
        if not self._partial.episodes and self._old is None:
            self._partial.remove()
            raise DataError(f"{self.path}: no episode was written, so there is no data set")
        try:
            if self._partial.episodes:
                _assemble(self.path, self._partial, self._old, self._header())
        except BaseException:  # a full disk: the recording stays, and may be opened again
            self._partial.close()
            raise
        self._partial.remove()

    def abandon(self) -> None:
        """Stop without assembling; the finished episodes stay recoverable."""
        if self._partial.episodes:
            self._partial.close()
        else:
            self._partial.remove()

    def _continue(self, append: bool) -> dict[str, Any]:
        header = self._partial.header
        if header is None:
            return {}
        if not append and self._partial.episodes:
            raise DataError(
                f"{self._partial.folder} holds {self.finished} finished episodes of a recording that was "
                f"not closed; open with append=True to go on, call recover({str(self.path)!r}), or "
                "delete that folder"
            )
        if not append:
            self._partial.remove()
            self._partial = Partial(partial_folder(self.path))
            return {}
        _require_same(self._partial.folder, Spaces.from_dict(header["spaces"]), self.spaces)
        return header

    def _header(self) -> dict[str, Any]:
        return {
            "spaces": self.spaces.to_dict(),
            "metadata": self.metadata,
            "units": self.units,
            "descriptions": self.descriptions,
        }


def recover(path: str | Path, *, target: str | Path | None = None) -> int:
    """Turn the finished episodes of a killed writer into a data set.

    Args:
        path: the path the writer was opened with.
        target: where to put them, by default `path`; an existing file there is appended to.

    Returns:
        How many episodes were recovered.

    Raises:
        DataError: if there is nothing to recover.
    """
    folder = partial_folder(Path(path))
    if not folder.exists():
        raise DataError(f"{folder} does not exist, so {path} has no unfinished recording")
    target = Path(path if target is None else target)
    partial = Partial(folder)
    if partial.header is None or not partial.episodes:
        partial.close()
        raise DataError(f"{folder} holds no finished episode; delete it")
    old = open_native(target) if target.exists() else None
    if old is not None:
        _require_same(target, old.spaces, Spaces.from_dict(partial.header["spaces"]))
    _assemble(target, partial, old, partial.header)
    partial.remove()
    return len(partial.episodes)


def _assemble(path: Path, partial: Partial, old: NativeData | None, header: dict[str, Any]) -> None:
    assert partial.header is not None
    parts: dict[str, list[Rows]] = {
        name: [partial.column(name)] for name in partial.header["columns"]
    }
    episodes = list(partial.episodes)
    header = {k: dict(header[k]) for k in ("metadata", "units", "descriptions", "spaces")}
    if old is not None:
        if old.columns.keys() != parts.keys():
            raise DataError(
                f"{path} has columns {sorted(old.columns)}, the new episodes have {sorted(parts)}; "
                f"they stay in {partial.folder}"
            )
        parts = {name: [old.columns[name].array, *rows] for name, rows in parts.items()}
        info = old.info or [{}] * len(old)
        before = zip(old.episode_lengths, info, strict=True)
        episodes = [{"rows": int(n), "info": i} for n, i in before] + episodes
        header["metadata"] = {**old.metadata, **header["metadata"]}
        header["units"] = {**old.units, **header["units"]}
        about = {name: column.description for name, column in old.columns.items()}
        header["descriptions"] = {**about, **header["descriptions"]}
    spaces = Spaces.from_dict(header.pop("spaces"))
    write_file(path, parts, episodes, spaces=spaces, **header)


def _require_same(where: Path, have: Spaces, given: Spaces) -> None:
    difference = have.mismatch(given) or given.mismatch(have)
    if difference is not None:
        raise DataError(f"{where} has other spaces than the new episodes: {difference}")


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(os.fspath(name_or_path))
    return path if path.suffix in SUFFIXES and path.is_file() else None


def _write(
    target: str | Path,
    spaces: Spaces,
    *,
    metadata: Mapping[str, Any] | None = None,
    units: Mapping[str, str] | None = None,
) -> Hdf5Writer:
    if Path(target).exists():
        raise DataError(f"{target} exists; delete it or choose another name")
    return Hdf5Writer(target, spaces, metadata=metadata, units=units, append=True)


FORMATS.register("hdf5", Format("hdf5", _find, Path, open_native, _write))
