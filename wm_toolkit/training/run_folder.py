"""What lies in a run folder beside the model: measured results, filmed episodes, the report page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch
from wm_toolkit.checkpoint import WEIGHTS, find_artefact, load_json, replace_file, save_json
from wm_toolkit.render.report import ANIMATION_FPS, GoalEpisode, RunReport, goal_film, goal_report
from wm_toolkit.render.rollout import HorizonError, dream_strips, horizon_error
from wm_toolkit.render.video import save_gif
from wm_toolkit.training.logging import CONFIG, METRICS, RECORD, read_metrics

RESULTS, EPISODES, REPORT, FILM = "results.json", "episodes.npz", "report.html", "goals.gif"

CURVES = {
    "loss/prediction": "prediction loss",
    "loss/sigreg": "SIGReg",
    "monitor/spread": "embedding spread",
    "monitor/effective_rank": "effective rank",
    "grad_norm": "gradient norm",
}
"""Metrics that the page shows first, and under which name; probes follow."""


class Results:
    """The numbers of a run, kept in results.json, each measured once per set of weights.

    Training on changes the weights, and everything that was measured with the old ones is forgotten.

    Args:
        run_dir: the run folder; it holds the saved model.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.path = Path(run_dir) / RESULTS
        weights = weights_digest(run_dir)
        saved = load_json(self.path) if self.path.exists() else {}
        same = saved.get("weights") == weights
        self._data: dict[str, Any] = saved if same else {"weights": weights, "rows": {}}

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Result rows by name, in the order they were measured."""
        return self._data["rows"]

    def put_row(self, name: str, row: Mapping[str, Any]) -> None:
        """Store a result row."""
        self.put("rows", {**self.rows, name: dict(row)})

    def get(self, name: str) -> Any:
        """Another stored value, or None."""
        return self._data.get(name)

    def put(self, name: str, value: Any) -> None:
        """Store another JSON-ready value."""
        self._data[name] = value
        save_json(self.path, self._data)


def weights_digest(run_dir: str | Path) -> str:
    """SHA-256 of a run's saved weights: what the results belong to."""
    with open(find_artefact(run_dir) / WEIGHTS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_episodes(run_dir: str | Path, episodes: Sequence[GoalEpisode]) -> None:
    """Keep filmed episodes, so that pictures can be made again without the environment."""
    arrays: dict[str, Any] = {"success": np.array([e.success for e in episodes])}
    for i, episode in enumerate(episodes):
        arrays |= {f"frames_{i}": episode.frames, f"goal_{i}": episode.goal}
    with replace_file(Path(run_dir) / EPISODES) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_episodes(run_dir: str | Path) -> list[GoalEpisode]:
    """The filmed episodes of a run; empty if there are none."""
    path = Path(run_dir) / EPISODES
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as saved:
        return [
            GoalEpisode(saved[f"frames_{i}"], saved[f"goal_{i}"], bool(success))
            for i, success in enumerate(saved["success"])
        ]


def prediction_error(results: Results, agent: Agent, batch: Batch) -> HorizonError:
    """Open-loop error of a run's model on held-out windows [B, T], measured once."""
    stored = results.get("horizon")
    if stored is None:
        error = horizon_error(agent.model, batch)
        stored = {"model": error.model, "copy": error.copy}
        results.put("horizon", stored)
    return HorizonError(tuple(stored["model"]), tuple(stored["copy"]))


def write_report(
    run_dir: str | Path, *, title: str, lead: str, agent: Agent, batch: Batch | None
) -> Path:
    """Write report.html, and goals.gif if episodes were filmed, from what lies in a run folder.

    Args:
        run_dir: the run folder.
        title, lead: heading and the sentences under it.
        agent: the run's; a model with a decoder draws its dreams beside the truth.
        batch: [B, T] held-out windows for that: the first frame is seen, the others are dreamt; None
            leaves them out.

    Returns:
        the page.
    """
    folder = Path(run_dir)
    results, episodes = Results(folder), load_episodes(folder)
    stored = results.get("horizon")
    report = RunReport(
        title,
        lead,
        results.rows,
        training_curves(folder),
        HorizonError(tuple(stored["model"]), tuple(stored["copy"])) if stored else None,
        None if batch is None else dream_strips(agent.model, batch),
        episodes,
        _json(folder / RECORD),
        _json(folder / CONFIG),
    )
    if episodes:
        film = goal_film(episodes, scale=2)
        save_gif(film, folder / FILM, fps=ANIMATION_FPS, hold_seconds=1.5)
    with replace_file(folder / REPORT) as temporary:
        temporary.write_text(goal_report(report), encoding="utf-8")
    return folder / REPORT


def training_curves(run_dir: str | Path) -> dict[str, list[tuple[float, float]]]:
    """The logged metrics worth a chart, by the name the page gives them."""
    path = Path(run_dir) / METRICS
    lines = read_metrics(path) if path.exists() else []
    names = dict(CURVES)
    for key in sorted({key for line in lines for key in line}):
        if key.startswith("monitor/probe_r2/"):
            names[key] = f"{key.rpartition('/')[2]} probe R2"
        elif key.startswith("probe/"):
            names[key] = f"{key.rpartition('/')[2]} loss"
    curves = {
        shown: [(line["update"], line[key]) for line in lines if line.get(key) is not None]
        for key, shown in names.items()
    }
    return {shown: points for shown, points in curves.items() if points}


def _json(path: Path) -> dict[str, Any]:
    return load_json(path) if path.exists() else {}
