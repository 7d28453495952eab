"""Crafter: seeds, death, the length limit and what it pays."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm_toolkit.envs.make import make
from wm_toolkit.envs.wrappers import settings_of
from wm_toolkit.errors import ConfigError, MissingPackageError

pytest.importorskip("crafter")

SMALL = {"image_size": 18, "area": 24}

EPISODE = """
import hashlib, numpy as np
from wm_toolkit.envs.make import make
env = make("crafter/reward", image_size=18, area=24)
env.reset(seed=3)
draw, said = np.random.default_rng(0), hashlib.sha256()
for _ in range(300):
    obs, reward, terminated, truncated, info = env.step(draw.integers(17))
    said.update(info["semantic"].tobytes() + bytes(f"{reward} {terminated}", "ascii"))
    if terminated:
        env.reset()
print(said.hexdigest())
"""


def test_the_observation_is_a_picture_and_the_action_one_of_seventeen():
    env = make("crafter/reward")
    assert env.observation_space == gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.action_space == gym.spaces.Discrete(17)
    assert env.unwrapped.action_names[0] == "noop"
    _, info = env.reset(seed=0)
    assert (len(info["achievements"]), info["inventory"]["health"]) == (22, 9)
    assert settings_of(env) == {
        "image_size": 64,
        "length": 10_000,
        "area": 64,
        "reward": True,
    }
    assert settings_of(make("crafter/no_reward"))["reward"] is False


def test_the_checker_accepts_it():
    check_env(make("crafter/reward", **SMALL).unwrapped, skip_render_check=True)


def test_a_seed_repeats_an_episode_in_another_process(capsys):
    """The package iterates over sets of objects, in an order that each process has for itself."""
    there = subprocess.run(
        [sys.executable, "-c", EPISODE], capture_output=True, text=True, check=True
    )
    exec(EPISODE)
    assert there.stdout == capsys.readouterr().out


def test_the_next_episode_follows_from_the_seed_and_differs():
    def world(seed=None):
        return env.reset(seed=seed)[1]["semantic"]

    env = make("crafter/reward", **SMALL)
    first, second, again, then = world(1), world(), world(1), world()
    np.testing.assert_array_equal([first, second], [again, then])
    assert (first != second).any()
    assert (first != world(2)).any()


def test_the_length_limit_is_truncation():
    env = make("crafter/reward", length=3, **SMALL)
    env.reset(seed=0)
    ends = [env.step(0) for _ in range(3)]
    assert [row[2:4] for row in ends] == [(False, False), (False, False), (False, True)]
    assert ends[-1][4]["discount"] == 1.0


def test_death_is_termination_even_on_the_last_step():
    env = make("crafter/reward", length=2, **SMALL)
    env.reset(seed=0)
    env.step(0)
    env.unwrapped._base._player.health = 0
    _, reward, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, info["discount"]) == (True, False, 0.0)
    assert reward == pytest.approx(-0.9)


def test_achievements_pay_one_once():
    env = make("crafter/reward", **SMALL)
    env.reset(seed=0)
    achieved = env.unwrapped._base._player.achievements
    achieved["collect_wood"] += 1
    _, reward, *_, info = env.step(0)
    assert (reward, info["achievements"]["collect_wood"]) == (1.0, 1)
    achieved["collect_wood"] += 1
    assert env.step(0)[1] == 0.0
    quiet = make("crafter/no_reward", **SMALL)
    quiet.reset(seed=0)
    quiet.unwrapped._base._player.achievements["collect_wood"] += 1
    assert quiet.step(0)[1] == 0.0


def test_looking_at_the_night_changes_nothing():
    env = make("crafter/reward", **SMALL, render_mode="rgb_array")
    env.reset(seed=0)
    obs = env.step(0)[0]
    before = env.unwrapped._base._world.random.get_state()[1].copy()
    np.testing.assert_array_equal(env.render(), obs)
    np.testing.assert_array_equal(env.unwrapped._base._world.random.get_state()[1], before)


def test_repeated_actions_sum_their_rewards():
    once, thrice = (
        make("crafter/reward", **SMALL),
        make("crafter/reward", **SMALL, action_repeat=3),
    )
    once.reset(seed=5)
    thrice.reset(seed=5)
    for action in (1, 5, 2, 6):
        single = [once.step(action) for _ in range(3)]
        obs, reward, *_, info = thrice.step(action)
        np.testing.assert_array_equal(obs, single[-1][0])
        assert reward == pytest.approx(sum(row[1] for row in single))
        assert info["repeats"] == 3


def test_wrong_options_and_a_missing_package_are_answered(monkeypatch):
    with pytest.raises(ConfigError, match="length is 0"):
        make("crafter/reward", length=0)
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wm_toolkit\[crafter\]'"):
        make("crafter/reward")
