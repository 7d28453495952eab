"""The Dreamer family learns from rewards: python tests/learning/imagination.py CASE [SEED ...].

CASE is a name in CASES. Every seed is trained from scratch on one thread, then plays 20 episodes without exploring,
as do uniformly random actions. Where a case selects, the run keeps the weights that did best in evaluations on 20
other episodes; what those cost and what the last weights would have got stand in "selection". Result and curve are
one JSON line a seed of tests/learning/results/imagination.jsonl; CPU seconds are of this process, training and
selection together.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from wm_toolkit.agents.agent import Agent
from wm_toolkit.registry import recipe_config
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.checkpoints import Checkpoints, load_checkpoint
from wm_toolkit.training.logging import METRICS, read_metrics
from wm_toolkit.training.online import train_online
from wm_toolkit.training.returns import evaluate_returns
from wm_toolkit.training.trainer import CHECKPOINTS

RESULTS = Path(__file__).parent / "results" / "imagination.jsonl"
EVERY = 100  # updates between two points of a curve


@dataclasses.dataclass(frozen=True)
class Case:
    """What learns where, for how long, and what it must reach.

    Attributes:
        recipe: a preset.
        env: id of the environment.
        updates: gradient updates.
        least: mean return of 20 episodes.
        select: updates between evaluations of which the best counts; 0 takes the last weights.
    """

    recipe: str
    env: str
    updates: int
    least: float
    select: int = 0


CASES = {
    "dreamer_v3_cartpole": Case("dreamer_v3.nano", "CartPole-v1", 2000, 400, select=200),
    "dreamer_v3_pendulum": Case("dreamer_v3.nano", "Pendulum-v1", 1300, -300),
    "dreamer_v2_cartpole": Case("dreamer_v2.nano", "CartPole-v1", 3000, 300, select=200),
    "dreamer_v1_pendulum": Case("dreamer_v1.nano", "Pendulum-v1", 1800, -400),
    "planet_pendulum": Case("planet.nano", "Pendulum-v1", 3000, -400),
}


def train(name: str, seed: int, folder: Path) -> Agent:
    """An agent that learnt one case from scratch; its run lies in the folder."""
    case = CASES[name]
    config = recipe_config(
        case.recipe,
        train__seed=seed,
        train__updates=case.updates,
        train__log_every=EVERY,
        train__eval_every=case.select,
        train__keep="best" if case.select else "last",
    )
    return train_online(case.recipe, config, case.env, folder / "run")[0]


def measure(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one seed and play."""
    began = time.process_time()
    agent = train(name, seed, folder)
    trained = time.process_time() - began
    rows = read_metrics(folder / "run" / METRICS)
    line = {
        "case": name,
        "seed": seed,
        "agent": evaluate_returns(agent).to_json(),
        "random": evaluate_returns(random_agent(agent)).to_json(),
        "cpu_seconds": trained,
        "curve": [(row["env/steps"], row["env/return"]) for row in rows if row.get("env/return")],
    }
    return line | ({"selection": selection(agent, folder / "run")} if CASES[name].select else {})


def selection(agent: Agent, run: Path) -> dict[str, Any]:
    """What choosing the weights took, and what the last ones get in the episodes that count."""
    looks = [row for row in read_metrics(run / METRICS) if "eval/return_mean" in row]
    last = Checkpoints(run / CHECKPOINTS).latest()
    assert last is not None
    agent.model.load_state_dict(load_checkpoint(last).model)
    return {
        "looks": [(row["update"], row["eval/return_mean"]) for row in looks],
        "env_steps": sum(row["eval/length_mean"] * row["eval/episodes"] for row in looks),
        "last": evaluate_returns(agent).to_json(),
    }


def write(line: dict[str, Any], path: Path = RESULTS) -> None:
    """Add a result to those there are, in place of an older one of the same case and seed."""
    known = path.read_text().splitlines() if path.exists() else []
    lines = {(old["case"], old["seed"]): old for old in map(json.loads, known)}
    lines[line["case"], line["seed"]] = line
    path.write_text("".join(json.dumps(lines[key]) + "\n" for key in sorted(lines)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, *seeds = sys.argv[1:]
    for seed in [int(word) for word in seeds] or [0, 1, 2]:
        with tempfile.TemporaryDirectory() as temporary:
            line = measure(name, seed, Path(temporary))
        write(line)
        print(name, seed, line["agent"]["return_mean"], line["random"]["return_mean"])
