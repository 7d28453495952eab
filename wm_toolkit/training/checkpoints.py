"""Checkpoints of a run: folders that hold everything an exact resume needs, written in one step."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wm_toolkit.checkpoint import WEIGHTS, load_json, replace_folder, save_json, save_tensors, sweep
from wm_toolkit.errors import CheckpointError, NonFiniteError

STATE, FACTS, SOURCE = "state.pt", "checkpoint.json", "source"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        model: the state dict.
        state: of learner, hooks and every process; tensors, numbers, strings and containers of them.
        facts: JSON-ready: update, best metric, config.
    """

    model: dict[str, Tensor]
    state: dict[str, Any]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, `update_00000100` and so on.

    Args:
        folder: where they lie.
        keep: how many to keep; older ones are removed once a newer one is complete.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(p.parent for p in self.folder.glob(f"update_*/{FACTS}"))

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        found = self.all()
        return found[-1] if found else None

    def save(
        self, checkpoint: Checkpoint, save_source: Callable[[Path, Path | None], None] | None = None
    ) -> Path:
        """Write a checkpoint, then remove what is older than the newest `keep`.

        Args:
            checkpoint: what fits into memory.
            save_source: writes what does not, a replay, into the folder `source` of the checkpoint;
                it is told which folder it wrote before.

        Raises:
            NonFiniteError: if a weight is NaN or infinite; the checkpoints there are stay.
            CheckpointError: if it cannot be written, as on a full disk; likewise.
        """
        for name, tensor in checkpoint.model.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NonFiniteError(
                    f"{name} holds NaN or infinite values after update "
                    f"{checkpoint.facts['update']}, so it is not saved; {self.latest()} is unharmed"
                )
        path = self.folder / f"update_{checkpoint.facts['update']:08d}"
        with replace_folder(path) as temporary, _disk_errors(path):
            save_tensors(temporary / WEIGHTS, checkpoint.model)
            torch.save(checkpoint.state, temporary / STATE)
            if save_source is not None:
                last = self.latest()
                save_source(temporary / SOURCE, last and last / SOURCE)
            save_json(temporary / FACTS, {"format": FORMAT, **checkpoint.facts})
        for old in self.all()[: -self.keep]:
            shutil.rmtree(old)
        return path

    def clean(self) -> None:
        """Put right what a killed writer left behind."""
        sweep(self.folder)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch and numpy make either of a full disk
        raise CheckpointError(
            f"{path} cannot be written ({error}); older checkpoints are unharmed. Is the disk full?"
        ) from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint folder; nothing in it can run code.

    Raises:
        CheckpointError: if it is incomplete, damaged, or of a newer format.
    """
    path = Path(path)
    facts: Mapping[str, Any] = load_json(path / FACTS)
    if facts.get("format", 0) > FORMAT:
        raise CheckpointError(f"{path} has format {facts['format']}; upgrade wm_toolkit to read it")
    try:
        model = load_file(path / WEIGHTS)
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). Remove this folder to go on from the one before it"
        ) from error
    return Checkpoint(model, state, dict(facts))
