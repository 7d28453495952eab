"""`inspect` finds what is wrong inside an otherwise sound file, and says where."""

import gymnasium as gym
import h5py
import numpy as np
import pytest

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.inspect import inspect, verify
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

SPACES = Spaces(
    {"vector": gym.spaces.Box(-9, 9, (2,), np.float32)}, gym.spaces.Discrete(3, start=1)
)
STEPS = (3, 5, 2)


@pytest.fixture
def path(tmp_path):
    with Hdf5Writer(tmp_path / "a.h5", SPACES, metadata={"source": "test"}) as writer:
        for seed, steps in enumerate(STEPS):
            obs = np.full((steps + 1, 2), seed, np.float32)
            last = np.arange(steps) == steps - 1
            writer.add_episode(
                Trajectory(
                    {"vector": obs},
                    np.arange(steps) % 3 + 1,
                    np.full(steps, seed + 1.0),
                    last & (seed == 1),
                    last & (seed != 1),
                )
            )
    return tmp_path / "a.h5"


def test_a_sound_file_is_described(path):
    report = inspect(path)
    assert report.sound
    assert report.problems == []
    assert report.lengths == list(STEPS)
    assert report.returns == [3.0, 10.0, 6.0]
    assert (report.terminated, report.truncated) == (1, 2)
    assert report.columns["action"]["max"] == 3
    summary = report.to_dict()
    assert summary["returns"] == {"mean": pytest.approx(19 / 3), "min": 3.0, "max": 10.0}
    assert (summary["episodes"], summary["steps"]) == (3, 10)
    assert verify(TrajectoryDataset.load(path))


# Episode 1 begins at row 4.
BAD_VALUES = {
    "column 'action', episode 1, row 2: 9 lies outside the action space": ("action", 6, 9),
    "column 'reward', episode 1, row 3: nan expected a number": ("reward", 7, np.nan),
    "column 'obs/vector', episode 1, row 5: nan component (1,)": ("obs/vector", (9, 1), np.nan),
    "column 'reward', episode 1, row 0: is 4.0 on the first row": ("reward", 4, 4.0),
    "column 'terminated', episode 1, row 2: is true before": ("terminated", 6, True),
}


@pytest.mark.parametrize("message", BAD_VALUES)
def test_bad_values_are_placed(path, message):
    column, row, value = BAD_VALUES[message]
    with h5py.File(path, "a") as file:
        file[f"columns/{column}"][row] = value
    report = inspect(path)
    texts = [str(problem) for problem in report.problems]
    assert any(message in text and text.startswith(str(path)) for text in texts), texts
    assert any("does not match its checksum" in text for text in texts)
    assert not verify(TrajectoryDataset.load(path))


def test_damaged_descriptions_are_reported_once_with_the_file(path):
    with h5py.File(path, "a") as file:
        file.attrs["metadata"] = "{"
    (problem,) = inspect(path).problems
    assert str(problem).startswith(f"{path}, attribute 'metadata' is not valid JSON")
    with pytest.raises(DataError, match="attribute 'metadata' is not valid JSON"):
        TrajectoryDataset.load(path)


def test_facts_about_episodes_must_be_as_many_as_episodes(path):
    with h5py.File(path, "a") as file:
        file["episode_info"] = ["{}"]
    (problem,) = inspect(path).problems
    assert str(problem) == f"{path}, column 'episode_info': has 1 entries for 3 episodes"
    with h5py.File(path, "a") as file:
        del file["episode_info"]
        file["episode_info"] = ["{}", "{", "{}"]
    with pytest.raises(DataError, match="episode_info of episode 1 is not valid JSON"):
        TrajectoryDataset.load(path)


def test_fillers_are_not_taken_for_actions(path):
    with h5py.File(path) as file:
        assert file["columns/action"][:].tolist() == [1, 2, 3, 1, 1, 2, 3, 1, 2, 1, 1, 2, 1]
    assert TrajectoryDataset.load(path).statistics()["action"].count == sum(STEPS)
