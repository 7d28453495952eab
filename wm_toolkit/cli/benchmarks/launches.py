"""What an update asks of a device: how many launches, and how long with and without a CUDA graph."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from wm_toolkit.agents.recorded import WARM_UP
from wm_toolkit.cli.benchmarks import Case, benchmark
from wm_toolkit.cli.benchmarks.dreamer_update import BATCH, LENGTH, Update
from wm_toolkit.recipes.dreamer_v3 import SIZES, DreamerV3Config

LARGE, SMALL = ("12m", "200m"), ("1m",)
UPDATES = 10
CALLS = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")
"""Beginnings of the names of what the host asks a CUDA device for."""


@benchmark("launches")
def run(quick: bool) -> Iterator[Case]:
    """Launches and milliseconds of an update of Dreamer V3 from images, on the GPU if there is one."""
    device = Accelerator().device
    cuda = device.type == "cuda"
    for size in LARGE if cuda and not quick else SMALL:
        for cuda_graphs in (False, True) if cuda else (False,):
            yield measured(size, device, cuda_graphs, 2 if quick else UPDATES)


def measured(size: str, device: torch.device, cuda_graphs: bool, updates: int) -> Case:
    """One size, in bf16 on a GPU and in float32 on a CPU; the first updates do not count."""
    config = DreamerV3Config(size=SIZES[size])
    train = dataclasses.replace(config.train, cuda_graphs=cuda_graphs)
    update = Update("image", dataclasses.replace(config, train=train))
    update.learner.prepare(Accelerator(mixed_precision="bf16" if device.type == "cuda" else "no"))
    update.batch = update.batch.to(device)
    for _ in range(WARM_UP + 1):
        update()
    count, taken = launches(update, device), []
    for _ in range(updates):
        began = time.perf_counter()
        update()
        _wait(device)
        taken.append(1e3 * (time.perf_counter() - began))
    how = "replayed from a CUDA graph" if cuda_graphs else "launched one by one"
    case = f"dreamer_v3.size{size}, {update.parameters:,} parameters, batch {BATCH}x{LENGTH}, {how}"
    return Case(case, "ms", statistics.median(taken), note=f"{count:,} launches, {device.type}")


def launches(work: Callable[[], object], device: torch.device) -> int:
    """What the host asks the device for in one call; on a CPU, the operations that compute something."""
    if device.type != "cuda":
        with _Operations() as counter:
            work()
        return counter.count
    both = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=both) as profile:
        work()
        _wait(device)
    return sum(e.count for e in profile.key_averages() if e.key.startswith(CALLS))


class _Operations(TorchDispatchMode):
    """Counts operations whose results do not merely look at their arguments' memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = [each.alias_info for each in func._schema.returns]
        computes = not returned or any(info is None or info.is_write for info in returned)
        self.count += computes and func is not torch.ops.aten._unsafe_view.default
        return func(*args, **(kwargs or {}))


def _wait(device: torch.device) -> None:
    """For the device to be done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
