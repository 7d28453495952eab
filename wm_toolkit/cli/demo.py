"""`wm demo`: the main job from end to end on two CPU cores."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from wm_toolkit.cli import output


@dataclasses.dataclass(frozen=True)
class Args:
    """Train a world model on offline walks and reach held-out goals by planning in it.

    Takes at most 6 minutes on two CPU cores. For example: `wm demo`, or `wm demo --seed 1 --run
    runs/demo-1`. Stopped at any moment, the same command goes on. The run folder holds the saved
    model, metrics, goals.gif and report.html.

    Attributes:
        run: the run folder; by default runs/demo, for --smoke runs/demo-smoke.
        seed: of weights, data order and noise.
        smoke: the whole job in seconds, too short to learn anything.
        fresh: remove the run folder and begin again; the data set is kept.
        threads: of torch; on few or busy cores more than one only cost time.
        json: print one JSON object: model, random, oracle (as `wm eval --json`), seconds.
    """

    run: Path | None = None
    seed: int = 0
    smoke: bool = False
    fresh: bool = False
    threads: int = 1
    json: bool = False


def run(args: Args) -> int:
    """Do what is not done yet; print the table."""
    began = time.perf_counter()
    output.say("loading torch ...")
    import torch

    from wm_toolkit.training.demo import DemoSettings, discard, run_demo, smoke_settings
    from wm_toolkit.training.progress import ProgressBar

    torch.set_num_threads(args.threads)
    folder = args.run or Path("runs") / ("demo-smoke" if args.smoke else "demo")
    if args.fresh:
        discard(folder)
    settings = smoke_settings(folder, args.seed) if args.smoke else DemoSettings(seed=args.seed)
    rows = run_demo(folder, settings, hooks=[ProgressBar()], say=output.say)
    seconds = time.perf_counter() - began
    if args.json:
        output.emit({**rows, "seconds": seconds})
    else:
        show(rows, folder, seconds)
    return 0


def show(rows: dict[str, dict[str, Any]], folder: Path, seconds: float) -> None:
    """The result table, and where everything lies."""
    from wm_toolkit.agents.card import HEAD, result_cells

    cells = [result_cells(name, row) for name, row in rows.items()]
    output.show_table(HEAD, cells, title="Held-out goals reached", numbers=True)
    print(f"{seconds:.0f} s. Saved model, metrics, goals.gif and report.html: {folder}")
