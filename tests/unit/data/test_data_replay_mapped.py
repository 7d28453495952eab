"""A replay is filled from a file as from memory."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.spaces import Spaces

SPACES = Spaces({"vector": gym.spaces.Box(-9, 9, (1,), np.float32)}, gym.spaces.Box(-2, 2, (1,)))


def test_episodes_of_a_mapped_file_fill_it_without_a_warning(tmp_path):
    action = np.linspace(-2, 2, 5, dtype=np.float32)[:, None]
    obs = {"vector": np.arange(6, dtype=np.float32)[:, None]}
    ended = np.arange(5) == 4
    with Hdf5Writer(tmp_path / "one.h5", SPACES) as writer:
        writer.add_episode(Trajectory(obs, action, np.ones(5, np.float32), ended, ~ended & False))
    data = TrajectoryDataset.load(tmp_path / "one.h5")
    replay = ReplayBuffer(SPACES, capacity=6, length=6, batch_size=1)
    torch.set_warn_always(True)
    try:
        replay.fill([data.rows(0)], data.num_rows)
    finally:
        torch.set_warn_always(False)
    batch = next(replay)
    assert torch.equal(batch.obs["vector"][0, :, 0], torch.arange(6.0))
    assert torch.allclose(batch.action[0, :5, 0], torch.linspace(-1, 1, 5))
    assert batch.action[0, 5, 0] == 0, "after the last observation nothing was done"
