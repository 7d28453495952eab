"""How benchmarks measure: CPU and wall time of rivals that take turns, and what the machine can do."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

MATRIX = 512  # large enough for the peak rate, small enough to stay in the cache
RIVAL_PYTHON = (
    "WM_TOOLKIT_RIVAL_PYTHON"  # variable that names the Python of a peer with its own environment
)
PACKAGES = ("wm_toolkit", "torch", "numpy", "h5py", "stable-worldmodel", "lancedb", "transformers")


class Spent(NamedTuple):
    """Seconds of computing, by all threads and child processes, and seconds by the clock."""

    cpu: float
    wall: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cpu - other.cpu, self.wall - other.wall)

    def times(self, factor: float) -> Spent:
        """Both multiplied."""
        return Spent(self.cpu * factor, self.wall * factor)


def now() -> Spent:
    """What was spent so far; differences of two such moments count."""
    ended = os.times()
    cpu = time.process_time() + ended.children_user + ended.children_system
    for child in multiprocessing.active_children():
        try:
            times = psutil.Process(child.pid).cpu_times()
        except psutil.NoSuchProcess:  # it has just ended, and will be among the children waited for
            continue
        cpu += times.user + times.system
    return Spent(cpu, time.perf_counter())


def spent(work: Callable[[], object]) -> Spent:
    """What one call takes."""
    before = now()
    work()
    return now() - before


def compare(
    works: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: int = 1
) -> dict[str, Spent]:
    """Medians of what each work takes; they take turns, so that a slow minute hits them all."""
    for work in works.values():
        for _ in range(warm_up):
            work()
    found: dict[str, list[Spent]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            found[name].append(spent(work))
    return {name: median(values) for name, values in found.items()}


def median(values: list[Spent]) -> Spent:
    """The median of each clock."""
    return Spent(*(statistics.median(column) for column in zip(*values, strict=True)))


def matrix_rate(dtype: torch.dtype = torch.float32, repeats: int = 60) -> float:
    """Floating-point operations a CPU second that plain matrix products reach here."""
    a, b = torch.rand(2, MATRIX, MATRIX).to(dtype)
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        torch.mm(a, b)
        taken.append(time.process_time() - start)
    return 2 * MATRIX**3 / statistics.median(taken)


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in one call, backward passes included."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def circumstances(command: str) -> dict[str, Any]:
    """When, where and with what: the line above the results of `wm bench --json`."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The model's name, with its bfloat16 units if it has any."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    text = info.read_text()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    units = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in text]
    return " ".join([names[0] if names else platform.machine(), *units])
