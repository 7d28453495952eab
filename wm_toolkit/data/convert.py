"""Convert data sets between formats; a conversion that was interrupted goes on where it stopped."""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wm_toolkit import catalog
from wm_toolkit.data.card import write_card
from wm_toolkit.data.dataset import find_dataset
from wm_toolkit.data.formats import FORMATS, Format, Reader, Writer, open_reader
from wm_toolkit.data.minari_hub import ID, download
from wm_toolkit.data.partial import hold
from wm_toolkit.errors import DataError, UnknownNameError

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ORIGIN = ("converted_from", "features", "dropped")

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


def convert(
    source: str | Path,
    target: str | Path,
    *,
    format: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Copy a data set into another format, episode by episode.

    Run again after an interruption, it continues after the finished episodes.

    Args:
        source: a data set of any format by path or name; a Minari id that is not here is downloaded.
        target: "data.h5" for the native format, a Minari id or folder ("ns/name-v0") for Minari.
        format: "hdf5", "minari" or "minari-arrow"; by default what `target` looks like.
        progress: called after every episode.

    Returns:
        The file or folder that was written.

    Raises:
        DataError: if the source is damaged or unknown, the target exists, or an unfinished conversion of
            something else lies there.
    """
    return copy(open_source(source), target, format=format, progress=progress)


def open_source(source: str | Path) -> Reader:
    """Open a data set of any format; a Minari id that is not here is downloaded.

    Raises:
        DataError, UnknownNameError: if it is damaged or unknown.
    """
    return open_reader(_find(source))


def copy(
    reader: Reader,
    target: str | Path,
    *,
    format: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """What `convert` does, from an opened data set.

    Raises:
        DataError: as `convert`, and if the disk is full.
    """
    chosen = FORMATS[format or guess_format(target)]
    _copy(reader, chosen, target, progress)
    write_card(chosen.place(target))
    return chosen.place(target)


def _find(source: str | Path) -> str | Path:
    try:
        return find_dataset(source)[1]
    except UnknownNameError:
        if Path(source).exists():
            return source  # opening it says what is wrong with it
        if not _is_remote(str(source)):
            raise
        return download(str(source))


def cached(source_format: Format, path: Path) -> Path:
    """The native copy, in the cache, of a data set of another format; made at the first call."""
    stat = max(file.stat().st_mtime_ns for file in [path, *path.glob("*")])
    key = hashlib.sha256(f"{path.resolve()} {stat}".encode()).hexdigest()[:12]
    name = path.parent.name if path.name == "data" else path.name
    target = catalog.home() / "datasets" / "converted" / f"{name}-{key}.h5"
    target.parent.mkdir(parents=True, exist_ok=True)
    with hold(target.parent, wait=True):
        if not target.exists():
            log.info("converting %s once, to %s", path, target)
            _copy(source_format.read(path), FORMATS["hdf5"], target, None)
    return target


def _copy(reader: Reader, chosen: Format, target: str | Path, progress: Progress | None) -> None:
    origin = {"path": str(reader.path), "episodes": len(reader)}
    if checksum := getattr(reader, "checksum", ""):
        origin["checksum"] = checksum
    metadata = {**reader.metadata, "converted_from": origin}
    writer = chosen.write(target, reader.spaces, metadata=metadata, units=reader.units)
    try:
        with writer:
            _require_origin(writer, metadata, target)
            if writer.finished:
                log.info("%s: continuing after %d episodes", target, writer.finished)
            for i, episode in enumerate(reader.episodes(writer.finished), writer.finished):
                episode.validate(reader.spaces, file=str(reader.path), episode=i)
                writer.add_episode(episode)
                if progress is not None:
                    progress(i + 1, len(reader))
    except (OSError, RuntimeError) as error:
        if not _is_full(error):
            raise
        raise DataError(
            f"{target}: the disk is full ({error}) after {writer.finished} of {len(reader)} episodes. They "
            "are kept in the hidden .partial folder beside it; free some space, and the same call goes on "
            "from there"
        ) from error


def _is_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error; h5py tells of it as a RuntimeError when it closes a file."""
    said = re.search(r"errno = (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(said[1]) if said else None)
    cause = error.__context__
    return number in FULL or (cause is not None and _is_full(cause))


def _require_origin(writer: Writer, metadata: Mapping[str, Any], target: str | Path) -> None:
    began = writer.unfinished_metadata
    # A changed source or other features must not be mixed with what was finished before.
    changed = [name for name in ORIGIN if began and began.get(name) != metadata.get(name)]
    if changed:
        was, now = ({name: about.get(name) for name in changed} for about in (began, metadata))
        raise DataError(
            f"an unfinished conversion of {was}, now {now}, to {target} is in the way; finish it, or "
            "delete its hidden .partial folder"
        )


def _is_remote(name: str) -> bool:
    return "://" in name or ("/" in name and ID.match(name) is not None)


def guess_format(target: str | Path) -> str:
    """The name of the format that a path or id looks like.

    Raises:
        DataError: if it looks like none.
    """
    if Path(target).suffix in (".h5", ".hdf5"):
        return "hdf5"
    if ID.match(Path(target).name):
        return "minari"
    raise DataError(
        f"cannot tell the format of {str(target)!r}: name it 'data.h5' or like a Minari id "
        f"('ns/name-v0'), or choose format= one of {', '.join(FORMATS.names())}"
    )
