"""After training: measure a run, write its card, make its report page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.card import evaluation_text, has_goals, with_evaluation
from wm_toolkit.checkpoint import CARD, sweep
from wm_toolkit.errors import DataError, UnknownNameError
from wm_toolkit.training.episodes import Progress
from wm_toolkit.training.jobs import OfflineData, agent_data, monitor_batch
from wm_toolkit.training.return_page import render_returns
from wm_toolkit.training.returns import evaluate_agent
from wm_toolkit.training.run_folder import Results, prediction_error, save_episodes, write_report
from wm_toolkit.training.summary import Evaluation
from wm_toolkit.training.trainer import MODEL

log = logging.getLogger(__name__)

AHEAD = 5
"""Steps of the model whose open-loop error is measured."""
FILMED = 12
TITLE = "Goals reached by planning in a learned world model"


def measure_run(
    run_dir: str | Path,
    contenders: Mapping[str, Agent],
    ready: OfflineData | None,
    *,
    say: Callable[[str], None] = log.info,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure what was not measured yet, write the card and the report.

    Args:
        run_dir: the run folder, with the saved model.
        contenders: agents by name; "model" is the run's own, its episodes are filmed where there are
            goals; all rows go into its card.
        ready: the data the agent was trained on, parted the same way; None if there is none, or goals
            come from the environment and nothing else shall be measured.
        say: told which stage begins.
        progress: told how far an evaluation is.

    Returns:
        rows by name, with the keys of `Evaluation.to_json` or `ReturnEvaluation.to_json`.
    """
    sweep(run_dir)
    results, model = Results(run_dir), contenders["model"]
    goals = has_goals(model.info["evaluation"])
    if ready is not None and goals:
        prediction_error(results, model, monitor_batch(ready, AHEAD + 1, agent=model))
    for name, agent in contenders.items():
        if name in results.rows:
            continue
        say(f"evaluation: {name}")
        found = evaluate_agent(
            agent,
            ready.held_out if ready is not None else None,
            films=FILMED if name == "model" and goals else 0,
            progress=progress,
        )
        if isinstance(found, Evaluation) and found.films:
            save_episodes(run_dir, found.films)
        results.put_row(name, found.to_json())
        # At once: an oracle may be slow, and what is measured shall be in the card if it is stopped.
        save_results(model, results.rows, Path(run_dir) / MODEL)
    save_results(model, results.rows, Path(run_dir) / MODEL)
    render_run(run_dir, model, ready)
    return results.rows


def render_run(
    run_dir: str | Path, agent: Agent | None = None, ready: OfflineData | None = None
) -> Path:
    """Make report.html of a run from what lies in its folder, and goals.gif; nothing is measured.

    Args:
        run_dir: the run folder.
        agent, ready: its agent and data, if they are loaded already. Without its data on this machine
            the page shows no dreams beside the truth.

    Returns:
        the page.

    Raises:
        CheckpointError: if the folder holds no model.
    """
    agent = agent or Agent.from_pretrained(run_dir)
    if not has_goals(agent.info["evaluation"]):
        return render_returns(run_dir)
    ready = ready or _data_if_here(agent)
    batch = None if ready is None else monitor_batch(ready, AHEAD + 1, agent=agent)
    return write_report(run_dir, title=TITLE, lead=lead(agent), agent=agent, batch=batch)


def _data_if_here(agent: Agent) -> OfflineData | None:
    try:
        return agent_data(agent)
    except (UnknownNameError, DataError) as error:
        log.warning("the page is made without film strips of dreams: %s", error)
        return None


def lead(agent: Agent) -> str:
    """What was done, in two sentences."""
    size = sum(parameter.numel() for parameter in agent.model.parameters())
    about, protocol = agent.info["data"], agent.info["evaluation"]
    where = f", {protocol['goal_offset']} steps ahead," if protocol["goals"] == "dataset" else ""
    return (
        f"{agent.recipe} ({size / 1e6:.2f} M parameters) learnt from {about['episodes']:,} recorded "
        f"episodes of {about['name']}, without rewards. It then met {protocol['episodes']} goals it had "
        f"never seen{where} and had {protocol['budget']} environment steps to reach each."
    )


def save_results(agent: Agent, rows: Mapping[str, Mapping[str, Any]], folder: str | Path) -> None:
    """Write what an agent and those beside it reach into its artefact and card; `wm eval` repeats it.

    What else somebody wrote into the card stays.

    Args:
        agent: as saved there, with the protocol in its info.
        rows: "model" and the baselines, by name.
        folder: the artefact.
    """
    baselines = {name: dict(row) for name, row in rows.items() if name != "model"}
    found = {"results": dict(rows["model"]), "baselines": baselines}
    if any(agent.info.get(name) != value for name, value in found.items()):
        agent.info |= found
        written = Path(folder) / CARD
        section = evaluation_text(agent.info, agent.recipe)
        known = written.read_text(encoding="utf-8") if written.exists() else None
        agent.save_pretrained(folder, known and with_evaluation(known, section))
