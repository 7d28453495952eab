"""An agent acts on what one environment shows as on a batch of one, and says it without the batch axis."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces as gs

from wm_toolkit.agents.agent import Agent
from wm_toolkit.errors import SpaceError
from wm_toolkit.recipes.dreamer_v3 import Size
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces

VECTOR = gs.Box(-1, 1, (3,), np.float32)
IMAGE = gs.Box(0, 255, (64, 64, 3), np.uint8)
OBSERVATIONS: dict[str, gym.Space] = {
    "array": VECTOR,
    "image": IMAGE,
    "choice": gs.Discrete(5),
    "dict": gs.Dict({"position": VECTOR, "door": gs.Discrete(3)}),
    "nested dict": gs.Dict(
        {"arm": gs.Dict({"pose": VECTOR, "touch": gs.Discrete(2)}), "eye": IMAGE}
    ),
}
ACTIONS: dict[str, gym.Space] = {
    "choice": gs.Discrete(3),
    "numbers": gs.Box(-2, 2, (2,), np.float32),
}


class Show(gym.Env):
    """Shows samples of its space, and accepts only what lies in the other."""

    def __init__(self, observation: gym.Space, action: gym.Space) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 0.0, False, False, {}


def tiny(env: gym.Env) -> Agent:
    size = Size(deter=16, units=8, classes=3, depth=1, latents=2, groups=2)
    return build("dreamer_v3.nano", Spaces.of(env), size=size)


def batched(obs: Any) -> Any:
    if isinstance(obs, dict):
        return {key: batched(value) for key, value in obs.items()}
    return np.asarray(obs)[None]


@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
def test_one_environment_is_a_batch_of_one(kind, action):
    env = Show(OBSERVATIONS[kind], ACTIONS[action])
    agent = tiny(env)
    one, many = (torch.Generator().manual_seed(0) for _ in range(2))
    obs, _ = env.reset(seed=0)
    state = again = agent.initial(1)
    for first in (True, False, False):
        rows, again = agent.act(batched(obs), again, is_first=[first], generator=many)
        decision, state = agent.act(obs, state, is_first=first, generator=one)
        assert torch.equal(decision.action, rows.action[0])
        assert all(map(torch.equal, state.leaves(), again.leaves()))
        obs, *_ = env.step(agent.spaces.decode_action(decision.action))


def test_one_environment_may_say_first_in_a_list():
    env = Show(VECTOR, gs.Discrete(2))
    agent, (obs, _) = tiny(env), env.reset(seed=0)
    for first in (True, [True], np.array([True])):
        decision, _ = agent.act(obs, agent.initial(1), is_first=first)
        assert decision.action.shape == (2,)


def test_one_observation_for_a_state_of_several_rows_is_refused():
    env = Show(VECTOR, gs.Discrete(2))
    agent, (obs, _) = tiny(env), env.reset(seed=0)
    with pytest.raises(SpaceError, match=r"one environment, .* 4 rows; begin with initial\(1\)"):
        agent.act(obs, agent.initial(4), is_first=True)


def test_a_part_of_an_observation_without_batch_axis_is_refused():
    env = Show(gs.Dict({"a": VECTOR, "b": VECTOR}), gs.Discrete(2))
    agent, (obs, _) = tiny(env), env.reset(seed=0)
    with pytest.raises(SpaceError, match=r"'b' has shape \(3,\), expected \(B, 3\)"):
        agent.act({"a": obs["a"][None], "b": obs["b"]}, agent.initial(1), is_first=[True])
