"""Dreamer V3 online: an environment in, an agent out, saved, loaded in one line, acting in three.

python examples/09_dreamer_online.py            minutes on one core; balances CartPole
python examples/09_dreamer_online.py --smoke    seconds; shows the way and learns next to nothing
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import torch

from wm_toolkit import Agent
from wm_toolkit.registry import recipe_config
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.online import train_online
from wm_toolkit.training.progress import ProgressBar
from wm_toolkit.training.returns import evaluate_returns
from wm_toolkit.training.summary import ReturnEvaluation

RECIPE, ENV = "dreamer_v3.nano", "CartPole-v1"


def main(smoke: bool, run: Path) -> None:
    """Train (or go on with a training that was stopped), load, act, measure."""
    # Any Gymnasium id will do, and any field of the recipe can be replaced: recipe_config(name, lr=...).
    # Returns rise and fall on the way, so the artefact keeps the weights that did best in an evaluation.
    config = recipe_config(RECIPE, train__eval_every=200, train__keep="best")
    if smoke:
        config = recipe_config(RECIPE, train__updates=60, evaluation__episodes=5)

    # Environments and updates take turns at the recipe's train ratio. After Ctrl-C, run it again.
    print(config.ratio_text())
    _, result = train_online(RECIPE, config, ENV, run, hooks=[ProgressBar()])
    print(f"trained: {result.update:,} updates, saved in {run / 'model'}")

    # Load it in one line: weights, spaces, protocol, and how much it has seen come along.
    agent = Agent.from_pretrained(run)
    seen = agent.info["experience"]
    print(f"it has seen {seen['steps']:,} steps in {seen['episodes']} episodes of {seen['env']}")

    print(f"one episode: return {play(agent):.0f}")
    print(line(RECIPE, evaluate_returns(agent)))
    print(line("random", evaluate_returns(random_agent(agent))))


def play(agent: Agent) -> float:
    """Act until an episode is over; the sum of its rewards."""
    env = gym.make(ENV)
    obs, _ = env.reset(seed=0)
    state, first, total, over = agent.initial(1), True, 0.0, False
    while not over:
        decision, state = agent.act(obs, state, is_first=first)
        action = agent.spaces.decode_action(decision.action)
        obs, reward, terminated, truncated, _ = env.step(action)
        first, total, over = False, total + float(reward), terminated or truncated
    env.close()
    return total


def line(name: str, found: ReturnEvaluation) -> str:
    """One result with its interval, on one line."""
    low, high = found.interval or (float("nan"),) * 2
    return (
        f"{name}: return {found.return_mean:.1f} (95 % interval {low:.1f} to {high:.1f}), mean of "
        f"{found.episodes} episodes"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--run", type=Path, default=Path("runs/dreamer_online"))
    args = parser.parse_args()
    main(args.smoke, args.run)
