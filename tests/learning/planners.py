"""What each planner reaches in learnt dreams of Pendulum-v1: python tests/learning/planners.py CASE [SEED].

CASE is planet_pendulum or dreamer_v3_pendulum of imagination.py. One model is trained from rewards, then all plan in
it for the same 20 episodes: by predicted rewards alone (PlaNet), or with the critic's value at the end of the dream
(Dreamer V3), the policy of Dreamer V3 and uniformly random actions beside them. A planner is one JSON line of
tests/learning/results/planners.jsonl; milliseconds are CPU time per decision and environment, one thread.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from imagination import train, write

from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.planning.base import Planner
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.icem import ICEM
from wm_toolkit.planning.mppi import MPPI
from wm_toolkit.planning.objective import Reward
from wm_toolkit.planning.shooting import RandomShooting
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.returns import evaluate_returns

RESULTS = Path(__file__).parent / "results" / "planners.jsonl"
HORIZON = 12
PLANNERS: dict[str, Planner] = {
    "cem": CEM(horizon=HORIZON, samples=100, elites=10, iterations=4),
    "icem": ICEM(horizon=HORIZON, samples=100, elites=10, iterations=4),
    "mppi": MPPI(horizon=HORIZON, samples=100, elites=20, iterations=4, init_std=1.0),
    "gradient": GradientPlanner(horizon=HORIZON, samples=8, iterations=25, learning_rate=0.2),
    "shooting": RandomShooting(horizon=HORIZON, samples=400),
}


def planning(agent: Agent, planner: Planner) -> Agent:
    """The agent's model searched by a planner."""
    ahead = "value" in agent.model.heads
    objective = (
        Reward(gamma=None, bootstrap="value") if ahead else Reward(gamma=1.0, bootstrap="none")
    )
    other = Agent(agent.model, PlanningActor(agent.model, planner, objective))
    other.info = agent.info
    return other


def measure(case: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Train once, plan with everything."""
    agent = train(case, seed, folder)
    actors = {name: planning(agent, planner) for name, planner in PLANNERS.items()}
    if "policy" in agent.model.heads:
        actors["policy"] = agent
    actors["random"] = random_agent(agent)
    rows = []
    for name, actor in actors.items():
        found = evaluate_returns(actor).to_json()
        print(case, seed, name, found["return_mean"], found["decision_cpu_ms"], flush=True)
        rows.append({"case": f"{case}/{name}", "seed": seed, "agent": found})
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, *seeds = sys.argv[1:]
    for seed in [int(word) for word in seeds] or [0]:
        with tempfile.TemporaryDirectory() as temporary:
            for line in measure(name, seed, Path(temporary)):
                write(line, RESULTS)
