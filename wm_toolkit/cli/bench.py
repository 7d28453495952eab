"""`wm bench`: speed against what the machine could do, and against named peers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from wm_toolkit.cli import output

HEAD = ("case", "unit", "ours", "peer", "its number", "floor", "ratio")


@dataclasses.dataclass(frozen=True)
class Args:
    """Measure speed: data loading, planning, training updates.

    For example: `wm bench plan`, or `wm bench data --json`. The floor is what the machine could do
    at best (a plain copy of the same bytes; the same multiplications in plain matrix products). A
    ratio above 1 says by which factor ours is better than the peer.

    Attributes:
        name: the benchmark (`wm list benchmarks`); all of them if left out.
        json: print one JSON object per case and line.
        quick: few repeats; numbers are rough.
    """

    name: Annotated[str, tyro.conf.Positional] = ""
    json: bool = False
    quick: bool = False


def run(args: Args) -> int:
    """Measure and print case by case."""
    from wm_toolkit.cli.benchmarks import BENCHMARKS

    chosen = [BENCHMARKS[args.name]] if args.name else [BENCHMARKS[n] for n in BENCHMARKS.names()]
    for one in chosen:
        rows = []
        output.say(f"{one.name}: {one.summary}")
        for case in one.run(args.quick):
            line = case.to_dict(one.name)
            if args.json:
                output.emit(line)
            rows.append(tuple(map(output.number, (line[key] for key in LINE))))
        if not args.json:
            output.show_table(HEAD, rows, title=one.name, numbers=True)
    return 0


LINE = ("case", "unit", "ours", "peer_name", "peer", "floor", "ratio")
