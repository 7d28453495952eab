"""Returns of whole episodes: what they add up to, the interval of their mean, and the ways to run them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import register, registry
from training_toys import Eyes

from wm_toolkit.agents.actors import Decision
from wm_toolkit.agents.agent import Agent
from wm_toolkit.config import to_dict
from wm_toolkit.errors import ConfigError
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.baselines import contenders, random_agent
from wm_toolkit.training.config import EvaluationConfig, ReturnConfig, saved_protocol
from wm_toolkit.training.evaluate import evaluate
from wm_toolkit.training.returns import (
    evaluate_agent,
    evaluate_otherwise,
    evaluate_returns,
    return_env,
)
from wm_toolkit.training.summary import mean_interval, student_quantile

ENV = "wm_toolkit_tests/Lengths-v0"


class Lengths(gym.Env):
    """An episode lasts 1 to 6 steps, as its seed says, and step t earns t times the action's sign."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, gain: float = 1.0, pictures: bool = False) -> None:
        self.gain, self.pictures = gain, pictures
        if pictures:
            self.observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.time = int(self.np_random.integers(1, 7)), 0
        return self._obs(), {}

    def step(self, action):
        self.time, self.left = self.time + 1, self.left - 1
        reward = self.gain * self.time * float(np.sign(action[0]))
        return self._obs(), reward, self.left == 0, False, {}

    def _obs(self):
        if self.pictures:
            return np.full((8, 8, 3), 10 * self.time, np.uint8)
        return np.array([self.left, self.time], np.float32)


@pytest.fixture(autouse=True)
def registered():
    register(ENV, Lengths)
    yield
    registry.pop(ENV)


class Up:
    """Always the highest action when it does not explore, the lowest when it does."""

    def initial(self, batch_size: int) -> None:
        return None

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        value = -1.0 if explore else 1.0
        return Decision(torch.full((len(is_first), 1), value)), None


def agent(**options: Any) -> Agent:
    return Agent(Eyes(Spaces.of(Lengths(**options))), Up())


def expected(episodes: int, seed: int = 42) -> list[int]:
    """Lengths of the episodes that those seeds give."""
    found = []
    for number in range(episodes):
        env = Lengths()
        env.reset(seed=seed + number)
        found.append(env.left)
    return found


def test_every_episode_counts_once_whole_and_acted_without_exploring():
    found = evaluate_returns(agent(), ReturnConfig(episodes=9, env=ENV))
    lengths = expected(9)
    assert list(found.returns) == [n * (n + 1) / 2 for n in lengths]
    assert found.length_mean == pytest.approx(np.mean(lengths))
    assert found.return_mean == pytest.approx(np.mean(found.returns))
    assert found.return_std == pytest.approx(np.std(found.returns, ddof=1))
    assert (found.episodes, found.seed) == (9, 42)


@pytest.mark.parametrize("group", [1, 4, 9])
def test_the_grouping_does_not_change_what_a_policy_without_noise_gets(group):
    whole = evaluate_returns(agent(), ReturnConfig(episodes=9, env=ENV))
    parts = evaluate_returns(agent(), ReturnConfig(episodes=9, env=ENV, group=group))
    assert parts.returns == whole.returns


def test_an_episode_is_cut_at_the_budget_and_options_reach_the_environment():
    protocol = ReturnConfig(episodes=9, env=ENV, budget=2, env_options={"gain": 10.0})
    found = evaluate_returns(agent(), protocol)
    assert set(found.returns) == {10.0, 30.0}
    assert found.length_mean == pytest.approx(np.minimum(expected(9), 2).mean())


def test_two_steps_per_decision_add_up_what_they_earn():
    spaces = dataclasses.replace(Spaces.of(Lengths()).blocked(2))
    pairs = Agent(Eyes(spaces), Up())
    pairs.actor.act = lambda *args, is_first, **rest: (Decision(torch.ones(len(is_first), 2)), None)
    found = evaluate_returns(pairs, ReturnConfig(episodes=9, env=ENV, frame_skip=2))
    assert list(found.returns) == [n * (n + 1) / 2 for n in expected(9)]
    assert found.length_mean == pytest.approx(np.mean(expected(9)))


