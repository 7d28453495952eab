"""MiniGrid as numbers or as a picture, its mission as text beside them."""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.envs.wrappers import settings_of
from wm_toolkit.errors import ConfigError, MissingPackageError

minigrid = pytest.importorskip("minigrid")

EMPTY = "MiniGrid-Empty-5x5-v0"
LEFT, RIGHT, FORWARD = 0, 1, 2
TO_THE_GOAL = (FORWARD, FORWARD, RIGHT, FORWARD, FORWARD)


def test_symbols_are_one_hot_and_mean_what_the_package_says():
    env = make("MiniGrid-DoorKey-8x8-v0")
    obs, info = env.reset(seed=3)
    view = obs["view"].reshape(7, 7, 20)
    raw = env.unwrapped.gen_obs()
    np.testing.assert_array_equal(view[..., :11].argmax(-1), raw["image"][..., 0])
    np.testing.assert_array_equal(view[..., 11:17].argmax(-1), raw["image"][..., 1])
    np.testing.assert_array_equal(view[..., 17:].argmax(-1), raw["image"][..., 2])
    np.testing.assert_array_equal(view.sum(-1), np.full((7, 7), 3))
    assert obs["direction"].argmax() == raw["direction"]
    assert info["mission"] == "use the key to open the door and then get to the goal"
    assert obs["view"].dtype == np.float32


def test_the_picture_shows_the_same_view():
    env = make(EMPTY, obs_mode="both", image_size=56)
    obs, _ = env.reset(seed=0)
    expected = env.unwrapped.get_frame(tile_size=8, agent_pov=True)
    np.testing.assert_array_equal(obs["image"], expected)
    assert set(obs) == {"image", "view", "direction"}
    alone = make(EMPTY, obs_mode="image")
    assert alone.observation_space == gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert alone.observation_space.contains(alone.reset(seed=0)[0])
    assert settings_of(alone) == {"obs_mode": "image", "image_size": 64}


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.parametrize("options", [{}, {"obs_mode": "image", "image_size": 16}])
def test_the_checker_accepts_it(options):
    check_env(make("MiniGrid-DoorKey-5x5-v0", **options), skip_render_check=True)


def test_a_seed_repeats_a_maze_and_another_does_not():
    env = make("MiniGrid-MultiRoom-N2-S4-v0")
    first, again, other = (env.reset(seed=seed)[0]["view"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_goal_is_termination_and_pays_less_the_later():
    env = make(EMPTY)
    env.reset(seed=0)
    steps = [env.step(action) for action in TO_THE_GOAL]
    assert [row[2:4] for row in steps] == [(False, False)] * 4 + [(True, False)]
    assert steps[-1][1] == pytest.approx(1 - 0.9 * 5 / 100)


def test_the_step_limit_is_truncation():
    env = make(EMPTY, max_steps=3)
    env.reset(seed=0)
    assert [env.step(LEFT)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_repeated_actions_stop_at_the_goal():
    env = make(EMPTY, action_repeat=2)
    env.reset(seed=0)
    assert env.step(FORWARD)[4]["repeats"] == 2
    env.unwrapped.agent_dir = 1
    env.unwrapped.agent_pos = (3, 2)
    _, reward, terminated, truncated, info = env.step(FORWARD)
    assert (terminated, truncated, info["repeats"]) == (True, False, 1)
    assert reward == pytest.approx(1 - 0.9 * 3 / 100)


def test_rows_have_no_text_to_stack():
    rows = make_vec(EMPTY, 2)
    obs, info = rows.reset(seed=0)
    assert obs["view"].shape == (2, 980)
    assert info["mission"].tolist() == ["get to the green goal square"] * 2
    rows.close()


def test_babyai_is_seen_alike():
    env = make("BabyAI-GoToRedBall-v0")
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert "red ball" in info["mission"]


def test_wrong_options_and_a_missing_package_are_answered(monkeypatch):
    with pytest.raises(ConfigError, match="obs_mode is 'pixels'"):
        make(EMPTY, obs_mode="pixels")
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wm_toolkit\[minigrid\]'"):
        make(EMPTY)
