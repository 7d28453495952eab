"""What a release says about itself: which episodes it holds out, and where the simulator's state lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from film_layouts import write_point_maze, write_pusht

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import open_reader
from wm_toolkit.errors import DataError
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.evaluate import state_key
from wm_toolkit.training.jobs import prepare_two_rooms


@pytest.fixture(scope="module")
def pushes(tmp_path_factory):
    """The film layout: episodes of 7, 5 and 9 rows to learn from, one of 6 held out."""
    return write_pusht(tmp_path_factory.mktemp("release") / "pusht_noise", size=(32, 32))


def numbers(episodes):
    return [episode.obs["proprio"] for episode in episodes]


def test_the_parts_are_the_folders_train_and_val(pushes):
    parts = TrajectoryDataset.load(pushes).released_split()
    for part, folder in zip(parts, ("train", "val"), strict=True):
        expected = numbers(open_reader(pushes / folder).episodes())
        for mine, theirs in zip(numbers(part), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_parts_of_a_single_folder_are_those_of_a_random_split_of_torch(tmp_path):
    count = 13
    data = TrajectoryDataset.load(write_point_maze(tmp_path / "maze", lengths=[4] * count, rows=4))
    train, held_out = data.released_split()
    generator = torch.Generator().manual_seed(42)
    published = torch.utils.data.random_split(range(count), [11, 2], generator)  # type: ignore[arg-type]
    starts = [set(data.episode_starts[list(part.indices)]) for part in published]
    assert [set(part.episode_starts) for part in (train, held_out)] == starts


def test_data_that_say_nothing_of_a_split_are_refused(tmp_path, pushes):
    walks = prepare_two_rooms(tmp_path / "walks.h5", episodes=3, steps=5)
    for data in (walks, TrajectoryDataset.load(pushes / "val")):
        with pytest.raises(DataError, match="not say which episodes its release holds out; use a"):
            data.released_split()


def test_the_state_lies_where_the_protocol_says_or_else_the_data(tmp_path, pushes):
    known = TrajectoryDataset.load(pushes)
    silent = TrajectoryDataset.load(write_point_maze(tmp_path / "maze"))
    assert known.columns[state_key(EvaluationConfig(), known)].shape == (7,)
    assert state_key(EvaluationConfig(state_key="mine"), known) == "mine"
    assert state_key(EvaluationConfig(), silent) == "position"


def test_no_simulator_is_named_that_would_not_take_the_recorded_states(tmp_path, pushes):
    assert TrajectoryDataset.load(pushes).metadata["env"] == "wm_toolkit/PushT-v0"
    # D4RL counts cells from a corner of the maze, gymnasium-robotics from its middle.
    assert "env" not in open_reader(write_point_maze(tmp_path / "maze")).metadata
