"""Where Minari data sets lie on this machine, and how they are fetched from a hub."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wm_toolkit.errors import DataError, require

ID = re.compile(r"^([-_\w]+/)*[-_\w]+-v\d+$")
HUB_SECONDS = 20.0


def datasets_root() -> Path:
    """Where Minari keeps local data sets: $MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    default = Path.home() / ".minari" / "datasets"
    return Path(os.environ.get("MINARI_DATASETS_PATH", default))


def find(name_or_path: str | Path) -> Path | None:
    """The `data` folder of a local Minari data set: from its folder's path, or from its id."""
    folders = [Path(name_or_path)]
    if ID.match(str(name_or_path)):
        folders.append(datasets_root() / name_or_path)
    for folder in folders:
        for data in (folder, folder / "data"):
            metadata = data / "metadata.json"
            if metadata.is_file() and b"data_format" in metadata.read_bytes():
                return data
    return None


def place(target: str | Path) -> Path:
    """The folder of a new Minari data set: its id under Minari's root, or a path as it is.

    Raises:
        DataError: if the last part is no Minari name ("name-v0").
    """
    path = Path(target)
    if not ID.match(path.name):
        raise DataError(f"{str(target)!r} is no Minari id; they look like 'namespace/name-v0'")
    if path.is_absolute() or str(target).startswith("."):
        return path.resolve()
    return datasets_root() / path


def download(name: str, *, timeout_seconds: float = HUB_SECONDS) -> Path:
    """Fetch a data set from Minari's hub into its root; returns its `data` folder.

    Args:
        name: "ns/name-v0", or "hf://owner/ns/name-v0".
        timeout_seconds: how long the hub may take to answer the first question.

    Raises:
        DataError: if the hub does not answer, or does not have it.
    """
    minari = require("minari", "minari")
    prefix = name.split("://")[-1].rsplit("-v", 1)[0]
    advice = (
        f"Check the network, or fetch it elsewhere with `minari download {name}` and copy the "
        f"folder below {datasets_root()}"
    )
    try:
        _within(timeout_seconds, functools.partial(minari.list_remote_datasets, prefix=prefix))
        with contextlib.redirect_stdout(io.StringIO()):
            minari.download_dataset(name)
    except Exception as error:  # the hub clients raise their own and the transport's errors
        raise DataError(f"{name!r} cannot be fetched: {error}. {advice}") from error
    found = find(name.split("://")[-1])
    if found is None:
        raise DataError(f"{name!r} was fetched, but it is not below {datasets_root()}. {advice}")
    return found


def _within(seconds: float, ask: Callable[[], Any]) -> Any:
    """What `ask` returns or raises; TimeoutError if that takes too long (the thread is left behind)."""
    answers: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # handed to the caller
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if error is not None:
        raise error
    return answer


def dataset_id(folder: Path) -> str:
    """The Minari id of a data set's folder: its path below Minari's root, or its name."""
    root = datasets_root().resolve()
    inside = folder.resolve().is_relative_to(root)
    return folder.resolve().relative_to(root).as_posix() if inside else folder.name
