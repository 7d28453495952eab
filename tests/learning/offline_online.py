"""Offline first, online after: python tests/learning/offline_online.py [CASE [SEED ...]].

A CASE is a name in CASES; by default all cases, one seed. A short online run leaves an agent and a replay, which is a
data set (World Models: random rollouts). From that alone a new agent is trained; then a fresh actor and critic in dreams of its
frozen world model (not for PlaNet, which has none); then the offline agent is fine-tuned online from its checkpoint.
All of them, and the random policy, play the same real episodes. Each seed is one JSON line of
tests/learning/results/offline_online.jsonl; CPU seconds are of this process, one thread, measurements included.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from imagination import write

from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.training import seeding
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.jobs import train
from wm_toolkit.training.returns import evaluate_returns
from wm_toolkit.training.stages import ROLLOUTS, record_rollouts

EPISODES = 50
RESULTS = Path(__file__).parent / "results" / "offline_online.jsonl"


@dataclasses.dataclass(frozen=True)
class Case:
    """What learns where.

    Attributes:
        updates: of every stage: "short" (if a run records), "offline", "behaviour" (if there is one) and "online".
        least: mean return after fine-tuning.
        recipe: a preset.
        env: id of the environment.
        settings: what is other than in the preset.
        online: what is other than that in the last stage.
    """

    updates: dict[str, int]
    least: float
    recipe: str = "dreamer_v3.nano"
    env: str = "Pendulum-v1"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    online: dict[str, Any] = dataclasses.field(default_factory=dict)


# A few thousand rows from one environment, each replayed often; the preset itself collects more and replays less.
FEW = {"envs": 1, "train_ratio": 64.0, "burst": 1, "prefill": 500}
# What can do the task already goes on in smaller steps: at the preset's 7e-4, one of three seeds forgot the swing-up for
# 200 updates.
GENTLY = {"lr": 3e-4}
CASES = {
    "medium_replay": Case(
        {"short": 600, "offline": 1500, "behaviour": 800, "online": 500},
        -250,
        settings=FEW,
        online=GENTLY,
    ),
    "first_steps": Case(
        {"short": 250, "offline": 800, "behaviour": 500, "online": 500},
        -250,
        settings=FEW,
        online=GENTLY,
    ),
    "dreamer_v1": Case(
        {"short": 500, "offline": 1500, "behaviour": 2000, "online": 500}, -400, "dreamer_v1.nano"
    ),
    "dreamer_v2": Case(
        {"short": 1000, "offline": 2000, "behaviour": 1000, "online": 1000},
        150,
        "dreamer_v2.nano",
        "CartPole-v1",
    ),
    "planet": Case({"short": 600, "offline": 3000, "online": 800}, -400, "planet.nano"),
    # V, M and C from rollouts; a fresh C in dreams; C alone goes on in the real game, a generation an update.
    "world_models": Case(
        {"offline": 4075, "behaviour": 75, "online": 20},
        150,
        "world_models.small",
        "wm_toolkit/Dodge-v0",
        online={"frozen_model": True, "fitness": "real", "starts": 8, "remeasure": 5},
    ),
}
BEHAVIOUR = ("heads.policy.", "heads.value.")


def config_of(case: Case, seed: int, updates: int, **changes: Any) -> Any:
    """The preset with the case's settings for one stage; the learner is checkpointed at its end."""
    changes = {**case.settings, **changes}
    changes |= {"evaluation__episodes": EPISODES, "train__checkpoint_every": 0}
    return recipe_config(case.recipe, train__seed=seed, train__updates=updates, **changes)


def with_fresh_behaviour(agent: Agent, seed: int, folder: Path) -> Path:
    """The agent's world model with an actor and a critic that know nothing, saved."""
    with seeding.own_stream(seed):
        other = build(agent.recipe, agent.spaces, agent.config)
    weights = agent.model.state_dict()
    own = {k: v for k, v in other.model.state_dict().items() if k.startswith(BEHAVIOUR)}
    other.model.load_state_dict(weights | own)
    other.info = {"evaluation": agent.info["evaluation"]}
    return other.save_pretrained(folder)


def rollouts(case: Case, seed: int, folder: Path) -> TrajectoryDataset:
    """What a recipe that begins with random play records before it learns."""
    config = config_of(case, seed, 1)
    named = dataclasses.replace(config.evaluation, env=case.env)
    return record_rollouts(dataclasses.replace(config, evaluation=named), folder / ROLLOUTS)


def measure(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """All stages of one seed, and what the agents play after each."""
    case = CASES[name]
    scores: dict[str, Any] = {}
    cpu_seconds: dict[str, float] = {}

    def stage(name: str, env: str | None = None, **options: Any) -> Agent:
        began = time.process_time()
        changes = {"behaviour": {"frozen_model": True}, "online": case.online}.get(name, {})
        config = config_of(case, seed, case.updates[name], **changes)
        agent, _ = train(case.recipe, config, folder / name, env=env, **options)
        scores[name] = evaluate_returns(agent).to_json()
        cpu_seconds[name] = time.process_time() - began
        return agent

    if "short" in case.updates:
        stage("short", case.env)
        data = TrajectoryDataset.load(folder / "short")
    else:
        data = rollouts(case, seed, folder)
    offline = stage("offline", data=data)
    scores["random"] = evaluate_returns(random_agent(offline)).to_json()
    if "behaviour" in case.updates:
        fresh = with_fresh_behaviour(offline, seed, folder / "fresh")
        scores["fresh"] = evaluate_returns(Agent.from_pretrained(fresh)).to_json()
        stage("behaviour", data=data, init=fresh)
    stage("online", case.env, data=data, init=folder / "offline")
    return {
        "case": name,
        "recipe": case.recipe,
        "env": case.env,
        "seed": seed,
        "updates": case.updates,
        "data": about(data),
        "scores": scores,
        "cpu_seconds": cpu_seconds,
    }


def about(data: TrajectoryDataset) -> dict[str, Any]:
    """What there was to learn from: rows, and the mean return of episodes that came to their end."""
    returns, longest = [], max(data.episode_lengths)
    for number, length in enumerate(data.episode_lengths):
        rows = data.rows(number)
        if length == longest or rows["terminated"][-1]:
            returns.append(float(rows["reward"].sum()))
    mean = sum(returns) / len(returns)
    return {"episodes": len(data), "rows": data.num_rows, "return_mean": mean}


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen, seeds = sys.argv[1:2] or list(CASES), [int(word) for word in sys.argv[2:]] or [0]
    for case in chosen:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                line = measure(case, seed, Path(folder))
            write(line, RESULTS)
            print(
                case,
                seed,
                {n: round(s["return_mean"], 1) for n, s in line["scores"].items()},
                flush=True,
            )
