"""VizDoom: death against timeout, the last screen, tics per action, and no files left behind."""

from __future__ import annotations

import os
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm_toolkit.envs.make import make
from wm_toolkit.envs.wrappers import resized, settings_of
from wm_toolkit.errors import ConfigError, MissingPackageError

pytest.importorskip("vizdoom")

TAKE_COVER = "VizdoomTakeCover-v1"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """So that a file that is left behind is seen."""
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) in ([], ["home"])


@pytest.fixture
def cover():
    made = []

    def build(name=TAKE_COVER, **options):
        made.append(make(name, **options))
        return made[-1]

    yield build
    for env in made:
        env.close()


def test_take_cover_shows_screen_and_health(cover):
    env = cover()
    obs, _ = env.reset(seed=0)
    assert env.action_space == gym.spaces.Discrete(3)
    assert env.observation_space.contains(obs)
    assert obs["image"].shape == (64, 64, 3)
    assert obs["variables"].tolist() == [100.0]
    screen = env.unwrapped.state.screen_buffer
    assert screen.shape == (240, 320, 3)
    np.testing.assert_array_equal(obs["image"], resized(screen, 64))
    assert settings_of(env) == {"obs_mode": "both", "image_size": 64, "action_repeat": 1}
    assert cover(obs_mode="image", image_size=32).observation_space.shape == (32, 32, 3)


def test_death_is_termination_and_the_last_screen_stays(cover):
    env = cover()
    obs, _ = env.reset(seed=0)
    over, total = False, 0.0
    while not over:
        before = obs
        obs, reward, terminated, truncated, _ = env.step(0)
        total, over = total + reward, terminated or truncated
    assert (terminated, truncated) == (True, False)
    assert total > 50  # one for every tic alive
    np.testing.assert_array_equal(obs["image"], before["image"])
    assert obs["image"].max() > 0


def test_a_timeout_is_truncation_alone(cover):
    env = cover(episode_timeout=12, obs_mode="image")
    env.reset(seed=0)
    ends = []
    while not any(any(end) for end in ends):
        ends.append(env.step(1)[2:4])
    assert ends[-1] == (False, True)
    assert len(ends) <= 12


def test_a_limit_given_to_make_is_truncation_too(cover):
    env = cover(max_episode_steps=3, obs_mode="image")
    env.reset(seed=0)
    assert [env.step(1)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_a_seed_repeats_an_episode_and_another_does_not(cover):
    def episode(env, seed):
        rows = [env.reset(seed=seed)[0]] + [env.step(step % 3)[0] for step in range(60)]
        return np.stack(rows)

    env, other = cover(obs_mode="image"), cover(obs_mode="image")
    np.testing.assert_array_equal(episode(env, 5), episode(other, 5))
    assert (episode(env, 5) != episode(other, 6)).any()


def test_an_action_of_several_tics_sums_their_rewards(cover):
    once, four = cover(), cover(action_repeat=4)
    once.reset(seed=2)
    four.reset(seed=2)
    for action in (1, 2, 0):
        single = [once.step(action) for _ in range(4)]
        obs, reward, *_, info = four.step(action)
        assert (reward, info["repeats"]) == (sum(row[1] for row in single), 4)
        np.testing.assert_array_equal(obs["image"], single[-1][0]["image"])
    cut = cover(action_repeat=5, episode_timeout=8)
    cut.reset(seed=0)
    *_, first = cut.step(0)
    _, _, terminated, truncated, last = cut.step(0)
    assert (terminated, truncated) == (False, True)
    assert 0 < last["repeats"] < first["repeats"] == 5


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_the_checker_accepts_it(cover):
    check_env(cover(image_size=16), skip_render_check=True)


def test_wrong_options_and_a_missing_package_are_answered(cover, monkeypatch):
    with pytest.raises(ConfigError, match="obs_mode is 'pixels'"):
        cover(obs_mode="pixels")
    with pytest.raises(ConfigError, match="action_repeat is 0"):
        cover(action_repeat=0)
    monkeypatch.setitem(sys.modules, "vizdoom.gymnasium_wrapper", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wm_toolkit\[vizdoom\]'"):
        make(TAKE_COVER)
