"""What the scripts beside this one share: fetch a release, check it, convert it to the native format.

    python datasets/prepare/NAME.py SOURCE [TARGET]

SOURCE is the unpacked file or folder, the address of a file, or `hub` for the copy on the Hugging Face hub
that the catalog names. TARGET is the native file; by default the one where `--data NAME` looks for it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Any

from wm_toolkit import catalog
from wm_toolkit.checkpoint import replace_file
from wm_toolkit.cli import output
from wm_toolkit.data.convert import Progress, copy, open_source
from wm_toolkit.data.formats import find_format
from wm_toolkit.errors import DataError, WmError

UNPACK = {".tar.zst": ["tar", "--zstd", "-xf"], ".zst": ["zstd", "-d", "-k", "-f"]}


def main(name: str, arguments: list[str] | None = None) -> int:
    """Run a prepare script; 0 if the data set is there, 1 with a message if not."""
    given = sys.argv[1:] if arguments is None else arguments
    entry = catalog.entry("datasets", name)
    if not 1 <= len(given) <= 2:
        print(
            f"python datasets/prepare/{name}.py SOURCE [TARGET]\n{entry.summary}", file=sys.stderr
        )
        print("\n".join(["fetch it with", *entry.extra["fetch"]]), file=sys.stderr)
        return 2
    try:
        with output.progress(f"converting {name}") as advance:
            path = prepare(entry, *given, progress=advance)
    except (WmError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{path}, and its card beside it")
    return 0


def prepare(
    entry: catalog.Entry,
    source: str,
    target: str | Path | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Convert a release to the native format, with source, licence and citation in its metadata.

    Run again after an interruption, it goes on after the finished episodes.

    Raises:
        DataError: if it is not of the layout that the catalog says, damaged, or cannot be fetched.
    """
    reader = open_source(fetch(entry, source))
    known = find_format(reader.path)
    if known is None or known[0].name != entry.extra["format"]:
        layout = known[0].name if known else "unknown"
        raise DataError(
            f"{reader.path} has the layout {layout!r}, expected {entry.extra['format']!r} of {entry.name!r}"
        )
    reader.metadata = _about(entry, Path(source).stem, reader.metadata)
    path = Path(target or catalog.home() / "datasets" / f"{reader.metadata['name']}.h5")
    path.parent.mkdir(parents=True, exist_ok=True)
    return copy(reader, path, format="hdf5", progress=progress)


def _about(entry: catalog.Entry, stem: str, said: dict[str, Any]) -> dict[str, Any]:
    """What the release says about itself and what the catalog knows about it, as metadata."""
    known = {"name": entry.name, "source": entry.source, "citation": entry.extra["citation"]}
    if entry.licence != "see source":
        known["licence"] = entry.licence
    said = {key: value for key, value in said.items() if value != ""}
    # Of one data set the catalog knows more; of one of a whole family the data itself does.
    if entry.extra.get("family"):
        return {**known, "name": stem, **said}
    return {**said, "licence": f"see {entry.source}", **known}


def fetch(entry: catalog.Entry, source: str) -> str | Path:
    """The local, unpacked release that `source` means.

    Raises:
        DataError: if the hub or the address does not give it, it is damaged, or there is nothing to unpack
            it with.
    """
    if source != "hub" and "://" not in source:
        return source
    folder = catalog.home() / "downloads" / entry.name
    try:
        packed = _from_hub(entry, folder) if source == "hub" else _from_address(source, folder)
    except Exception as error:  # the clients raise their own and the transport's errors
        by_hand = "; ".join(entry.extra["fetch"])
        raise DataError(f"{entry.name} cannot be fetched ({error}); by hand: {by_hand}") from error
    try:
        return _unpacked(packed)
    except (zipfile.BadZipFile, zlib.error, subprocess.CalledProcessError) as error:
        raise DataError(
            f"{packed} cannot be unpacked ({error}); delete it, and it will be fetched again"
        ) from error


def _from_hub(entry: catalog.Entry, folder: Path) -> Path:
    import huggingface_hub

    if "hub" not in entry.extra:
        raise DataError("the catalog names no single file on the hub")
    hub, file = entry.extra["hub"], entry.extra["file"]
    found = huggingface_hub.hf_hub_download(hub, file, repo_type="dataset", local_dir=folder)
    return Path(found)


def _from_address(address: str, folder: Path) -> Path:
    path = folder / address.split("?")[0].rpartition("/")[2]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(address) as answer,
            replace_file(path) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
    return path


def _unpacked(path: Path) -> Path:
    """What is inside an archive, unpacked beside it; the file itself if it is none."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.parent)
            top = {name.split("/")[0] for name in archive.namelist()} - {"__MACOSX"}
        return path.parent / top.pop() if len(top) == 1 else path.parent
    for suffix, command in UNPACK.items():
        if path.name.endswith(suffix):
            words = [*command, str(path)]
            if shutil.which("zstd") is None:
                raise DataError(f"{path} needs `zstd`; install it, then run: {shlex.join(words)}")
            subprocess.run(words, cwd=path.parent, check=True)
            return _only_data_set(path)
    return path


def _only_data_set(path: Path) -> Path:
    inside = path.with_name(path.name.removesuffix(".zst").removesuffix(".tar"))
    files = [inside] if inside.is_file() else sorted(path.parent.rglob("*.h5"))
    if len(files) != 1:
        raise DataError(f"{path} held {len(files)} HDF5 files, expected one; give its path")
    return files[0]
