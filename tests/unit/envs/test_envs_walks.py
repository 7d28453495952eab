"""The default data of TwoRooms."""

from __future__ import annotations

import numpy as np
import pytest

from wm_toolkit.envs.rooms import Rooms
from wm_toolkit.envs.two_rooms import TwoRooms
from wm_toolkit.envs.walks import smooth_actions, smooth_walks
from wm_toolkit.errors import ConfigError
from wm_toolkit.spaces import Spaces


def test_about_one_walk_in_eight_goes_through_the_door():
    walks = smooth_walks(3, episodes=8000)
    assert walks.position.shape == (8000, 61, 2)
    assert 0.115 < walks.crossed().mean() < 0.135


def test_a_walk_is_what_its_actions_do():
    walks = smooth_walks(0, episodes=20, steps=30)
    for t in range(30):
        moved = Rooms().move(walks.position[:, t], walks.action[:, t])
        np.testing.assert_array_equal(moved, walks.position[:, t + 1])


def test_actions_have_the_correlation_that_was_asked_for():
    action = smooth_actions(np.random.default_rng(0), 4000, 20, smoothing=0.7, scale=0.2)
    assert action.std() == pytest.approx(0.2, abs=0.005)
    for lag in (1, 3):
        together = (action[:, lag:] * action[:, :-lag]).mean() / action.var()
        assert together == pytest.approx(0.7**lag, abs=0.02)


def test_a_seed_repeats_its_walks():
    first, again, other = (smooth_walks(seed, episodes=5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.position, again.position)
    assert not np.array_equal(first.position, other.position)


def test_walks_are_trajectories_that_fit_the_environment():
    walks = smooth_walks(0, episodes=3, steps=8)
    spaces = Spaces.of(TwoRooms(obs_mode="both"))
    for i, episode in enumerate(walks.trajectories()):
        episode.validate(spaces)
        np.testing.assert_array_equal(episode.obs["image"][4], Rooms().render(walks.position[i, 4]))
        assert episode.truncated.tolist() == [False] * 7 + [True]
    with pytest.raises(ConfigError, match="smoothing is 1"):
        smooth_actions(np.random.default_rng(0), 1, 1, smoothing=1.0)
