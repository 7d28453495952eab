"""Box2D's tasks by name: landing, walking and racing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.errors import MissingPackageError

# Not importorskip: the module must be imported as `make` does it, see there.
pytestmark = pytest.mark.skipif(find_spec("Box2D") is None, reason="Box2D is not installed")


@pytest.mark.parametrize("name", ["LunarLander-v3", "BipedalWalker-v3"])
def test_the_checker_accepts_it(name):
    check_env(make(name).unwrapped, skip_render_check=True)


def test_a_crash_is_termination_and_the_step_limit_truncation():
    env = make("LunarLander-v3")
    env.reset(seed=0)
    over = False
    while not over:
        _, reward, terminated, truncated, _ = env.step(0)
        over = terminated or truncated
    assert (terminated, truncated, reward) == (True, False, -100)
    hover = make("LunarLander-v3", max_episode_steps=2, action_repeat=3)
    hover.reset(seed=0)
    ends = [hover.step(2)[2:] for _ in range(2)]
    assert [end[:2] for end in ends] == [(False, False), (False, True)]
    assert [end[2]["repeats"] for end in ends] == [3, 3]


def test_repeated_actions_sum_their_rewards():
    once, twice = make("BipedalWalker-v3"), make("BipedalWalker-v3", action_repeat=2)
    first, again = once.reset(seed=4)[0], twice.reset(seed=4)[0]
    np.testing.assert_array_equal(first, again)
    action = np.float32([0.5, -0.5, 0.2, 0.1])
    single = [once.step(action) for _ in range(2)]
    obs, reward, *_ = twice.step(action)
    np.testing.assert_array_equal(obs, single[-1][0])
    assert reward == pytest.approx(single[0][1] + single[1][1])


def test_pictures_of_the_race_have_the_size_that_is_asked_for():
    options = {"image_size": 32, "action_repeat": 2}
    env = make("CarRacing-v3", **options)
    obs, _ = env.reset(seed=1)
    assert (obs.shape, obs.dtype) == ((32, 32, 3), np.uint8)
    gas = np.float32([0.0, 1.0, 0.0])
    moved, reward, *_ = env.step(gas)
    large = make("CarRacing-v3")
    large.reset(seed=1)
    single = [large.step(gas) for _ in range(2)]
    means = single[-1][0].reshape(32, 3, 32, 3, 3).mean((1, 3))
    assert np.abs(moved - means).max() <= 1
    assert reward == pytest.approx(sum(row[1] for row in single))
    env.close()
    large.close()


def test_rows_side_by_side_are_seeded_by_themselves():
    rows = make_vec("LunarLander-v3", 2)
    obs, _ = rows.reset(seed=[3, 3])
    np.testing.assert_array_equal(obs[0], obs[1])
    rows.close()


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wm_toolkit\[box2d\]'"):
        make("CarRacing-v3")
