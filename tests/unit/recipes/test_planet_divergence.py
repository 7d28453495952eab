"""PlaNet's divergence has a weight of its own, as its released code has one."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces

SPACES = Spaces(
    {"vector": gym.spaces.Box(-9, 9, (3,), np.float32)}, gym.spaces.Box(-1, 1, (1,), np.float32)
)
SIZES = {"deter": 8, "stoch": 4, "units": 8, "reward_units": 8}


@pytest.mark.parametrize("weight", [1.0, 0.03])
def test_planets_divergence_weighs_what_kl_scale_says_and_the_reward_what_its_own_does(weight):
    learner = build("planet", SPACES, kl_scale=weight, reward_scale=2.0, **SIZES).learner
    assert learner is not None
    assert dict(learner.scales) == {"reward": 2.0, "divergence": weight}  # type: ignore[attr-defined]
