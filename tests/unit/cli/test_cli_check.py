"""`wm check` of environments: faults fail, gymnasium's taste in spaces does not."""

from __future__ import annotations

import importlib

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.cli.check import check_environment
from wm_toolkit.cli.main import main
from wm_toolkit.testing.checks import CheckError


def test_gymnasiums_own_environments_pass_with_its_advice(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "CartPole-v1"]) == 0
    said = capsys.readouterr().out
    assert "it advises: A Box observation space minimum value is -infinity" in said
    assert "\x1b" not in said


class Stray(gym.Env):
    """Hands over an observation that lies outside its space."""

    observation_space = gym.spaces.Box(-np.inf, 0.5, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(2, 0.7, np.float32), {}

    def step(self, action):
        return np.full(2, 0.7, np.float32), 0.0, False, False, {}


def test_what_lies_outside_a_space_fails() -> None:
    gym.register("Stray-v0", entry_point=f"{__name__}:Stray")
    with pytest.raises(CheckError, match="not within the observation space"):
        check_environment(gym.make("Stray-v0", disable_env_checker=True))


class Sound(gym.Env):
    """Keeps its word."""

    observation_space = gym.spaces.Box(0.0, 0.5, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


def beyond(env: gym.Env) -> gym.Env:
    """A wrapper that adds 1 to what its space promises."""
    return gym.wrappers.TransformObservation(env, lambda obs: obs + 1, env.observation_space)


def unseeded(env: gym.Env) -> gym.Env:
    """A wrapper with chances of its own, which no seed repeats."""
    rng = np.random.default_rng(0)

    def noisy(obs):
        return obs + rng.random(2, np.float32) / 2

    return gym.wrappers.TransformObservation(env, noisy, env.observation_space)


def test_what_a_wrapper_does_wrong_fails_too() -> None:
    gym.register("Sound-v0", entry_point=f"{__name__}:Sound")
    made = gym.make("Sound-v0", disable_env_checker=True)
    assert len(check_environment(made)) == 1
    with pytest.raises(CheckError, match="not within the observation space"):
        check_environment(beyond(made))
    with pytest.raises(CheckError, match="deterministic"):
        check_environment(unseeded(made))


@pytest.mark.parametrize(
    ("package", "name", "broken"),
    [
        ("minigrid", "MiniGrid-Empty-5x5-v0", "wm_toolkit.envs.mini_grid:GridView.observation"),
        ("vizdoom", "VizdoomBasic-v1", "wm_toolkit.envs.viz_doom:DoomScreen.reset"),
        ("vizdoom", "VizdoomBasic-v1", "wm_toolkit.envs.viz_doom:DoomScreen.step"),
        ("Box2D", "wm_toolkit/CarRacing-v0", "wm_toolkit.envs.wrappers:ResizedImages.observation"),
    ],
)
def test_garbage_from_our_adapters_fails(package, name, broken, monkeypatch, capsys) -> None:
    pytest.importorskip(package)
    assert main(["check", name]) == 0
    module, _, attribute = broken.partition(":")
    kind, _, method = attribute.partition(".")
    adapter = getattr(importlib.import_module(module), kind)
    true = getattr(adapter, method)

    def garbage(*args, **kwargs):
        made = true(*args, **kwargs)
        return ("garbage", *made[1:]) if isinstance(made, tuple) else "garbage"

    monkeypatch.setattr(adapter, method, garbage)
    assert main(["check", name]) == 1
    assert "fails 1 of 1 checks" in capsys.readouterr().out
