"""The report page of a run that learns from rewards, made from what lies in its folder, also while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_toolkit.checkpoint import load_json, replace_file
from wm_toolkit.render.dreams import load_look
from wm_toolkit.render.return_report import ReturnReport, return_report
from wm_toolkit.training.logging import CONFIG, METRICS, RECORD, read_metrics
from wm_toolkit.training.run_folder import REPORT, RESULTS

Lines = Sequence[Mapping[str, Any]]
TITLE = "Behaviour learnt in a world model's dreams"
CURVES = ("loss", "grad_norm", "dream")
"""Metrics that the page shows: these names, and what begins with one of them and a slash."""
DREAMS = ("5", "dreamt")
"""Of what dreams are measured by: errors five steps ahead, and heads read off dreamt states."""


def learns_from_rewards(run_dir: str | Path) -> bool:
    """Whether a run is measured by its return, not by the goals it reaches.

    Raises:
        CheckpointError: if the folder holds no run.
    """
    return "goals" not in (load_json(Path(run_dir) / CONFIG).get("evaluation") or {})


def render_returns(run_dir: str | Path) -> Path:
    """Write report.html of a run folder; nothing is measured, and nothing but the folder is needed.

    Returns:
        the page.

    Raises:
        CheckpointError: if the folder holds no run.
    """
    folder = Path(run_dir)
    config, metrics = load_json(folder / CONFIG), folder / METRICS
    lines = read_metrics(metrics) if metrics.exists() else []
    results = folder / RESULTS
    report = ReturnReport(
        title=TITLE,
        lead=_lead(config, lines),
        results=load_json(results)["rows"] if results.exists() else {},
        learning=learning_curves(lines),
        curves=_curves(lines),
        look=load_look(folder),
        record=load_json(folder / RECORD) if (folder / RECORD).exists() else {},
        config=config,
    )
    with replace_file(folder / REPORT) as temporary:
        temporary.write_text(return_report(report), encoding="utf-8")
    return folder / REPORT


def learning_curves(lines: Lines) -> dict[str, list[tuple[float, float]]]:
    """(Environment steps, return) of logged lines, while exploring and as evaluated."""
    pairs = {
        "exploring": ("env/steps", "env/return"),
        "evaluated": ("eval/env_steps", "eval/return_mean"),
    }
    curves = {name: _points(lines, *keys) for name, keys in pairs.items()}
    return {name: points for name, points in curves.items() if points}


def _curves(lines: Lines) -> dict[str, list[tuple[float, float]]]:
    known = sorted({key for line in lines for key in line if _is_shown(key)})
    return {key: _points(lines, "update", key) for key in known}


def _is_shown(key: str) -> bool:
    """Whether a metric gets a curve; baselines do not move, so those of dreams get none."""
    parts = key.split("/")
    chosen = parts[-1] in DREAMS and "_copy/" not in key
    return parts[0] in CURVES and (chosen or parts[0] != "dream")


def _points(lines: Lines, x: str, y: str) -> list[tuple[float, float]]:
    found = ((line.get(x), line.get(y)) for line in lines)
    return [(float(a), float(b)) for a, b in found if a is not None and b is not None]


def _lead(config: Mapping[str, Any], lines: Lines) -> str:
    """What was trained where, as far as the folder tells."""
    recipe = config.get("recipe") or "An agent"
    env = (config.get("experience") or {}).get("env")
    data = (config.get("data") or {}).get("name")
    steps = max((line["env/steps"] for line in lines if line.get("env/steps")), default=0)
    updates = max((line["update"] for line in lines), default=0)
    where = " and ".join(
        part
        for part in (
            f"recorded episodes of {data}" if data else "",
            f"{steps:,.0f} steps in {env}" if env else "",
        )
        if part
    )
    return f"{recipe} learnt from {where or 'what it was given'} in {updates:,} updates."
