"""An agent wants to know of every row whether its episode begins."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.errors import SpaceError
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces

SPACES = Spaces({"vector": gym.spaces.Box(-1, 1, (3,), np.float32)}, gym.spaces.Discrete(2))


@pytest.mark.parametrize(("first", "shape"), [(True, r"\(\)"), ([True], r"\(1,\)")])
def test_one_truth_value_for_several_rows_is_refused(first, shape):
    agent = build("dreamer_v3.nano", SPACES)
    obs = np.zeros((2, 3), np.float32)
    with pytest.raises(SpaceError, match=f"is_first has shape {shape}, .* 2 rows"):
        agent.act(obs, agent.initial(2), is_first=first)
    decision, _ = agent.act(obs, agent.initial(2), is_first=[True, False])
    assert decision.action.sum(-1).tolist() == pytest.approx([1.0, 1.0])