def test_pictures_of_the_first_episodes_are_kept_from_start_to_end():
    found = evaluate_returns(
        agent(pictures=True),
        ReturnConfig(episodes=5, env=ENV, env_options={"pictures": True}),
        films=2,
    )
    assert [len(film) for film in found.films] == [n + 1 for n in expected(5)[:2]]
    assert found.films[0][:, 0, 0, 0].tolist() == [10 * t for t in range(len(found.films[0]))]
    assert "films" not in found.to_json()


def test_progress_counts_episodes():
    said = []
    evaluate_returns(
        agent(),
        ReturnConfig(episodes=9, env=ENV),
        progress=lambda done, total: said.append((done, total)),
    )
    assert said[-1] == (9, 9)
    assert all(a[0] <= b[0] for a, b in zip(said, said[1:]))


def test_what_the_agent_has_seen_stands_beside_the_number_and_not_beside_the_random_one():
    mine = agent()
    mine.info = {
        "evaluation": to_dict(ReturnConfig(episodes=4, env=ENV)),
        "training": {"updates": 7},
        "experience": {"steps": 99},
    }
    row = evaluate_agent(mine).to_json()
    assert (row["updates"], row["env_steps"]) == (7, 99)
    assert isinstance(row["interval"], list)
    rows = contenders(mine)
    assert list(rows) == ["model", "random"]
    other = evaluate_agent(random_agent(mine))
    assert (other.updates, other.env_steps) == (None, None)
    assert other.returns != tuple(row["returns"])


def test_while_training_no_episode_of_the_protocol_is_played():
    mine = agent()
    mine.info = {"evaluation": to_dict(ReturnConfig(episodes=9, env=ENV))}
    numbers = evaluate_otherwise(mine)
    seeds = range(int(numbers["seed"]), int(numbers["seed"]) + 9)
    assert not set(seeds) & set(range(42, 42 + 9))
    assert numbers["length_mean"] == pytest.approx(np.mean(expected(9, seed=seeds[0])))
    assert all(isinstance(value, float) for value in numbers.values())


def test_a_protocol_of_the_wrong_kind_or_without_an_environment_is_refused():
    mine = agent()
    with pytest.raises(ConfigError, match="carries no evaluation protocol"):
        evaluate_returns(mine)
    mine.info = {"evaluation": to_dict(ReturnConfig(env=ENV))}
    with pytest.raises(ConfigError, match="a ReturnConfig, expected EvaluationConfig"):
        evaluate(mine)
    with pytest.raises(ConfigError, match=r"set evaluation\.env"):
        return_env(ReturnConfig())
    with pytest.raises(ConfigError, match="frame_skip 2"):
        evaluate_returns(mine, ReturnConfig(env=ENV, frame_skip=2))


def test_a_saved_protocol_is_read_as_what_it_was():
    for protocol in (ReturnConfig(episodes=3, env="A-v0"), EvaluationConfig(goal_offset=9)):
        assert saved_protocol(to_dict(protocol)) == protocol


# -- the interval ------------------------------------------------------------------------------------
def test_students_quantile_is_the_tables():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 19: 2.093, 30: 2.042, 120: 1.980}
    for freedom, value in table.items():
        assert student_quantile(freedom) == pytest.approx(value, abs=5e-4)


def test_the_interval_of_two_numbers_by_hand():
    low, high = mean_interval(np.array([1.0, 3.0]))
    half = 12.706205 * math.sqrt(2) / math.sqrt(2)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-4)
    assert mean_interval(np.array([5.0])) is None


def test_the_interval_covers_the_mean_in_95_of_100_cases(rng):
    draws = torch.randn(2000, 8, generator=rng).numpy()
    covered = np.mean([low <= 0 <= high for low, high in map(mean_interval, draws)])
    assert 0.935 < covered < 0.965
