"""An episode follows from its number and its actions, alone and in a vector, in other processes too."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from wm_toolkit.envs.repeatable import REPEATABLE, RepeatableEpisodes


def one(seed: int = 0, row: int = 0) -> RepeatableEpisodes:
    return RepeatableEpisodes(gym.make("CartPole-v1"), seed, row)


def copies(count: int = 2) -> list:
    return [lambda row=row: one(row, row) for row in range(count)]


def test_every_episode_begins_elsewhere_and_the_same_number_begins_at_the_same_place():
    env = one()
    starts = [env.reset()[0] for _ in range(4)]
    assert len({start.tobytes() for start in starts}) == 4
    again = one()
    again.reset(options={REPEATABLE: [{"episode": 2, "actions": []}]})
    assert again.episode == 2
    assert np.array_equal(again.reset()[0], starts[3])


def test_an_episode_is_repeated_up_to_the_action_and_goes_on():
    env = one()
    env.reset()
    env.reset()
    actions = [0, 1, 1, 0, 1]
    for action in actions[:3]:
        seen = env.step(action)[0]
    again = one()
    obs, _ = again.reset(options={REPEATABLE: [{"episode": 1, "actions": actions[:3]}]})
    assert np.array_equal(obs, seen)
    for action in actions[3:]:
        a, b = env.step(action), again.step(action)
        assert np.array_equal(a[0], b[0])
        assert a[1:4] == b[1:4]


def test_behind_a_repeated_episode_that_was_over_the_next_begins():
    env = one()
    obs, _ = env.reset()
    actions, over = [], False
    while not over:
        actions.append(1)
        obs, _, over, _, _ = env.step(1)
    following, _ = env.reset()
    again = one()
    last, _ = again.reset(options={REPEATABLE: [{"episode": 0, "actions": actions}]})
    assert np.array_equal(last, obs)
    found, reward, terminated, truncated, _ = again.step(0)
    assert np.array_equal(found, following)
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_a_seed_begins_its_own_row_of_episodes():
    assert np.array_equal(one(3).reset()[0], one(7).reset(seed=3)[0])
    assert not np.array_equal(one(3).reset()[0], one(7).reset()[0])


@pytest.mark.parametrize("processes", [False, True])
def test_a_vector_says_that_it_can_and_repeats_every_row_for_itself(processes):
    envs = AsyncVectorEnv(copies(), context="spawn") if processes else SyncVectorEnv(copies())
    other = SyncVectorEnv(copies())
    try:
        assert envs.metadata[REPEATABLE]
        first, _ = envs.reset()
        assert not np.array_equal(first[0], first[1])
        for _ in range(12):
            obs, *_ = envs.step(np.array([1, 0]))
        parts = [{"episode": 0, "actions": [1] * 12}, {"episode": 0, "actions": [0] * 12}]
        short = [{**part, "actions": part["actions"][:5]} for part in parts]
        found, _ = other.reset(options={REPEATABLE: short})
        expected, _ = envs.reset(options={REPEATABLE: short})
        assert np.array_equal(found, expected)
        assert np.array_equal(other.step(np.array([0, 0]))[0], envs.step(np.array([0, 0]))[0])
        assert obs.shape == (2, 4)
    finally:
        envs.close()
        other.close()
