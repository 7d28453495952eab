"""Environments of other packages end to end: recorded by `wm collect`, and made again from what the data says."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from wm_toolkit.cli.main import main
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.make import make
from wm_toolkit.spaces import flat_obs

RECORDED = {
    "classic control": ("gymnasium", "Pendulum-v1", {"action_repeat": 2}, {}),
    "classic control in pixels": (
        "pygame",
        "CartPole-v1",
        {"obs_mode": "both", "image_size": 16, "action_repeat": 2},
        {"fast_render": False},
    ),
    "box2d": ("Box2D", "CarRacing-v3", {"image_size": 32}, {}),
    "atari": (
        "ale_py",
        "atari100k/Breakout",
        {"image_size": 16, "grey": True},
        {"noops": 30, "sticky": 0.0, "action_repeat": 4, "pooling": 2, "life_loss": "ignore"},
    ),
    "ale": ("ale_py", "ALE/Pong-v5", {"image_size": 16, "grey": True}, {}),
    "dmc": (
        "dm_control",
        "dmc/walker-walk",
        {"obs_mode": "state", "action_repeat": 2},
        {"vectors": "flat"},
    ),
    "crafter": (
        "crafter",
        "crafter/reward",
        {"image_size": 18, "area": 24},
        {"length": 10_000, "reward": True},
    ),
    "vizdoom": (
        "vizdoom",
        "VizdoomTakeCover-v1",
        {"image_size": 16, "action_repeat": 4},
        {"obs_mode": "both"},
    ),
    "bsuite": ("bsuite", "bsuite/catch-0", {}, {}),
    "minigrid": (
        "minigrid",
        "MiniGrid-DoorKey-5x5-v0",
        {"obs_mode": "both", "image_size": 14},
        {},
    ),
}


@pytest.mark.parametrize("which", RECORDED)
def test_a_recording_says_how_it_was_made_and_can_be_made_again(which, tmp_path):
    module, name, given, defaults = RECORDED[which]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    path = tmp_path / "data.h5"
    words = [f"{key}={str(value).lower()}" for key, value in given.items()]
    counts = ["--episodes", "2", "--max-steps", "8", "--seed", "7"]
    assert main(["collect", name, str(path), *counts, *(["--set", *words] if words else [])]) == 0
    data = TrajectoryDataset.load(path)
    about = data.metadata["env_options"]
    assert about.items() >= {**defaults, **given}.items()
    env = make(name, **about)
    begin, steps = int(data.episode_starts[1]), int(data.episode_lengths[1]) - 1
    rows = [(env.reset(seed=8)[0], 0.0, False, False)]
    for row in range(begin, begin + steps):
        rows.append(env.step(data.columns["action"].array[row])[:4])
    env.close()
    for offset, (obs, reward, terminated, _) in enumerate(rows):
        stored = {key: column.array[begin + offset] for key, column in data.columns.items()}
        for key, value in flat_obs(obs).items():
            np.testing.assert_array_equal(value, stored[f"obs/{key}"])
        assert stored["reward"] == pytest.approx(reward)
        assert stored["terminated"] == terminated
