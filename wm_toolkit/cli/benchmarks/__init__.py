"""What `wm bench` measures. One file per benchmark: it registers a function that yields cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from wm_toolkit.registry import Registry


@dataclasses.dataclass(frozen=True)
class Case:
    """One measured case.

    Attributes:
        case: what was measured, with its sizes.
        unit: a rate has a slash ("windows/CPU-s": more is better); anything else is a time or an amount
            (less is better). CPU time is that of the process, its threads and its children.
        ours: our number.
        floor: what the machine could do at best; None where nothing bounds it.
        peer_name: who it is compared with, or None.
        peer: the peer's number, None where it is not installed.
        wall: our number by the clock on the wall instead.
        peer_wall: the peer's.
        note: what else was found, such as the largest difference of the results.
    """

    case: str
    unit: str
    ours: float
    floor: float | None = None
    peer_name: str | None = None
    peer: float | None = None
    wall: float | None = None
    peer_wall: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """By which factor ours is better than the peer."""
        if self.peer is None:
            return None
        return self.ours / self.peer if "/" in self.unit else self.peer / self.ours

    def to_dict(self, benchmark: str) -> dict[str, Any]:
        """The line that `wm bench --json` prints."""
        fields = dataclasses.asdict(self)
        first = ("case", "unit", "ours", "peer_name", "peer", "floor")
        line = {"benchmark": benchmark, **{k: fields.pop(k) for k in first}, "ratio": self.ratio}
        return line | fields


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
