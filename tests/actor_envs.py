"""Environments with a bad end, for processes that import this module by its name."""

from __future__ import annotations

import os
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

FAILING = "actor_envs:Failing-v0"


class Failing(CartPoleEnv):
    """CartPole until its last step, which fails or kills the process."""

    def __init__(self, last: int = 5, end: Literal["raise", "die"] = "raise") -> None:
        super().__init__()
        self.left, self.end = last, end

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        if self.left <= 0 and self.end == "die":
            os._exit(3)
        if self.left <= 0:
            raise RuntimeError("the wheel came off")
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, float(reward), terminated, truncated, info


gym.register("Failing-v0", f"{__name__}:Failing")
