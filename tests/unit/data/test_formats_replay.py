"""The replay of a run as a data set: found in a run folder, read as it happened, refused where it cannot be."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.checkpoint import save_json
from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.tables import ColumnSpec
from wm_toolkit.errors import CheckpointError
from wm_toolkit.spaces import Spaces

SPACES = Spaces({"seen": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)}, gym.spaces.Discrete(3))
LATENTS = {"deter": ColumnSpec((5,), np.dtype(np.float16))}


def filled(rows: int = 23) -> ReplayBuffer:
    """Two streams of episodes of 4 steps that keep 16 rows; row t of stream s shows [s, t]."""
    replay = ReplayBuffer(SPACES, capacity=32, streams=2, length=3, extras=LATENTS)
    for t in range(rows):
        place = t % 5
        replay.add(
            {"seen": np.array([[0, t], [1, t]], np.float32)},
            np.eye(3, dtype=np.float32)[[t % 3, (t + 1) % 3]],
            reward=np.full(2, 0.0 if place == 0 else t),
            is_first=np.full(2, place == 0),
            terminated=np.array([place == 4, False]),
            truncated=np.array([False, place == 4]),
            deter=np.ones((2, 5), np.float16),
        )
    return replay


@pytest.fixture
def run(tmp_path):
    """A run folder with two checkpoints."""
    folder = tmp_path / "runs" / "mine"
    for update, rows in ((4, 9), (8, 23)):
        filled(rows).save(folder / "checkpoints" / f"update_{update:08d}" / "source" / "replay")
    save_json(
        folder / "config.json", {"experience": {"env": "A-v0", "env_options": {"hard": True}}}
    )
    return folder


def test_a_run_is_a_data_set_of_the_episodes_in_its_newest_replay(run):
    data = TrajectoryDataset.load(run)
    # Rows 7 to 22 are kept: what is left of one episode, two whole ones, and one that goes on.
    assert data.episode_lengths.tolist() == [3, 5, 5, 3] * 2
    assert (data.name, data.metadata["env"]) == ("mine", "A-v0")
    assert data.metadata["env_options"] == {"hard": True}
    assert data.spaces.action == gym.spaces.Discrete(3)
    whole = data.rows(5)
    assert whole["obs/seen"].tolist() == [[1, t] for t in range(10, 15)]
    assert whole["action"][:-1].tolist() == [2, 0, 1, 2]
    assert whole["reward"].tolist() == [0, 11, 12, 13, 14]
    assert (whole["terminated"][-1], whole["truncated"][-1]) == (False, True)
    assert data.rows(1)["terminated"][-1]
    assert data.rows(3)["truncated"][-1], "it was not over, so it was cut"


def test_what_was_read_fills_another_replay_with_the_same_rows(run):
    data = TrajectoryDataset.load(run)
    other = ReplayBuffer(SPACES, capacity=64, length=3)
    other.fill((data.rows(i) for i in range(len(data))), data.num_rows)
    assert len(other) == data.num_rows == 32
    seen = other.rings.columns["obs/seen"][0, :32]
    expected = [[s, t] for s in (0, 1) for t in range(7, 23)]
    assert seen.tolist() == expected
    actions = other.rings.columns["action"][0, 3:7].argmax(-1)
    assert actions.tolist() == [t % 3 for t in range(10, 14)]


def test_a_checkpoint_can_be_named_and_a_conversion_goes_on_where_it_was_stopped(run, tmp_path):
    folder = run / "checkpoints" / "update_00000004" / "source" / "replay"
    assert find_format(folder)[0].name == "replay"
    reader = open_reader(folder)
    assert len(reader) == 4
    assert [len(e) for e in reader.episodes(1)] == [len(e) for e in list(reader.episodes())[1:]]
    target = convert(folder, tmp_path / "short.h5")
    assert TrajectoryDataset.load(target).episode_lengths.tolist() == [5, 4] * 2


def test_replays_that_do_not_say_their_spaces_and_folders_without_one_are_refused(run, tmp_path):
    head = run / "checkpoints" / "update_00000008" / "source" / "replay" / "replay.json"
    known = json.loads(head.read_text())
    save_json(head, {name: value for name, value in known.items() if name != "spaces"})
    with pytest.raises(CheckpointError, match="does not say what its spaces are"):
        open_reader(run)
    (head.parent / "action.00000.npy").unlink()
    save_json(head, known)
    with pytest.raises(CheckpointError, match=r"action\.00000\.npy cannot be read"):
        open_reader(run)
    assert find_format(tmp_path) is None
