"""Actions that last, and pictures of another size: around any environment, by hand and by `make`."""

from __future__ import annotations

from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.envs.wrappers import (
    ActionRepeat,
    ResizedImages,
    resized,
    settings_of,
    steps_per_action,
    to_grey,
)
from wm_toolkit.errors import ConfigError, SpaceError


class Counting(gym.Env):
    """Pays 1, 2, 4, ... and ends as it is told."""

    observation_space = gym.spaces.Box(0, 255, (24, 32, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": []}
    settings: ClassVar = {"speed": 3}

    def __init__(self, terminates=100, truncates=100, succeeds=100):
        self.ends, self.succeeds = (terminates, truncates), succeeds

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._picture(), {}

    def step(self, action):
        self.steps += 1
        ends = [self.steps >= end for end in self.ends]
        info = {"success": self.steps == self.succeeds, "step": self.steps}
        return self._picture(), 2.0 ** (self.steps - 1), *ends, info

    def _picture(self):
        return np.full((24, 32, 3), self.steps, np.uint8)


def test_rewards_of_a_repeated_action_are_summed_and_the_last_step_is_seen():
    env = ActionRepeat(Counting(), 3)
    env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated) == (1 + 2 + 4, False, False)
    assert (obs == 3).all()
    assert info == {"success": False, "step": 3, "repeats": 3}
    assert env.step(0)[1] == 8 + 16 + 32


@pytest.mark.parametrize(
    ("ends", "expected"),
    [({"terminates": 2}, (True, False)), ({"truncates": 2}, (False, True))],
)
def test_a_repeated_action_stops_where_the_episode_ends(ends, expected):
    env = ActionRepeat(Counting(**ends), 5)
    env.reset(seed=0)
    _, reward, *over, info = env.step(0)
    assert (reward, tuple(over), info["repeats"], info["step"]) == (3.0, expected, 2, 2)


def test_a_success_among_the_repeated_steps_counts():
    env = ActionRepeat(Counting(succeeds=1), 3)
    env.reset(seed=0)
    assert env.step(0)[4]["success"] is True


@given(st.integers(1, 6), st.integers(1, 20))
def test_repeats_add_up_to_the_steps_of_an_episode(repeat, length):
    env = ActionRepeat(Counting(terminates=length), repeat)
    env.reset(seed=0)
    repeats, total, over = 0, 0.0, False
    while not over:
        _, reward, over, _, info = env.step(1)
        repeats, total = repeats + info["repeats"], total + reward
    assert (repeats, total) == (length, 2.0**length - 1)


def test_what_was_wrapped_is_among_the_settings():
    env = ResizedImages(ActionRepeat(Counting(), 2), 12, grey=True)
    expected = {"speed": 3, "action_repeat": 2, "image_size": 12, "grey": True}
    assert settings_of(env) == expected
    assert settings_of(gym.make("CartPole-v1")) == {}


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 12, 24]))
def test_a_box_averages_what_a_pixel_covers(seed, size):
    picture = np.random.default_rng(seed).integers(0, 256, (24, 48, 3), np.uint8)
    means = picture.reshape(size, 24 // size, size, 48 // size, 3).mean((1, 3))
    assert np.abs(resized(picture, size) - means).max() <= 1


def test_every_pixel_of_the_source_counts_in_one_of_the_result():
    for dot in range(12):
        picture = np.zeros((12, 12, 1), np.uint8)
        picture[dot, dot] = 252
        small = resized(picture, 8)
        assert small.shape == (8, 8, 1)
        assert np.count_nonzero(small) == 1
        assert small.max() in (63, 126, 252)  # one of 4, of 2, or alone


def test_a_flat_picture_keeps_its_colour_however_it_is_resized():
    picture = np.full((21, 16, 3), (7, 90, 201), np.uint8)
    for how in ("box", "bilinear"):
        assert (resized(picture, 9, how) == (7, 90, 201)).all()


def test_grey_is_brightness():
    picture = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(to_grey(picture)[0, :, 0], [76, 150, 29, 255], atol=1)
    once = to_grey(picture)
    np.testing.assert_array_equal(to_grey(once), once)


def test_pictures_of_a_dict_are_resized_and_everything_else_is_left():
    class Several(Counting):
        observation_space = gym.spaces.Dict(
            {
                "image": Counting.observation_space,
                "depth": gym.spaces.Box(0, 255, (24, 32), np.uint8),
                "choice": gym.spaces.Discrete(4),
                "symbols": gym.spaces.Box(0, 10, (7, 7, 3), np.uint8),
            }
        )

        def _picture(self):
            image = np.full((24, 32, 3), 9, np.uint8)
            symbols = np.arange(147, dtype=np.uint8).reshape(7, 7, 3) % 10
            return {"image": image, "depth": image[..., 0], "choice": 2, "symbols": symbols}

    env = ResizedImages(Several(), 8)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert (obs["image"].shape, obs["depth"].shape) == ((8, 8, 3), (8, 8, 1))
    assert obs["choice"] == 2
    np.testing.assert_array_equal(obs["symbols"], Several._picture(None)["symbols"])


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_the_checker_accepts_the_wrappers():
    check_env(ResizedImages(ActionRepeat(Counting(), 2), 16, grey=True), skip_render_check=True)


def test_wrong_sizes_repeats_and_environments_are_refused():
    with pytest.raises(ConfigError, match="action_repeat is 0"):
        ActionRepeat(Counting(), 0)
    with pytest.raises(ConfigError, match="image_size is 4"):
        ResizedImages(Counting(), 4)
    with pytest.raises(SpaceError, match=r"no picture.*obs_mode='image'"):
        make("CartPole-v1", image_size=64)
    with pytest.raises(ConfigError, match="obs_mode is 'pixels'"):
        make("CartPole-v1", obs_mode="pixels")
    with pytest.raises(ConfigError, match="action_repeat is -1"):
        make("CartPole-v1", action_repeat=-1)
    with pytest.raises(ConfigError, match="fast_render"):
        make("CartPole-v1", fast_render=True)


# -- by name ---------------------------------------------------------------------------------------
def test_make_repeats_the_actions_of_any_environment():
    once, twice = make("Pendulum-v1"), make("Pendulum-v1", action_repeat=2)
    once.reset(seed=1)
    twice.reset(seed=1)
    action = np.float32([0.7])
    single = [once.step(action) for _ in range(2)]
    obs, reward, *_, info = twice.step(action)
    np.testing.assert_array_equal(obs, single[-1][0])
    assert reward == pytest.approx(single[0][1] + single[1][1])
    assert info["repeats"] == 2
    assert settings_of(twice) == {"action_repeat": 2}


def test_an_environments_own_limit_counts_its_steps_and_a_given_one_the_agents():
    own = make("Pendulum-v1", action_repeat=80)  # 200 steps
    own.reset(seed=0)
    ends = [own.step(np.zeros(1, np.float32))[3:] for _ in range(3)]
    assert [(end, info["repeats"]) for end, info in ends] == [(False, 80), (False, 80), (True, 40)]
    given_limit = make("Pendulum-v1", action_repeat=80, max_episode_steps=2)
    given_limit.reset(seed=0)
    ends = [given_limit.step(np.zeros(1, np.float32))[3:] for _ in range(2)]
    assert [(end, info["repeats"]) for end, info in ends] == [(False, 80), (True, 80)]


def test_rows_of_a_vector_are_what_make_makes():
    options = {"action_repeat": 3}
    rows, one = make_vec("CartPole-v1", 2, **options), make("CartPole-v1", **options)
    seen, _ = rows.reset(seed=[4, 5])
    np.testing.assert_array_equal(seen[1], one.reset(seed=5)[0])
    obs, reward, *_, info = rows.step(np.array([0, 1]))
    expected, paid, *_ = one.step(1)
    np.testing.assert_array_equal(obs[1], expected)
    assert (reward[1], paid) == (3, 3)
    assert info["repeats"].tolist() == [3, 3]
    rows.close()


def test_every_row_of_another_packages_environment_can_be_seeded_by_itself():
    rows = make_vec("CartPole-v1", 2)
    first, _ = rows.reset(seed=[7, 7])
    np.testing.assert_array_equal(first[0], first[1])
    rows.close()
    theirs = make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    assert type(theirs.unwrapped).__name__ == "CartPoleVectorEnv"


def test_our_own_vector_form_gives_way_to_rows_where_something_is_wrapped():
    rows = make_vec("wm_toolkit/TwoRooms-v0", 2, action_repeat=2)
    assert isinstance(rows, gym.vector.SyncVectorEnv)
    assert rows.call("settings") == ({"action_repeat": 2},) * 2
    rows.close()


def test_numbers_become_pictures_by_name():
    pytest.importorskip("pygame")
    env = make("Pendulum-v1", obs_mode="both", image_size=24, action_repeat=2)
    obs, _ = env.reset(seed=0)
    assert {key: value.shape for key, value in obs.items()} == {"image": (24, 24, 3), "state": (3,)}
    assert settings_of(env) == {
        "action_repeat": 2,
        "image_size": 24,
        "obs_mode": "both",
        "fast_render": False,
    }
    env.close()
    inner = make("wm_toolkit/Rendered-v0", env="Pendulum-v1", image_size=24, action_repeat=2)
    assert settings_of(inner)["action_repeat"] == 2
    np.testing.assert_array_equal(inner.reset(seed=0)[0]["image"], obs["image"])
    assert inner.step(np.zeros(1, np.float32))[4]["repeats"] == 2
    inner.close()
    rows = make_vec("CartPole-v1", 2, obs_mode="image", image_size=16)
    assert rows.reset(seed=0)[0].shape == (2, 16, 16, 3)
    rows.close()


@pytest.mark.parametrize(
    ("package", "name", "options", "steps"),
    [
        ("gymnasium", "CartPole-v1", {}, 1),
        ("gymnasium", "CartPole-v1", {"action_repeat": 3, "obs_mode": "both"}, 3),
        ("dm_control", "dmc/cartpole-swingup", {"obs_mode": "state", "action_repeat": 8}, 8),
        ("ale_py", "atari100k/Pong", {}, 4),
        ("ale_py", "ALE/Pong-v5", {}, 4),
        ("ale_py", "ALE/Pong-v5", {"frameskip": 2, "action_repeat": 3}, 6),
    ],
)
def test_an_action_lasts_as_many_steps_as_package_and_options_together_say(
    package, name, options, steps
):
    pytest.importorskip(package)
    env = make(name, **options)
    assert steps_per_action(env) == steps
    env.close()
