"""`wm render`: a run's report page and pictures, made again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from wm_toolkit.cli import output


@dataclasses.dataclass(frozen=True)
class Args:
    """Make report.html of a run from what lies in its folder, and goals.gif where it reached for goals.

    A run that learns from rewards can be looked at while it goes on: returns, losses, its newest dreams.

    For example: `wm render runs/demo`.

    Attributes:
        run: a run folder.
        json: print one JSON object: report, film.
    """

    run: Annotated[Path, tyro.conf.Positional]
    json: bool = False


def run(args: Args) -> int:
    """Write both and say where."""
    from wm_toolkit.training.measure import render_run
    from wm_toolkit.training.return_page import learns_from_rewards, render_returns
    from wm_toolkit.training.run_folder import FILM

    page = render_returns(args.run) if learns_from_rewards(args.run) else render_run(args.run)
    film = page.parent / FILM
    made = {"report": str(page), "film": str(film) if film.exists() else None}
    if args.json:
        output.emit(made)
    else:
        print("\n".join(f"wrote {path}" for path in made.values() if path))
    return 0
