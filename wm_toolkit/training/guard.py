"""Stops a run whose losses stop being numbers, and keeps the batch that did it."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.checkpoint import replace_file, save_tensors
from wm_toolkit.errors import NonFiniteError

LAG = 16
"""Updates between two looks at a device that runs ahead of the host; a look waits for it."""


class NaNGuard:
    """Watches the metrics of every update for NaN and infinity.

    On a CPU every update is checked at once. On another device updates are checked in groups, so the
    host need not wait for each; their batches are kept until then.

    Args:
        folder: where the batch is saved.
        device: of the model.
        rank: of this process; each saves its own share of the batch.
        scaled: whether gradients pass a GradScaler (fp16), which meets infinite ones by design.
    """

    def __init__(
        self, folder: str | Path, device: torch.device, *, rank: int = 0, scaled: bool = False
    ) -> None:
        self.folder, self.rank, self.scaled = Path(folder), rank, scaled
        self._lag = 1 if device.type == "cpu" else LAG
        self._waiting: deque[tuple[int, Batch, Metrics]] = deque()

    def watch(self, update: int, batch: Batch, metrics: Metrics) -> None:
        """Take in one update, trained on batch [B, T].

        Raises:
            NonFiniteError: as `check`.
        """
        self._waiting.append((update, batch, metrics))
        if len(self._waiting) >= self._lag:
            self.check()

    def check(self) -> None:
        """Look at every update taken in since the last look.

        Raises:
            NonFiniteError: naming update, loss and the file with the batch.
        """
        updates = list(self._waiting)
        self._waiting.clear()
        if not updates or bool(torch.stack([self._finite(m) for *_, m in updates]).all()):
            return
        for update, batch, metrics in updates:
            names = [name for name in self._watched(metrics) if not _is_finite(metrics[name])]
            if names:
                self._stop(update, batch, names, metrics)

    def _watched(self, metrics: Metrics) -> list[str]:
        parts = [name for name in metrics if name.startswith(("loss/", "probe/"))]
        rest = ["loss"] if self.scaled else ["loss", "grad_norm"]
        return parts + [name for name in rest if name in metrics]

    def _finite(self, metrics: Metrics) -> Tensor:
        values = [torch.as_tensor(metrics[name]).float() for name in self._watched(metrics)]
        return torch.stack(values).isfinite().all() if values else torch.tensor(True)

    def _stop(self, update: int, batch: Batch, names: list[str], metrics: Metrics) -> None:
        path = self.folder / f"update_{update:08d}_process_{self.rank}.safetensors"
        values = {name: str(float(metrics[name])) for name in self._watched(metrics)}
        save_batch(path, batch, {"update": update, "not_finite": names, "metrics": values})
        raise NonFiniteError(
            f"update {update}: {' and '.join(names)} became {values[names[0]]} (all: {values}). The "
            f"batch is in {path} (read it with wm_toolkit.training.guard.load_batch); the last "
            "checkpoint is unharmed. Lower the learning rate, clip gradients, or look at the batch"
        )


def save_batch(path: str | Path, batch: Batch, facts: dict[str, Any]) -> None:
    """Write a batch [B, T] and JSON-ready facts about it to one safetensors file."""
    flat: dict[str, Tensor] = {}
    for name, value in vars(batch).items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": tensor for key, tensor in value.items()}
        elif value is not None:
            flat[name] = value
    with replace_file(path) as temporary:
        save_tensors(temporary, flat, {"facts": json.dumps(facts)})


def load_batch(path: str | Path) -> tuple[Batch, dict[str, Any]]:
    """Read a batch [B, T] and the facts that `save_batch` wrote."""
    fields: dict[str, Any] = {"obs": {}, "extras": {}}
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get("facts", "{}"))
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            group, slash, key = name.partition("/")
            if slash:
                fields[group][key] = file.get_tensor(name)
            else:
                fields[name] = file.get_tensor(name)
    return Batch(**fields), facts


def _is_finite(value: Tensor | float) -> bool:
    return bool(torch.as_tensor(value).isfinite().all())
