"""What a run leaves behind for people and programs: metrics, TensorBoard events, its config and record."""

from __future__ import annotations

import datetime
import io
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from wm_toolkit.agents.agent import versions
from wm_toolkit.batch import Metrics
from wm_toolkit.checkpoint import load_json, replace_file, save_json

METRICS, CONFIG, RECORD, EVENTS = "metrics.jsonl", "config.json", "record.json", "tensorboard"


class MetricsLog:
    """Metrics as JSON lines, one object per logged update: {"update": 10, "loss": ...}.

    Every line is flushed, so a killed run loses none. On resume the file is cut back to the
    checkpoint's update, so no update appears twice.

    Args:
        path: the file.
        update: keep lines up to here; later ones were never checkpointed.
    """

    def __init__(self, path: str | Path, update: int = 0) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in read_metrics(self.path) if line["update"] <= update]
            with replace_file(self.path) as temporary:
                text = "".join(json.dumps(line) + "\n" for line in kept)
                temporary.write_text(text, encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, update: int, metrics: Mapping[str, float]) -> None:
        """Append one line; JSON has no NaN, so a number that is none becomes null."""
        plain = {name: v if math.isfinite(v) else None for name, v in metrics.items()}
        self._file.write(json.dumps({"update": update, **plain}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Every complete line of a metrics file; the half line of a killed writer is left out."""
    return list(_lines(Path(path)))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            return
        if isinstance(found, dict) and "update" in found:
            yield found


class TensorBoardLog:
    """The same metrics as TensorBoard scalars; on resume, events behind `update` are purged."""

    def __init__(self, folder: str | Path, update: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=update + 1)

    def write(self, update: int, metrics: Mapping[str, float]) -> None:
        """Add one point to every curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, update)

    def picture(self, update: int, name: str, png: bytes) -> None:
        """Add a picture to those of this name."""
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self._writer.add_image(name, pixels, update, dataformats="HWC")

    def close(self) -> None:
        """Write out what is buffered."""
        self._writer.close()


class RunLog:
    """Everything that is written down while a run goes on: metrics, curves, and its own speed.

    Args:
        run_dir: the run folder.
        update: of the checkpoint it goes on from.
    """

    def __init__(self, run_dir: str | Path, update: int = 0) -> None:
        folder = Path(run_dir)
        self._events = TensorBoardLog(folder / EVENTS, update)
        self._logs = [MetricsLog(folder / METRICS, update), self._events]
        self._restart_clock()

    def count(self, waited_seconds: float) -> None:
        """One more update, which waited so long for its batch."""
        self._updates += 1
        self._waited += waited_seconds

    def speed(self) -> dict[str, float]:
        """Updates per second since the last call, and the share of that time spent on data."""
        seconds = time.perf_counter() - self._since
        found = {
            "updates_per_second": self._updates / seconds,
            "data_wait": self._waited / seconds,
        }
        self._restart_clock()
        return found

    def write(self, update: int, metrics: Metrics) -> None:
        """Write metrics to every log."""
        values = to_floats(metrics)
        for log in self._logs:
            log.write(update, values)

    def picture(self, update: int, name: str, png: bytes) -> None:
        """Write a picture to the log that can show it."""
        self._events.picture(update, name, png)

    def close(self) -> None:
        """Close every log."""
        for log in self._logs:
            log.close()

    def _restart_clock(self) -> None:
        self._since, self._updates, self._waited = time.perf_counter(), 0, 0.0


def to_floats(metrics: Metrics) -> dict[str, float]:
    """Fetch metrics from the device: one transfer for all tensors."""
    names = [name for name, value in metrics.items() if isinstance(value, torch.Tensor)]
    if names:
        stacked = torch.stack([torch.as_tensor(metrics[name]).detach().double() for name in names])
        fetched = dict(zip(names, stacked.tolist(), strict=True))
    else:
        fetched = {}
    return {name: fetched.get(name, value) for name, value in metrics.items()}  # type: ignore[misc]


class RunRecord:
    """config.json (what would repeat the run) and record.json (what happened) of a run folder.

    A resumed run keeps the record of its first start and adds a line to "starts".

    Args:
        run_dir: the run folder.
        config: JSON-ready resolved config; `wm train --config RUN` reads it.
        facts: JSON-ready: at least the data's name and checksum, and the seed.
    """

    def __init__(
        self, run_dir: str | Path, config: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> None:
        self.path = Path(run_dir) / RECORD
        now = _now()
        earlier = load_json(self.path) if self.path.exists() else {}
        self.data: dict[str, Any] = {
            "command": shlex.join(sys.argv),
            "git_commit": git_commit(),
            "versions": versions(),
            "hardware": hardware(),
            "started": now,
            "ended": None,
            **facts,
        }
        self.data["started"] = earlier.get("started", now)
        self.data["starts"] = [*earlier.get("starts", []), now]
        save_json(Path(run_dir) / CONFIG, dict(config))
        save_json(self.path, self.data)

    def end(self, **facts: Any) -> None:
        """Note the end of the run and how it went."""
        self.data |= {"ended": _now(), **facts}
        save_json(self.path, self.data)


def git_commit() -> str | None:
    """The commit of the working directory, with "+changes" if it has any; None outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + "+changes" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """What the run runs on."""
    gpus = [torch.cuda.get_device_name(d) for d in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
