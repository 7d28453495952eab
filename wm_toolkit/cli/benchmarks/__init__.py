"""What `wm bench` measures. One file per benchmark: it registers a function that yields cases."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from wm_toolkit.registry import Registry

MATRIX = 512  # large enough for the peak rate, small enough to stay in the cache


@dataclasses.dataclass(frozen=True)
class Case:
    """One measured case.

    Attributes:
        case: what was measured, with its sizes.
        unit: a rate ends in "/s" (more is better); anything else is a time (less is better).
        ours: our number.
        floor: what the machine could do at best.
        peer_name: who it is compared with, or None.
        peer: the peer's number, None where it is not installed.
    """

    case: str
    unit: str
    ours: float
    floor: float
    peer_name: str | None = None
    peer: float | None = None

    @property
    def ratio(self) -> float | None:
        """By which factor ours is better than the peer."""
        if self.peer is None:
            return None
        return self.ours / self.peer if self.unit.endswith("/s") else self.peer / self.ours

    def to_dict(self, benchmark: str) -> dict[str, Any]:
        """The line that `wm bench --json` prints."""
        fields = dataclasses.asdict(self)
        order = ("case", "unit", "ours", "peer_name", "peer", "floor")
        return {"benchmark": benchmark, **{k: fields[k] for k in order}, "ratio": self.ratio}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A named family of cases.

    Attributes:
        name: what a user types.
        summary: one line.
        run: yields cases; its argument asks for a quick, imprecise run.
    """

    name: str
    summary: str
    run: Callable[[bool], Iterator[Case]]


BENCHMARKS: Registry[Benchmark] = Registry("benchmark", "wm_toolkit.cli.benchmarks")


def benchmark(
    name: str,
) -> Callable[[Callable[[bool], Iterator[Case]]], Callable[[bool], Iterator[Case]]]:
    """Register a function `(quick) -> cases` under a name; its docstring's first line is the summary."""

    def add(run: Callable[[bool], Iterator[Case]]) -> Callable[[bool], Iterator[Case]]:
        summary = (run.__doc__ or "").strip().partition("\n")[0]
        BENCHMARKS.register(name, Benchmark(name, summary, run))
        return run

    return add


def seconds(work: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Median wall-clock seconds of one call."""
    for _ in range(warm_up):
        work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def matrix_rate(device: torch.device | str = "cpu", repeats: int = 20) -> float:
    """Floating-point operations a second that plain float32 matrix products reach here."""
    a, b = torch.rand(2, MATRIX, MATRIX, device=device)

    def product() -> None:
        torch.mm(a, b)
        if a.is_cuda:
            torch.cuda.synchronize()

    return 2 * MATRIX**3 / seconds(product, repeats, warm_up=3)


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in one call, backward passes included."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
