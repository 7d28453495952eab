"""Atari games under the published protocols, on the real emulator."""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.envs.registration import GAMES, GAMES_100K
from wm_toolkit.envs.repeatable import GOES_ON, REPEATABLE, RepeatableEpisodes
from wm_toolkit.envs.wrappers import resized, settings_of
from wm_toolkit.errors import ConfigError, MissingPackageError, UnknownNameError

ale_py = pytest.importorskip("ale_py")


def played(env, actions, seed=0):
    """Observations, rewards and infos of an episode's beginning."""
    rows = [env.reset(seed=seed)]
    steps = [env.step(action) for action in actions]
    return [rows[0][0]] + [s[0] for s in steps], [s[1] for s in steps], [s[4] for s in steps]


def emulated(game, frames, noops=0):
    """Screens of the bare emulator, one after every frame of `frames` actions."""
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(ale_py.roms.get_rom_path(game))
    ale.reset_game()
    for _ in range(noops):
        ale.act(0)
    legal, screens, rewards = ale.getMinimalActionSet(), [ale.getScreenRGB()], []
    for action in frames:
        rewards.append(ale.act(legal[action]))
        screens.append(ale.getScreenRGB())
    return screens, rewards


def test_the_defaults_are_atari_100k_as_dreamer_v3_plays_it():
    env = make("atari100k/MsPacman")
    assert settings_of(env) == {
        "image_size": 64,
        "grey": False,
        "action_repeat": 4,
        "pooling": 2,
        "noops": 30,
        "sticky": 0.0,
        "actions": "needed",
        "life_loss": "ignore",
        "clip_reward": False,
        "max_frames": 108_000,
        "resampling": "bilinear",
    }
    assert env.observation_space == gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.action_space == gym.spaces.Discrete(9)


def test_the_protocol_of_200_million_frames_has_sticky_actions_and_all_of_them():
    env = make("atari/Pong")
    assert env.action_space == gym.spaces.Discrete(18)
    assert env.observation_space.shape == (96, 96, 1)
    assert settings_of(env)["sticky"] == 0.25
    assert make("atari/Pong", image_size=64).observation_space.shape == (64, 64, 1)


def test_there_are_26_games_and_57_and_the_package_has_them_all():
    assert (len(GAMES_100K), len(GAMES)) == (26, 57)
    known = {name.replace("_", "") for name in ale_py.roms.get_all_rom_ids()}
    assert {game.lower() for game in GAMES} <= known


def test_a_picture_is_the_maximum_of_the_last_two_frames():
    env = make("atari100k/Pong", noops=0)
    actions = [2, 3, 0, 2, 2]
    seen, paid, infos = played(env, actions)
    screens, rewards = emulated("pong", np.repeat(actions, 4))
    for step, obs in enumerate(seen[1:], start=1):
        brightest = np.maximum(screens[4 * step], screens[4 * step - 1])
        np.testing.assert_array_equal(obs, resized(brightest, 64, "bilinear"))
    assert paid == [sum(rewards[4 * i : 4 * i + 4]) for i in range(5)]
    assert [info["repeats"] for info in infos] == [4] * 5
    assert infos[-1]["frames"] == 20


def test_up_to_so_many_no_ops_begin_an_episode():
    env = make("atari100k/Breakout", noops=3)
    begun = {env.reset(seed=seed)[0].tobytes() for seed in range(12)}
    expected = set()
    for count in range(4):
        screens, _ = emulated("breakout", [], noops=count)
        expected.add(resized(screens[-1], 64, "bilinear").tobytes())
    assert begun == expected


