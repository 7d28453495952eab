"""Stable-Baselines3 learns inside a dream, and what it learnt holds in the world the model came from."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces as gs
from stable_baselines3 import PPO
from torch import Tensor

import wm_toolkit.envs  # noqa: F401  (registers the names)
from wm_toolkit.batch import Batch, Losses
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.objective import Goal
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct

HORIZON = 20


@dataclasses.dataclass(frozen=True)
class Point(Struct):
    xy: Tensor


class PointMass(WorldModel[Point]):
    """xy' = xy + action / 5, inside [-1, 1]^2: a model whose dynamics are exactly known."""

    def __init__(self) -> None:
        space = gs.Box(-1, 1, (2,), np.float32)
        super().__init__(Spaces({"vector": space}, space))

    def initial(self, batch_size: int) -> Point:
        return Point(torch.zeros(batch_size, 2))

    def observe(self, state: Point, action: Tensor, obs: dict[str, Tensor], *, generator=None):
        return Point(obs["vector"])

    def imagine(self, state: Point, action: Tensor, *, generator=None) -> Point:
        return Point((state.xy + 0.2 * action).clamp(-1, 1))

    def features(self, state: Point) -> Tensor:
        return state.xy

    def loss(self, batch: Batch) -> Losses:
        return {}


def dream() -> gym.Env:
    corners = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    goal = Goal(features=torch.tensor([0.5, -0.25]), metric="l2")
    return gym.make(
        "wm_toolkit/WorldModel-v0",
        model=PointMass(),
        objective=goal,
        starts={"vector": corners},
        horizon=HORIZON,
    )


def mean_return(env: gym.Env, policy, episodes: int = 30) -> float:
    total = 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=1000 + episode)
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, ended = total + float(reward), terminated or truncated
    return total / episodes


@pytest.mark.learning
def test_ppo_learns_in_a_dream():
    env = dream()
    env.action_space.seed(0)
    random = mean_return(env, lambda obs: env.action_space.sample())
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=512,
        batch_size=128,
        learning_rate=3e-3,
        gamma=0.9,
        seed=0,
        n_epochs=8,
        device="cpu",
        policy_kwargs={"net_arch": [32]},
    )
    agent.learn(4096)
    learnt = mean_return(dream(), lambda obs: agent.predict(obs, deterministic=True)[0])
    # Walking straight to the goal costs about 2.4; random stays about 0.9 away for 20 steps.
    assert random < -14
    assert learnt > -6
