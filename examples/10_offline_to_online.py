"""Offline to online: what one agent recorded is enough to train another, which then goes on by itself.

python examples/10_offline_to_online.py            minutes on one core
python examples/10_offline_to_online.py --smoke    seconds; shows the way and learns next to nothing

A short run leaves a mediocre agent and a replay. From that data alone a world model and a behaviour are trained,
then the behaviour alone in dreams of the frozen model; last, the same agent is fine-tuned in the environment.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from wm_toolkit import Agent, TrajectoryDataset
from wm_toolkit.registry import recipe_config
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.online import train_online
from wm_toolkit.training.returns import evaluate_returns

RECIPE, ENV, RUNS = "dreamer_v3.nano", "Pendulum-v1", Path("runs/offline_to_online")
FEW_ROWS = {"envs": 1, "burst": 1, "train_ratio": 64.0, "prefill": 500}
"""The preset collects much and replays little; here a small data set is wanted."""


def main(smoke: bool) -> None:
    """Record, train offline, train the behaviour alone, go online; measure after each."""

    def train(name: str, env: str | None, updates: int, settings: Any = None, **how: Any) -> Agent:
        size = {"train__updates": updates // 100 if smoke else updates}
        size |= {"evaluation__episodes": 5 if smoke else 50}
        config = recipe_config(RECIPE, **FEW_ROWS, **size, **(settings or {}))
        agent, _ = train_online(RECIPE, config, env, RUNS / name, **how)
        print(line(name, agent))
        return agent

    short = train("short", ENV, 600)
    print(line("random", random_agent(short)))

    # What a run has seen is a data set; any other with rewards will do, in any layout that the toolkit reads.
    data = TrajectoryDataset.load(RUNS / "short")
    print(f"data: {len(data)} episodes, {data.num_rows:,} rows")
    train("offline", None, 1500, data=data)

    # From an artefact come the weights; from a whole run the state of its learner, too.
    train("behaviour", None, 500, {"frozen_model": True}, data=data, init=RUNS / "offline/model")
    # In smaller steps than the preset's, so that what it can do is not forgotten on the way.
    online = train("online", ENV, 500, {"lr": 3e-4}, data=data, init=RUNS / "offline")
    print(f"the last one took {online.info['experience']['steps']:,} steps in the environment")


def line(name: str, agent: Agent) -> str:
    """The return of new episodes, on one line."""
    found = evaluate_returns(agent)
    low, high = found.interval or (float("nan"),) * 2
    return f"{name}: return {found.return_mean:.0f} (95 % interval {low:.0f} to {high:.0f})"


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    main(parser.parse_args().smoke)
