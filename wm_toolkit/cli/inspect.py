"""`wm inspect`: what is inside a data set or a saved agent, and every problem found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.cli.output import number

if TYPE_CHECKING:
    from wm_toolkit.data.inspect import Report


@dataclasses.dataclass(frozen=True)
class Args:
    """Say what is inside a data set or an artefact, and every problem found.

    For example: `wm inspect walks.h5`, `wm inspect runs/demo`, or
    `wm inspect D4RL/pointmaze/umaze-v2 --json`.

    Attributes:
        name: a data set (file, folder, Minari id or catalog name), a run, or a saved agent.
        json: print one JSON object.
    """

    name: Annotated[str, tyro.conf.Positional]
    json: bool = False


def run(args: Args) -> int:
    """Look it over; 1 if a data set is not sound."""
    if is_artefact(args.name):
        facts = artefact_facts(args.name)
        if args.json:
            output.emit(facts)
        else:
            output.show_table(["", args.name], [(k, str(v)) for k, v in facts.items()])
        return 0
    from wm_toolkit.data.inspect import inspect
    from wm_toolkit.training.jobs import prepare_data

    prepare_data(args.name)
    report = inspect(args.name)
    if args.json:
        output.emit(report.to_dict())
    else:
        show(report)
    return 0 if report.sound else 1


def is_artefact(name: str) -> bool:
    """Whether a name means a saved agent rather than a data set."""
    from wm_toolkit import catalog
    from wm_toolkit.checkpoint import CONFIG, WEIGHTS

    folders = (Path(name), Path(name) / "model")
    here = any((p / CONFIG).exists() and (p / WEIGHTS).exists() for p in folders)
    return here or name in catalog.entries("pretrained")


def artefact_facts(name: str) -> dict[str, Any]:
    """What a saved agent is, from its files alone.

    Raises:
        CheckpointError: if it is incomplete or damaged.
    """
    from wm_toolkit.checkpoint import load_artefact

    folder, config, tensors = load_artefact(name)
    spaces = config.get("spaces", {})
    results = config.get("results") or {}
    return {
        "path": str(folder),
        "recipe": config.get("recipe"),
        "parameters and buffers": sum(tensor.numel() for tensor in tensors.values()),
        "observations": sorted(spaces.get("observation", {})),
        "action block": spaces.get("block"),
        "data": (config.get("data") or {}).get("name"),
        "data checksum": (config.get("data") or {}).get("checksum"),
        "updates": (config.get("training") or {}).get("updates"),
        "results": results,
        "evaluation": config.get("evaluation"),
        "versions": config.get("versions"),
    }


def show(report: Report) -> None:
    """Print a data set's report for people."""
    steps = sum(report.lengths)
    print(f"{report.path} ({report.format}, {report.bytes / 1e6:,.1f} MB)")
    print(f"{len(report.lengths)} episodes, {steps} steps; actions: {report.action}")
    print(f"{report.terminated} episodes terminated, {report.truncated} truncated")
    rows = [(name, *_column(facts)) for name, facts in report.columns.items()]
    output.show_table(("column", "type", "row", "unit", "mean", "std", "min", "max"), rows)
    for key, value in report.metadata.items():
        print(f"{key}: {value}")
    print("\n".join(map(str, report.problems)) or "no problems found")


def _column(facts: dict[str, Any]) -> tuple[str, ...]:
    what = (str(facts.get("dtype", "")), str(facts.get("shape", "")), str(facts.get("unit") or "-"))
    return (*what, *(_numbers(facts.get(key)) for key in ("mean", "std", "min", "max")))


def _numbers(values: Any) -> str:
    if isinstance(values, (list, tuple)):
        shown = [_numbers(value) for value in values[:4]]
        return "[" + ", ".join(shown) + (" ..." if len(values) > 4 else "") + "]"
    return number(values)
