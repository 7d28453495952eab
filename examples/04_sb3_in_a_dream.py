"""Somebody else's agent in our dream: Stable-Baselines3's PPO trained inside a saved world model.

    python examples/04_sb3_in_a_dream.py            a few minutes
    python examples/04_sb3_in_a_dream.py --smoke    seconds; too short to learn much

PPO never touches the environment while it learns: it walks in
the model's imagination, and is then measured in the environment itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch

from wm_toolkit import Agent, Goal, TrajectoryDataset, WorldModel, evaluate
from wm_toolkit.agents.actors import Decision
from wm_toolkit.errors import MissingPackageError, require
from wm_toolkit.training.jobs import prepare_two_rooms


class FeaturePolicy:
    """An actor that shows features of state and goal to a policy from anywhere."""

    def __init__(self, model: WorldModel, predict: Callable[..., Any]) -> None:
        self.model, self.predict = model, predict

    def initial(self, batch_size: int) -> None:
        """No memory."""

    def act(self, state, obs, memory, *, is_first, **options) -> tuple[Decision, None]:
        """[B, A] what the policy does on seeing [features, goal features]."""
        goal = Goal().bind(self.model, obs).features
        seen = torch.cat([self.model.features(state), goal], -1).cpu().numpy()
        action, _ = self.predict(seen, deterministic=True)
        return Decision(self.model.spaces.encode_action(action)), None


def main(env_steps: int) -> None:
    """Open the model as an environment, train PPO in it, measure before and after."""
    ppo = require("stable_baselines3", extra="sb3").PPO
    agent = Agent.from_pretrained("lewm-tworooms")
    walks = prepare_two_rooms("runs/unseen.h5", episodes=40, seed=1)

    # Any model and any objective make a Gymnasium environment; here every dream has its own goal.
    inside = {"model": agent, "objective": Goal(metric="l2"), "starts": walks}
    dream = gym.make("wm_toolkit/WorldModel-v0", **inside, horizon=10)
    print(f"dream: observation {dream.observation_space.shape}, action {dream.action_space.shape}")
    settings = {"n_steps": 256, "gamma": 0.8, "learning_rate": 1e-3, "device": "cpu"}
    policy = ppo("MlpPolicy", dream, seed=0, **settings)
    print(f"before: {reached(agent, policy, walks)}")
    policy.learn(env_steps)
    print(f"after {policy.num_timesteps:,} dreamt steps: {reached(agent, policy, walks)}")


def reached(agent: Agent, policy: Any, walks: TrajectoryDataset) -> str:
    """Success of the policy in the real environment, by the protocol the model carries."""
    real = Agent(agent.model, FeaturePolicy(agent.model, policy.predict))
    real.info = agent.info
    found = evaluate(real, walks)
    return f"{found.success_rate:.0%} of {found.episodes} goals reached in the real environment"


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    try:
        main(env_steps=512 if parser.parse_args().smoke else 30_000)
    except MissingPackageError as error:
        print(f"skipped: {error}")
