"""`wm bench`: speed against what the machine could do, and against named peers."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated

import tyro

from wm_toolkit.cli import output

LINE = ("case", "unit", "ours", "peer_name", "peer", "floor", "ratio", "note")
HEAD = ("case", "unit", "ours", "peer", "its number", "floor", "ratio", "note")


@dataclasses.dataclass(frozen=True)
class Args:
    """Measure speed: data loading, planning, training updates.

    For example: `wm bench plan`, or `wm bench data --json`. The floor is what the machine could do
    at best (a plain copy of the same bytes; the same multiplications in plain matrix products). A
    ratio above 1 says by which factor ours is better than the peer, which is measured in the same run
    if it is installed (`pip install 'wm_toolkit[bench]'`). Times are CPU time on one thread, medians
    of runs that take turns; the JSON lines hold the wall time too.

    Attributes:
        name: the benchmark (`wm list benchmarks`); all of them if left out.
        json: print one JSON object on when, where and with what, then one per case.
        quick: few repeats; numbers are rough.
        rival: the Python of an environment that holds the peer of `train` (sheeprl); this one if left out.
    """

    name: Annotated[str, tyro.conf.Positional] = ""
    json: bool = False
    quick: bool = False
    rival: str = ""


def run(args: Args) -> int:
    """Measure and print case by case."""
    import torch

    from wm_toolkit.cli.benchmarks import BENCHMARKS
    from wm_toolkit.cli.benchmarks.measure import RIVAL_PYTHON, circumstances

    chosen = [BENCHMARKS[args.name]] if args.name else [BENCHMARKS[n] for n in BENCHMARKS.names()]
    if args.rival:
        os.environ[RIVAL_PYTHON] = args.rival
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if args.json:
            output.emit(circumstances(command(args)))
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
    finally:
        torch.set_num_threads(threads)
    return 0


def command(args: Args) -> str:
    """What was typed."""
    flags = [f"--{name}" for name in ("json", "quick") if getattr(args, name)]
    rival = ["--rival", args.rival] if args.rival else []
    return " ".join(["wm bench", *filter(None, [args.name]), *flags, *rival])
