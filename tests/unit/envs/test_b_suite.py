"""The Behaviour Suite: every setting by id, discounts as termination, seeds of every layer."""

from __future__ import annotations

import sys
from collections import Counter

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm_toolkit.envs.b_suite import BSuite
from wm_toolkit.envs.make import make
from wm_toolkit.envs.registration import BSUITE
from wm_toolkit.errors import MissingPackageError, UnknownNameError

pytest.importorskip("bsuite")


def test_every_setting_but_mnists_has_an_id():
    from bsuite import sweep

    counted = Counter(name.partition("/")[0] for name in sweep.SWEEP)
    assert {name: n for name, n in counted.items() if "mnist" not in name} == BSUITE
    for name, settings in BSUITE.items():
        assert f"bsuite/{name}-{settings - 1}" in gym.registry
        assert f"bsuite/{name}-{settings}" not in gym.registry


def test_catch_shows_its_board_and_pays_at_the_bottom():
    env = make("bsuite/catch-0")
    assert env.observation_space == gym.spaces.Box(0, 1, (50,), np.float32)
    assert env.action_space == gym.spaces.Discrete(3)
    obs, _ = env.reset(seed=0)
    ball = int(obs[:5].argmax())
    for step in range(9):
        paddle = int(obs[45:].argmax()) if step else 2
        obs, reward, terminated, truncated, info = env.step(1 + np.sign(ball - paddle))
        assert (terminated, truncated) == (step == 8, False)
    assert (reward, info["discount"]) == (1.0, 0.0)
    assert (env.unwrapped.score, env.unwrapped.episodes) == ({"total_regret": 0.0}, 10_000)


@pytest.mark.parametrize("experiment", BSUITE)
def test_the_checker_accepts_every_experiment(experiment):
    check_env(make(f"bsuite/{experiment}-0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", ["catch-0", "cartpole_noise-19", "memory_len-5", "bandit_noise-3"])
def test_a_seed_repeats_what_is_drawn_in_every_layer(name):
    def episodes(seed):
        env = make(f"bsuite/{name}")
        rows = [env.reset(seed=seed)[0]]
        for step in range(40):
            obs, reward, terminated, truncated, _ = env.step(step % env.action_space.n)
            rows.append(np.append(obs, reward))
            if terminated or truncated:
                rows.append(env.reset()[0])
        return np.concatenate(rows)

    np.testing.assert_array_equal(episodes(1), episodes(1))
    assert len(episodes(1)) != len(episodes(2)) or (episodes(1) != episodes(2)).any()


def test_the_seed_leaves_the_task_as_the_setting_made_it():
    def treasure(seed):
        env = make("bsuite/deep_sea-0")
        env.reset(seed=seed)
        return env.unwrapped._base._action_mapping

    np.testing.assert_array_equal(treasure(1), treasure(2))


def test_an_episode_that_ends_with_a_discount_is_truncated(monkeypatch):
    env = make("bsuite/catch-0").unwrapped
    env.reset(seed=0)
    cut = dm_env.truncation(0.0, np.zeros((10, 5), np.float32), discount=1.0)
    monkeypatch.setattr(env._base, "step", lambda action: cut)
    _, _, terminated, truncated, info = env.step(1)
    assert (terminated, truncated, info["discount"]) == (False, True, 1.0)


def test_observations_are_the_callers_own():
    env = make("bsuite/umbrella_length-0")
    first, _ = env.reset(seed=0)
    before = first.copy()
    env.step(1)
    np.testing.assert_array_equal(first, before)


def test_repeated_actions_sum_their_rewards_and_stop_at_the_end():
    env = make("bsuite/catch-0", action_repeat=6)
    env.reset(seed=0)
    assert env.step(1)[4]["repeats"] == 6
    _, reward, terminated, _, info = env.step(1)
    assert (terminated, info["repeats"]) == (True, 3)
    assert abs(reward) == 1.0


def test_wrong_names_and_a_missing_package_are_answered(monkeypatch):
    with pytest.raises(UnknownNameError, match="'catch'"):
        BSuite("cath", 0)
    with pytest.raises(UnknownNameError, match="'bsuite/catch-0'"):
        make("bsuite/catch-00")
    monkeypatch.setitem(sys.modules, "bsuite.bsuite", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wm_toolkit\[bsuite\]'"):
        make("bsuite/catch-0")
