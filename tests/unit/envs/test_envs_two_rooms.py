"""TwoRooms alone and in a batch, through Gymnasium's and Stable-Baselines3's eyes."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_sb3

import wm_toolkit.envs  # noqa: F401  (registers the names)
from wm_toolkit.envs.two_rooms import TwoRooms, TwoRoomsVector
from wm_toolkit.errors import ConfigError, SpaceError


@pytest.mark.parametrize("obs_mode", ["image", "position", "both"])
def test_both_checkers_accept_it(obs_mode):
    env = gym.make("wm_toolkit/TwoRooms-v0", obs_mode=obs_mode).unwrapped
    check_env(env)
    check_sb3(env)


def test_reset_options_place_agent_and_goal():
    env = TwoRooms(obs_mode="position")
    obs, info = env.reset(seed=0, options={"position": [10, 12], "goal": [50, 50]})
    np.testing.assert_array_equal(obs, [10, 12])
    np.testing.assert_array_equal(info["goal"], [50, 50])
    assert info["success"] is False
    _, info = env.reset(options={"state": [48, 48], "goal": [50, 50]})
    assert info["success"] is True


def test_success_pays_one_and_does_not_terminate():
    env = TwoRooms()
    env.reset(seed=0, options={"position": [10, 10], "goal": [15, 10]})
    _, reward, terminated, truncated, info = env.step(np.array([1.0, 0.0]))
    assert (reward, terminated, truncated, info["success"]) == (1.0, False, False, True)


def test_gymnasium_truncates_at_a_finite_budget():
    env = gym.make("wm_toolkit/TwoRooms-v0", obs_mode="position", max_episode_steps=7)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]


def test_goals_lie_in_the_room_that_was_asked_for():
    env = TwoRooms(obs_mode="position", goal_room="opposite")
    for seed in range(20):
        position, info = env.reset(seed=seed)
        assert env.rooms.room(position) != env.rooms.room(info["goal"])
        position, info = env.reset(options={"goal_room": "same"})
        assert env.rooms.room(position) == env.rooms.room(info["goal"])


def test_a_replay_from_stored_positions_is_exact():
    env = TwoRooms(obs_mode="position")
    position, _ = env.reset(seed=5)
    actions = np.random.default_rng(0).uniform(-1, 1, (80, 2)).astype(np.float32)
    path = [position, *(env.step(action)[0] for action in actions)]
    env.set_state(path[20])
    for t in range(20, 80):
        np.testing.assert_array_equal(env.step(actions[t])[0], path[t + 1])


@pytest.mark.parametrize("obs_mode", ["image", "both"])
def test_the_vector_equals_single_environments_through_an_autoreset(obs_mode):
    size, budget = 4, 6
    kwargs = {"obs_mode": obs_mode, "max_episode_steps": budget}
    ours = gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=size, **kwargs)
    theirs = gym.make_vec(
        "wm_toolkit/TwoRooms-v0", num_envs=size, vectorization_mode="sync", **kwargs
    )
    assert isinstance(ours.unwrapped, TwoRoomsVector)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    (a, info_a), (b, info_b) = ours.reset(seed=11), theirs.reset(seed=11)
    for _ in range(2 * budget + 3):
        for x, y in zip(leaves(a), leaves(b)):
            np.testing.assert_array_equal(x, y)
        assert info_a.keys() == info_b.keys()
        for key in info_a:
            np.testing.assert_array_equal(info_a[key], info_b[key])
        actions = rng.uniform(-1, 1, (size, 2)).astype(np.float32)
        (a, *rest_a, info_a), (b, *rest_b, info_b) = ours.step(actions), theirs.step(actions)
        for x, y in zip(rest_a, rest_b):
            np.testing.assert_array_equal(x, y)


def leaves(obs):
    return list(obs.values()) if isinstance(obs, dict) else [obs]


def test_the_vector_resets_only_the_rows_of_a_mask():
    envs = TwoRoomsVector(3, obs_mode="position", max_episode_steps=50)
    before, _ = envs.reset(seed=0)
    mask = np.array([False, True, False])
    target = np.tile(np.float32([10, 10]), (3, 1))
    after, info = envs.reset(options={"reset_mask": mask, "state": target, "goal": target})
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(after[1], [10, 10])
    np.testing.assert_array_equal(
        info["success"], [bool(info["success"][0]), True, bool(info["success"][2])]
    )


def test_starts_and_goals_of_a_whole_batch_are_options():
    envs = TwoRoomsVector(5, obs_mode="position")
    start = envs.rooms.sample(np.random.default_rng(0), 5)
    goal = envs.rooms.sample(np.random.default_rng(1), 5)
    obs, info = envs.reset(options={"position": start, "goal": goal})
    np.testing.assert_array_equal(obs, start)
    np.testing.assert_array_equal(info["goal"], goal)


def test_what_it_hands_out_is_never_changed_afterwards():
    envs = TwoRoomsVector(2, obs_mode="position")
    obs, info = envs.reset(seed=0)
    kept = obs.copy(), info["goal"].copy()
    envs.step(np.ones((2, 2), np.float32))
    envs.reset(seed=1)
    np.testing.assert_array_equal(obs, kept[0])
    np.testing.assert_array_equal(info["goal"], kept[1])


def test_rendering_shows_the_observation():
    env = gym.make("wm_toolkit/TwoRooms-v0", render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), obs)
    envs = TwoRoomsVector(2, render_mode="rgb_array")
    obs, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(np.stack(envs.render()), obs)


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="obs_mode is 'pixels'"):
        TwoRooms(obs_mode="pixels")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_envs is 0"):
        TwoRoomsVector(0)
    with pytest.raises(ConfigError, match=r"unknown reset option 'goals'.*'goal'"):
        TwoRooms().reset(options={"goals": [1, 2]})
    with pytest.raises(SpaceError, match="lies in a wall"):
        TwoRooms().reset(options={"position": [32, 50]})
    with pytest.raises(SpaceError, match=r"options\['goal'\] has shape \(4, 2\)"):
        TwoRoomsVector(3).reset(options={"goal": np.full((4, 2), 10.0)})
    with pytest.raises(ConfigError, match="2 seeds for 3 rows"):
        TwoRoomsVector(3).reset(seed=[1, 2])
    with pytest.raises(ConfigError, match="reset_mask"):
        TwoRoomsVector(3).reset(options={"reset_mask": np.zeros(3, bool)})
