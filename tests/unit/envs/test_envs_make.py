"""Environments by name, and what an unknown name is answered."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.envs.registration import register_envs
from wm_toolkit.envs.two_rooms import TwoRooms, TwoRoomsVector
from wm_toolkit.errors import ConfigError, MissingPackageError, UnknownNameError


def test_our_names_and_foreign_names_are_made():
    assert isinstance(make("wm_toolkit/TwoRooms-v0", obs_mode="position").unwrapped, TwoRooms)
    assert isinstance(make_vec("wm_toolkit/TwoRooms-v0", 3).unwrapped, TwoRoomsVector)
    env = make("CartPole-v1", max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]


def test_registering_twice_changes_nothing():
    register_envs()
    before = gym.registry["wm_toolkit/TwoRooms-v0"]
    register_envs()
    assert gym.registry["wm_toolkit/TwoRooms-v0"] is before


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TwoRooms-v0", "Did you mean 'wm_toolkit/TwoRooms-v0'"),
        ("wm_toolkit/TwoRoom-v0", "'wm_toolkit/TwoRooms-v0'"),
        ("CartPol-v1", "'CartPole-v1'"),
    ],
)
def test_an_unknown_name_is_answered_with_close_ones(name, hint):
    with pytest.raises(UnknownNameError, match=hint):
        make(name)


def test_packages_are_known_by_how_their_ids_begin():
    from wm_toolkit.envs.registration import PACKAGES, package_of

    for package in PACKAGES:
        assert package_of(package.example) is package
        assert all(package_of(f"{start}Thing-v0") is package for start in package.starts)
    assert package_of("CartPole-v1") is None
    assert package_of("atari100k/Pong") is None


def test_a_missing_package_is_named():
    with pytest.raises(MissingPackageError, match="no_such_package"):
        make("no_such_package:Thing-v0")


def test_registering_and_two_rooms_do_not_import_torch():
    code = (
        "import sys, gymnasium, wm_toolkit.envs\n"
        "env = gymnasium.make('wm_toolkit/TwoRooms-v0'); env.reset(seed=0)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gymnasium_alone_makes_it_when_the_module_is_named():
    code = (
        "import gymnasium\n"
        "env = gymnasium.make('wm_toolkit.envs:wm_toolkit/TwoRooms-v0')\n"
        "assert env.reset(seed=0)[0].shape == (64, 64, 3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_seed_repeats_an_episode():
    first, again = (make("wm_toolkit/TwoRooms-v0").reset(seed=4)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_an_argument_that_an_environment_does_not_take_is_named():
    for build in (make, lambda name, **options: make_vec(name, 2, **options)):
        with pytest.raises(ConfigError, match=r"'CartPole-v1' cannot be made with .*'foo'"):
            build("CartPole-v1", foo=1)


@pytest.mark.parametrize("imports", ["wm_toolkit, gymnasium", "gymnasium, wm_toolkit"])
def test_names_are_known_whichever_package_is_imported_first(imports):
    code = (
        f"import {imports}, sys; env = gymnasium.make('wm_toolkit/TwoRooms-v0'); "
        "assert 'torch' not in sys.modules; print(env.reset(seed=0)[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(64, 64, 3)", done.stderr
