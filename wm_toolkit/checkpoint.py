"""The artefact: a folder with config.json, model.safetensors and a card (README.md).

Nothing in it can run code. It is written under a temporary name and then renamed, so a killed process
or a full disk leaves the previous artefact whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wm_toolkit.errors import CheckpointError, did_you_mean

FORMAT = 1
_WEIGHTS_FOLLOW: ContextVar[bool] = ContextVar("weights_follow", default=False)
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, swapped in only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        old = temporary.with_suffix(".old")
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: str | Path, name: str | None = None) -> None:
    """Put right what killed writers left in a folder, where nobody else is writing now.

    Temporary files and folders go; an artefact that was just being replaced comes back.

    Args:
        folder: may be missing.
        name: only what was to become this file or folder; by default everything.
    """
    for left in Path(folder).glob(".*"):
        known = _TEMPORARY.fullmatch(left.name)
        if known is None or (name is not None and known["name"] != name):
            continue
        whole = left.with_name(known["name"])
        if known["kind"] == "old" and not whole.exists():
            os.replace(left, whole)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


# What `replace_file` and `replace_folder` call their temporaries: eight random characters.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>tmp|old)")


def save_json(path: str | Path, data: Any) -> None:
    """Write JSON crash-safely, with sorted indentation that diffs well."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def load_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); it may be truncated") from error


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any shapes and devices as one safetensors file, with text about them.

    Raises:
        CheckpointError: if the file cannot be written, as on a full disk.
    """
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error}); what was saved before is unharmed. Is the disk full?"
        ) from error


def save_artefact(
    path: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str
) -> Path:
    """Write an artefact folder.

    Args:
        path: the folder; an older artefact there is replaced in one step.
        config: JSON-ready: recipe, its config, spaces, evaluation protocol, data, versions, seed.
        tensors: the state dict, any shapes.
        card: Markdown for people: what it is, how it was made, what it reaches.
    """
    path = Path(path)
    if path.exists() and not (path / CONFIG).exists() and any(path.iterdir()):
        raise CheckpointError(f"{path} exists and is not an artefact; choose another folder")
    with replace_folder(path) as folder:
        save_tensors(folder / WEIGHTS, tensors)
        save_json(folder / CONFIG, {"format": FORMAT, **config})
        (folder / CARD).write_text(card, encoding="utf-8")
    return path


def load_artefact(
    name_or_path: str | Path, *, revision: str | None = None
) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Read an artefact.

    Args:
        name_or_path: a folder, a name of the `pretrained/` catalog, or "owner/name" on the hub.
        revision: branch, tag or commit on the hub.

    Returns:
        (folder, config, state dict)

    Raises:
        CheckpointError: if it cannot be found, is incomplete, damaged, or of a newer format.
    """
    folder = find_artefact(name_or_path, revision=revision)
    config = load_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("format") is None:
        raise CheckpointError(f"{folder / CONFIG} is not the config of a wm_toolkit artefact")
    if config["format"] > FORMAT:
        raise CheckpointError(
            f"{folder} has format {config['format']}, this version reads up to {FORMAT}; "
            "upgrade wm_toolkit"
        )
    weights = folder / WEIGHTS
    if not weights.exists():
        raise CheckpointError(f"{folder} has no {WEIGHTS}; copy the whole folder")
    try:
        return folder, config, load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{weights} cannot be read ({error}); it is truncated or damaged, copy it again"
        ) from error


def find_artefact(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """The folder of an artefact: a path, a catalog name, or a hub repository that is downloaded.

    A run folder (written by `wm train`) stands for the model inside it.

    Raises:
        CheckpointError: naming every place that was tried.
    """
    from wm_toolkit.catalog import entries, pretrained_folder

    path = Path(name_or_path)
    tried = [str(path), str(path / "model")]
    for folder in (path, path / "model"):
        if (folder / CONFIG).exists() and (folder / WEIGHTS).exists():
            return folder
    name = str(name_or_path)
    folder = pretrained_folder(name)
    if folder is not None:
        return folder
    entry = entries("pretrained").get(name)
    if entry is not None:
        raise CheckpointError(f"{name!r} does not ship with the package: {entry.extra['prepare']}")
    tried.append(f"the pretrained catalog ({name!r})")
    if not path.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _download(name, revision, tried)
    raise CheckpointError(
        f"no artefact at {name!r}; looked in: {', '.join(tried)}. An artefact is a folder with "
        f"{CONFIG} and {WEIGHTS}.{did_you_mean(name, entries('pretrained'))}"
    )


def push_to_hub(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload an artefact folder to the Hugging Face hub as "owner/name"; returns its address.

    Raises:
        CheckpointError: if the hub cannot be reached or refuses.
    """
    import huggingface_hub

    folder = find_artefact(folder)
    try:
        huggingface_hub.create_repo(name, private=private, exist_ok=True)
        return str(huggingface_hub.upload_folder(repo_id=name, folder_path=folder))
    except Exception as error:  # the hub client raises its own and the transport's errors
        raise CheckpointError(
            f"uploading {folder} to {name!r} failed: {error}. Log in with `hf auth login`"
        ) from error


def _download(name: str, revision: str | None, tried: list[str]) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=[CONFIG, WEIGHTS, CARD]
            )
        )
    except Exception as error:  # the hub client raises its own and the transport's errors
        raise CheckpointError(
            f"no artefact {name!r}: looked in {', '.join(tried)}, and the hub said: {error}"
        ) from error


@contextmanager
def before_loading() -> Iterator[None]:
    """Within the block, modules are built whose every weight is loaded right after it.

    What would fetch pretrained weights from a hub or a file need not, and need not be able to.
    """
    token = _WEIGHTS_FOLLOW.set(True)
    try:
        yield
    finally:
        _WEIGHTS_FOLLOW.reset(token)


def weights_follow() -> bool:
    """Whether what is being built gets its weights from an artefact, or none (the meta device)."""
    return _WEIGHTS_FOLLOW.get() or torch.get_default_device().type == "meta"


def load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict strictly.

    Raises:
        CheckpointError: listing missing, unexpected and differently shaped entries.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    shapes = [
        f"{k}: {tuple(tensors[k].shape)} instead of {tuple(own[k].shape)}"
        for k in sorted(own.keys() & tensors.keys())
        if own[k].shape != tensors[k].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{label} {len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
            for label, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("other shapes", shapes),
            )
            if names
        ]
        raise CheckpointError(
            f"{where} does not fit this model: {'; '.join(parts)}. It was made for other spaces, or with "
            "another config"
        )
    module.load_state_dict(dict(tensors))