def test_a_seed_repeats_an_episode_and_another_does_not():
    env = make("atari/MsPacman", image_size=32)  # sticky: chance in every frame
    actions = np.random.default_rng(0).integers(18, size=40)
    first, again, other = (played(env, actions, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()


@pytest.mark.parametrize("game", ["Pong", "MsPacman", "Seaquest", "PrivateEye"])
def test_a_seed_repeats_an_episode_whatever_was_played_before(game):
    env, fresh = (make(f"atari100k/{game}", image_size=32, action_repeat=8) for _ in range(2))
    actions = np.random.default_rng(1).integers(env.action_space.n, size=30)
    played(env, actions[::-1], seed=1)
    again, expected = played(env, actions, seed=2), played(fresh, actions, seed=2)
    np.testing.assert_array_equal(again[0], expected[0])
    assert again[1:] == expected[1:]


def test_the_end_of_the_game_is_termination():
    env = make("atari100k/Breakout", noops=0, image_size=16, action_repeat=16)
    env.reset(seed=0)
    over, lives = False, []
    while not over:
        _, _, terminated, truncated, info = env.step(1)  # FIRE and never move
        lives.append(info["lives"])
        over = terminated or truncated
    assert (terminated, truncated) == (True, False)
    assert sorted(set(lives)) == [0, 1, 2, 3, 4, 5]  # five lives, ignored until the last


def test_the_frame_limit_is_truncation_and_cuts_the_repeat():
    env = make("atari100k/Pong", max_frames=10)
    env.reset(seed=0)
    ends = [env.step(0)[2:] for _ in range(3)]
    assert [end[:2] for end in ends] == [(False, False), (False, False), (False, True)]
    assert [end[2]["repeats"] for end in ends] == [4, 4, 2]


def until_a_life_is_lost(env):
    over = False
    while not over:
        _, _, over, truncated, info = env.step(1)
        assert not truncated
    return info["lives"]


def test_a_lost_life_can_end_the_episode_and_the_next_goes_on_with_the_next_life():
    env = make("atari100k/Breakout", noops=0, image_size=16, life_loss="terminate")
    env.reset(seed=0)
    assert [until_a_life_is_lost(env), env.reset()[1]["lives"]] == [4, 4]
    assert [until_a_life_is_lost(env), env.reset()[1]["lives"]] == [3, 3]
    assert env.reset(seed=0)[1]["lives"] == 5


def test_in_training_a_lost_life_goes_on_too_and_can_be_repeated():
    options = {"noops": 0, "image_size": 16, "life_loss": "terminate"}
    env, again = (RepeatableEpisodes(make("atari100k/Breakout", **options), 0) for _ in range(2))
    env.reset()
    actions, ended = [], False
    while not ended:
        actions.append(1)
        _, _, ended, _, info = env.step(1)
    assert [info["lives"], info[GOES_ON], env.reset()[1]["lives"]] == [4, True, 4]
    obs = env.step(2)[0]
    part = {"episode": 0, "actions": [*actions, 2], "breaks": [len(actions)]}
    found, info = again.reset(options={REPEATABLE: [part]})
    assert np.array_equal(found, obs)
    assert info["lives"] == 4


def test_a_lost_life_can_begin_the_game_anew():
    env = make("atari100k/Breakout", noops=0, image_size=16, life_loss="restart")
    env.reset(seed=0)
    assert [until_a_life_is_lost(env), env.reset()[1]["lives"]] == [4, 5]


def test_clipped_rewards_are_signs():
    actions = [1] * 30
    plain = played(make("atari100k/MsPacman", noops=0, action_repeat=30), actions)[1]
    clipped = played(
        make("atari100k/MsPacman", noops=0, action_repeat=30, clip_reward=True), actions
    )
    assert max(plain) > 1
    assert clipped[1] == np.sign(plain).tolist()


@pytest.mark.parametrize("options", [{}, {"grey": True, "life_loss": "terminate"}])
def test_the_checker_accepts_it(options):
    check_env(make("atari100k/Pong", **options).unwrapped, skip_render_check=True)


def test_the_packages_own_ids_work_with_the_shared_options():
    env = make("ALE/Pong-v5", frameskip=1, image_size=32, grey=True, action_repeat=2)
    assert env.observation_space.shape == (32, 32, 1)
    env.reset(seed=0)
    assert env.step(0)[4]["repeats"] == 2
    rows = make_vec("ALE/Pong-v5", 2, image_size=32)
    assert rows.single_observation_space.shape == (32, 32, 3)  # not the package's stack of 84 px
    rows.close()


def test_wrong_names_and_options_are_answered():
    with pytest.raises(UnknownNameError, match="'atari100k/Pong'"):
        make("atari100k/Pongg")
    from wm_toolkit.envs.atari import Atari

    with pytest.raises(UnknownNameError, match="'pong'"):
        Atari("pongg")
    for name, value in {
        "pooling": 0,
        "noops": -1,
        "sticky": 1.0,
        "actions": "some",
        "life_loss": "discount",
        "resampling": "nearest",
        "action_repeat": 0,
    }.items():
        with pytest.raises(ConfigError, match=f"{name} is {value!r}"):
            make("atari100k/Pong", **{name: value})


@pytest.mark.parametrize("name", ["atari100k/Pong", "ALE/Pong-v5"])
def test_without_the_package_the_command_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wm_toolkit\[atari\]'"):
        make(name)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("atari100k/pong", "atari100k/Pong"),
        ("atari/ms_pacman", "atari/MsPacman"),
        ("atari100k/up_n_down", "atari100k/UpNDown"),
        ("atari/montezuma_revenge", "atari/MontezumaRevenge"),
    ],
)
def test_an_id_in_another_spelling_names_the_one_it_means(name, own):
    with pytest.raises(UnknownNameError, match=rf"'{name}'\. Did you mean '{own}'\?"):
        make(name)
