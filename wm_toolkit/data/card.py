"""The card beside a converted data set: what it is, where it comes from, and how it was made."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wm_toolkit.checkpoint import CARD, load_json, replace_file
from wm_toolkit.data.formats import Reader, find_format
from wm_toolkit.data.native import NativeData
from wm_toolkit.data.trajectory import OBS
from wm_toolkit.errors import DataError

UNKNOWN_LICENCE = "not stated in the data; ask the source before you share it"
BLOCK = 1 << 20


def card_path(data: Path) -> Path:
    """Where the card of a data set lies: README.md inside a folder, NAME.card.md beside a file."""
    return data / CARD if data.is_dir() else data.with_suffix(".card.md")


def write_card(data: Path) -> Path:
    """Write the card of a finished data set; an older one is replaced.

    Everything on it comes from the data set itself, so it can be written again at any time.

    Args:
        data: the native file, or the folder of the Minari data set.

    Returns:
        Where the card lies.

    Raises:
        DataError: if there is no data set, or it is damaged.

    Example:
        >>> write_card(convert("point_maze/", "point_maze.h5"))
        PosixPath('point_maze.card.md')
    """
    found = find_format(data)
    if found is None:
        raise DataError(f"{data} is not a data set, so it can have no card")
    text = card_text(data, found[0].read(found[1]))
    with replace_file(card_path(data)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return card_path(data)


def card_text(data: Path, reader: Reader) -> str:
    """The card of an opened data set, as Markdown."""
    about = reader.metadata
    facts = {
        "source": about.get("source") or "not stated",
        "licence": about.get("licence") or UNKNOWN_LICENCE,
        "citation": about.get("citation", ""),
        "environment": about.get("env", ""),
        "episodes": f"{len(reader):,}",
        "steps": f"{_steps(reader):,}",
        "actions": f"`{reader.spaces.action}`",
        **_checksum(reader),
        "features": "; ".join(f"{k}: {v}" for k, v in about.get("features", {}).items()),
        "converted from": _origin(about),
        "written by": f"wm_toolkit {version('wm_toolkit')}",
    }
    lines = [f"# {about.get('name', data.stem)}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value]
    lines += ["", "| column | type | row | unit |", "|---|---|---|---|", *_columns(reader)]
    if about.get("notes"):
        lines += ["", "What the conversion left out or noticed:", ""]
        lines += [f"- {note}" for note in about["notes"]]
    return "\n".join([*lines, *_command(data, reader), ""])


def _columns(reader: Reader) -> Iterator[str]:
    """One line of the table for every column."""
    episode = next(reader.episodes())
    arrays = {OBS + key: values for key, values in episode.obs.items()} | {"action": episode.action}
    arrays |= {} if episode.reward is None else {"reward": episode.reward}
    arrays |= {"terminated": episode.terminated, "truncated": episode.truncated, **episode.extras}
    for name, values in arrays.items():
        shape = "x".join(map(str, values.shape[1:])) or "1"
        yield f"| `{name}` | {values.dtype} | {shape} | {_cell(reader.units.get(name, ''))} |"


def _steps(reader: Reader) -> int:
    """Steps of all episodes together, without reading their rows where that is written down."""
    if isinstance(reader, NativeData):
        return int(reader.episode_lengths.sum()) - len(reader)
    steps = _stored(reader).get("total_steps")
    return sum(map(len, reader.episodes())) if steps is None else int(steps)


def _stored(reader: Reader) -> dict[str, Any]:
    """What Minari says about its own storage; empty for every other format."""
    path = reader.path / "metadata.json"
    return load_json(path) if path.is_file() else {}


def _checksum(reader: Reader) -> dict[str, str]:
    """SHA-256 of the content of a native file, of the names and bytes of the files of any other."""
    if isinstance(reader, NativeData):
        return {"SHA-256 of the content": f"`{reader.checksum}`"}
    digest, root = hashlib.sha256(), reader.path
    for path in sorted(path for path in [root, *root.rglob("*")] if path.is_file()):
        digest.update(path.relative_to(root).as_posix().encode())
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return {"SHA-256 of names and bytes": f"`{digest.hexdigest()}`"}


def _origin(about: dict[str, Any]) -> str:
    origin = about.get("converted_from")
    if not origin:
        return ""
    return f"`{origin['path']}`, {origin['episodes']:,} episodes"


def _command(data: Path, reader: Reader) -> list[str]:
    """How to make the data set again."""
    origin = reader.metadata.get("converted_from")
    if not origin:
        return []
    words = ["wm", "convert", origin["path"], str(data)]
    if _stored(reader).get("data_format") == "arrow":
        words += ["--format", "minari-arrow"]
    command = shlex.join(words)
    for identity in reader.metadata.get("features", {}).values():
        from wm_toolkit.encoders.named import encode_options

        command += f" {encode_options(identity)}"
    if reader.metadata.get("dropped"):
        command += " --drop-frames"
    return ["", "```", command, "```"]


def _cell(value: Any) -> str:
    """A value on one line of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")
