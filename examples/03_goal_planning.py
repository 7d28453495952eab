"""Every planner on the same goals: how often it arrives, how fast, and what it thinks on the way.

python examples/03_goal_planning.py            a minute; writes planners.svg
python examples/03_goal_planning.py --smoke    seconds, with few goals
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from gymnasium.vector import VectorEnv

from wm_toolkit import CEM, ICEM, MPPI, Agent, evaluate
from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.config import from_dict
from wm_toolkit.planning.base import Planner
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.shooting import RandomShooting
from wm_toolkit.render.plots import Series, line_chart, standalone
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.evaluate import goal_env
from wm_toolkit.training.jobs import prepare_two_rooms

# About 200 candidates each, a gradient counted as three, so that the table compares like with like.
PLANNERS: dict[str, Planner] = {
    "CEM": CEM(horizon=8, samples=64, iterations=3, elites=8, noise_exponent=3.0, execute="best"),
    "iCEM": ICEM(horizon=8, samples=78, iterations=3, elites=8, noise_exponent=3.0),
    "MPPI": MPPI(horizon=8, samples=64, iterations=3, elites=16, noise_exponent=3.0),
    "gradient": GradientPlanner(horizon=8, samples=3, iterations=20, learning_rate=0.2),
    "shooting": RandomShooting(horizon=8, samples=64, iterations=3),
}


def main(episodes: int, out: Path) -> None:
    """Print the table and draw the searches."""
    agent = Agent.from_pretrained("lewm-tworooms")
    # Walks of another seed: the model has seen none of them.
    walks = prepare_two_rooms("runs/unseen.h5", episodes=40, seed=1)
    protocol = from_dict(EvaluationConfig, agent.info["evaluation"])
    protocol = dataclasses.replace(protocol, episodes=episodes)
    print(f"{'planner':<10}{'success':>9}{'steps to goal':>15}{'ms per decision':>17}")
    curves = []
    for name, planner in PLANNERS.items():
        # The same model and objective; only the search differs.
        agent.actor = PlanningActor(agent.model, planner, agent.actor.objective)
        found = evaluate(agent, walks, protocol)
        steps = f"{found.steps_to_goal:.1f}" if found.steps_to_goal else "-"
        print(f"{name:<10}{found.success_rate:>9.0%}{steps:>15}{found.decision_ms:>17.1f}")
        curves.append(search_curve(name, agent, goal_env(protocol, walks)))
    title = "The best plan so far, during one search"
    chart = line_chart(curves, title=title, x_label="share of the search", y_label="score")
    out.write_text(standalone(chart), encoding="utf-8")
    print(f"the searches are drawn in {out}")


def search_curve(name: str, agent: Agent, env: VectorEnv) -> Series:
    """Score of the best plan after each iteration of the first search, mean over all goals."""
    obs, _ = env.reset(seed=0)
    rng = torch.Generator().manual_seed(0)
    first = [True] * env.num_envs
    decision, _ = agent.act(obs, agent.initial(env.num_envs), is_first=first, generator=rng)
    env.close()
    best = decision.plan.record.best.mean(0).tolist()
    return Series(name, [(i + 1) / len(best) for i in range(len(best))], best, markers=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="few goals")
    parser.add_argument("--out", type=Path, default=Path("planners.svg"))
    args = parser.parse_args()
    main(episodes=4 if args.smoke else 50, out=args.out)
