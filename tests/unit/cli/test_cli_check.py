"""`wm check` of environments: faults fail, gymnasium's taste in spaces does not."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.cli.check import check_environment
from wm_toolkit.cli.main import main
from wm_toolkit.testing.checks import CheckError


def test_gymnasiums_own_environments_pass_with_its_advice(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "CartPole-v1"]) == 0
    said = capsys.readouterr().out
    assert "it advises: A Box observation space minimum value is -infinity" in said
    assert "\x1b" not in said


class Stray(gym.Env):
    """Hands over an observation that lies outside its space."""

    observation_space = gym.spaces.Box(-np.inf, 0.5, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(2, 0.7, np.float32), {}

    def step(self, action):
        return np.full(2, 0.7, np.float32), 0.0, False, False, {}


def test_what_lies_outside_a_space_fails() -> None:
    gym.register("Stray-v0", entry_point=f"{__name__}:Stray")
    with pytest.raises(CheckError, match="not within the observation space"):
        check_environment(gym.make("Stray-v0", disable_env_checker=True))
