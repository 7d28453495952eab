"""The catalogs `datasets/` and `pretrained/`: names, cards and small files that ship with the package."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from wm_toolkit.errors import UnknownNameError, did_you_mean

Shelf = Literal["datasets", "pretrained"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a catalog.

    Attributes:
        name: what a user types.
        summary: one sentence.
        licence: SPDX name.
        source: where it comes from.
        path: a folder or file inside the catalog, if it ships with the package.
        extra: everything else the index says (how to prepare it, its recipe ...).
    """

    name: str
    summary: str
    licence: str
    source: str
    path: Path | None
    extra: dict[str, Any]


def root(shelf: Shelf) -> Path:
    """The catalog's folder: inside an installed package, or in the checkout."""
    package = Path(__file__).parent
    installed = package / "_catalog" / shelf
    return installed if installed.is_dir() else package.parent / shelf


def home() -> Path:
    """Where prepared data sets live: $WM_TOOLKIT_HOME, else the user's cache folder."""
    if os.environ.get("WM_TOOLKIT_HOME"):
        return Path(os.environ["WM_TOOLKIT_HOME"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wm_toolkit"


def entries(shelf: Shelf) -> dict[str, Entry]:
    """Every entry of a catalog by name."""
    index = root(shelf) / "index.toml"
    if not index.exists():
        return {}
    found = {}
    for name, fields in tomllib.loads(index.read_text(encoding="utf-8")).items():
        known = {key: fields.pop(key, "") for key in ("summary", "licence", "source")}
        path = fields.pop("path", None)
        found[name] = Entry(name, **known, path=root(shelf) / path if path else None, extra=fields)
    return found


def entry(shelf: Shelf, name: str) -> Entry:
    """One entry.

    Raises:
        UnknownNameError: with close matches.
    """
    known = entries(shelf)
    if name not in known:
        raise UnknownNameError(f"nothing named {name!r} in {shelf}/.{did_you_mean(name, known)}")
    return known[name]


def pretrained_folder(name: str) -> Path | None:
    """The folder of a pretrained artefact that ships with the package, or None."""
    found = entries("pretrained").get(name)
    return found.path if found else None
