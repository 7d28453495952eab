"""`wm convert`: a data set into another format."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from wm_toolkit.cli import output


@dataclasses.dataclass(frozen=True)
class Args:
    """Turn a data set into another format; an interrupted conversion goes on where it stopped.

    For example: `wm convert D4RL/pointmaze/umaze-v2 umaze.h5`, or `wm convert walks.h5
    me/walks-v0 --format minari-arrow`.

    Attributes:
        source: a native .h5 file, a catalog name, or a Minari folder or id (downloaded if not here).
        target: data.h5 for the native format, ns/name-v0 for Minari.
        format: hdf5, minari or minari-arrow; by default what the target looks like.
        json: print one JSON object: path, format, episodes.
    """

    source: Annotated[str, tyro.conf.Positional]
    target: Annotated[str, tyro.conf.Positional]
    format: str = ""
    json: bool = False


def run(args: Args) -> int:
    """Convert with a progress bar on stderr."""
    from wm_toolkit.data.convert import convert
    from wm_toolkit.data.formats import find_format, open_reader
    from wm_toolkit.training.jobs import prepare_data

    prepare_data(args.source)
    with output.progress(f"converting {args.source}") as advance:
        path = convert(args.source, args.target, format=args.format or None, progress=advance)
    found = find_format(path)
    said = {
        "path": str(path),
        "format": args.format or (found[0].name if found else ""),
        "episodes": len(open_reader(path)),
    }
    if args.json:
        output.emit(said)
    else:
        print(f"wrote {said['episodes']} episodes to {path} ({said['format']})")
    return 0
