"""Data formats. One file each: it registers a `Format`, and everything else finds it by name or path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from wm_toolkit.data.checks import Problem
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError
from wm_toolkit.registry import Registry
from wm_toolkit.spaces import Spaces


class Reader(Protocol):
    """An opened data set, read episode by episode.

    Attributes:
        path: the file or folder.
        spaces: observation spaces and the raw action space.
        metadata: JSON-ready: source, licence, env, action_repeat, render settings ...
        units: unit of a column, by column name.
        problems: what was noticed while opening (lossy images, columns left out ...).
    """

    path: Path
    spaces: Spaces
    metadata: dict[str, Any]
    problems: list[Problem]

    @property
    def units(self) -> dict[str, str]: ...

    def __len__(self) -> int:
        """How many episodes there are."""
        ...

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on."""
        ...


class Writer(Protocol):
    """A data set being written; leaving the `with` block without an error completes it.

    Attributes:
        metadata: as it will be stored.
        unfinished_metadata: that of the unfinished data set that is continued; empty for a new one.
        finished: episodes that are already safe on disk in this unfinished data set.
    """

    metadata: dict[str, Any]
    unfinished_metadata: dict[str, Any]

    @property
    def finished(self) -> int: ...

    def add_episode(self, trajectory: Trajectory) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None:
        """Stop without completing; the finished episodes stay recoverable."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.close()
        else:
            self.abandon()


class OpenWriter(Protocol):
    """How a format opens a writer; an unfinished data set at the same place is continued."""

    def __call__(
        self,
        target: str | Path,
        spaces: Spaces,
        *,
        metadata: Mapping[str, Any] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> Writer: ...


@dataclasses.dataclass(frozen=True)
class Format:
    """How to recognise, read and write one kind of data set.

    Attributes:
        name: "hdf5".
        find: the existing file or folder that a name or path means in this format, or None.
        place: where a new data set of that name or path would be written.
        read: opens an existing one.
        write: opens a new one (or continues an unfinished one).
        summary: one line for people; by default the first one of the module that registers it.
    """

    name: str
    find: Callable[[str | Path], Path | None]
    place: Callable[[str | Path], Path]
    read: Callable[[Path], Reader]
    write: OpenWriter
    summary: str = ""


FORMATS: Registry[Format] = Registry("format", "wm_toolkit.data.formats")


def read_only(
    name: str,
    find: Callable[[str | Path], Path | None],
    read: Callable[[Path], Reader],
    *,
    summary: str = "",
) -> Format:
    """A format that others write: converting into it is refused with the formats that can be written."""

    def refuse(target: str | Path, *_: object, **__: object) -> Any:
        raise DataError(
            f"{target}: the format {name!r} can be read, not written; choose hdf5, minari or minari-arrow"
        )

    return Format(name, find, Path, read, refuse, summary)


def find_format(name_or_path: str | Path) -> tuple[Format, Path] | None:
    """The format that recognises an existing data set, and where it lies."""
    # The native format takes whatever HDF5 file no other one knows: opening it says what is wrong.
    for name in sorted(FORMATS.names(), key="hdf5".__eq__):
        path = FORMATS[name].find(name_or_path)
        if path is not None:
            return FORMATS[name], path
    return None


def open_reader(name_or_path: str | Path) -> Reader:
    """Open an existing data set of any format, episode by episode.

    Raises:
        DataError: if no format recognises it, or it is damaged.
    """
    found = find_format(name_or_path)
    if found is None:
        where = "is not a data set" if Path(name_or_path).exists() else "does not exist"
        raise DataError(f"{name_or_path} {where}; known formats: {', '.join(FORMATS.names())}")
    return found[0].read(found[1])
