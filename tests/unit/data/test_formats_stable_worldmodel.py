"""stable-worldmodel and LeWorldModel HDF5: where episodes lie, their last action, and what does not add up."""

import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wm_toolkit.data.convert import convert
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import find_format, open_reader
from wm_toolkit.errors import DataError, MissingPackageError

LENGTHS = (5, 3, 4)  # rows: steps + 1
ROWS = sum(LENGTHS)
LAST = np.cumsum(LENGTHS) - 1
FIRST = LAST + 1 - LENGTHS


def columns(**replaced):
    """Flat columns [12, ...] as they are released; None leaves one out."""
    rng = np.random.default_rng(0)
    action, reward = rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32), rng.normal(size=ROWS)
    action[LAST], reward[FIRST] = np.nan, np.nan
    return {
        "pixels": rng.integers(0, 256, (ROWS, 6, 8, 3), dtype=np.uint8),
        "action": action,
        "proprio": rng.normal(size=(ROWS, 4)).astype(np.float32),
        "state": rng.normal(size=(ROWS, 7)).astype(np.float32),
        "reward": reward,
        "terminated": np.arange(ROWS) == LAST[1],
        "success": np.full(ROWS, np.nan),
        "ep_idx": np.repeat(np.arange(3), LENGTHS),
        "step_idx": np.concatenate([np.arange(n) for n in LENGTHS]),
        "ep_len": np.array(LENGTHS, np.int32),
        "ep_offset": FIRST.astype(np.int64),
        **replaced,
    }


def save(path, **replaced):
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in columns(**replaced).items():
            if values is not None:
                frames = {"chunks": (1, *values.shape[1:]), **hdf5plugin.Blosc()}
                file.create_dataset(name, data=values, **(frames if name == "pixels" else {}))
    return path


def parts(values):
    return np.split(values, LAST[:-1] + 1)


def changed(name, row, value, dtype=None):
    values = columns()[name].astype(dtype) if dtype else columns()[name].copy()
    values[row] = value
    return {name: values}


def test_the_missing_last_action_is_dropped_and_nothing_else(tmp_path):
    reader, saved = open_reader(save(tmp_path / "a.h5")), columns()
    episodes = list(reader.episodes())
    assert [len(episode) for episode in episodes] == [4, 2, 3]
    for i, episode in enumerate(episodes):
        episode.validate(reader.spaces)
        np.testing.assert_array_equal(episode.obs["image"], parts(saved["pixels"])[i])
        np.testing.assert_array_equal(episode.obs["proprio"], parts(saved["proprio"])[i])
        np.testing.assert_array_equal(episode.obs["state"], parts(saved["state"])[i])
        np.testing.assert_array_equal(episode.action, parts(saved["action"])[i][:-1])
        np.testing.assert_array_equal(episode.reward, parts(saved["reward"])[i][1:])
        assert list(episode.extras) == ["success"]
        assert episode.info == {"first_row": FIRST[i]}
    assert reader.spaces.action == gym.spaces.Box(-1, 1, (2,), np.float32)
    assert reader.problems == []


def test_terminated_comes_from_the_file_and_any_other_end_is_truncated(tmp_path):
    first, second, third = open_reader(save(tmp_path / "a.h5")).episodes()
    assert (second.terminated.tolist(), second.truncated.any()) == ([False, True], False)
    for episode in (first, third):
        assert not episode.terminated.any()
        assert np.flatnonzero(episode.truncated).tolist() == [len(episode) - 1]


def test_episodes_may_lie_in_any_order_with_rows_between_that_belong_to_none(tmp_path):
    lengths, offsets = np.array([4, 5]), np.array([8, 0])
    reader = open_reader(
        save(tmp_path / "a.h5", ep_len=lengths, ep_offset=offsets, reward=None, terminated=None)
    )
    first, second = reader.episodes()
    np.testing.assert_array_equal(first.action, columns()["action"][8:11])
    np.testing.assert_array_equal(second.action, columns()["action"][:4])
    assert first.reward is None
    assert "3 rows to no episode" in str(reader.problems[0])


def test_channel_first_frames_become_channel_last(tmp_path):
    frames = columns()["pixels"].transpose(0, 3, 1, 2)
    reader = open_reader(save(tmp_path / "a.h5", pixels=frames))
    assert reader.spaces.observation["image"].shape == (6, 8, 3)
    np.testing.assert_array_equal(
        next(reader.episodes()).obs["image"], parts(columns()["pixels"])[0]
    )


def test_rewards_that_are_all_nan_are_none(tmp_path):
    reader = open_reader(save(tmp_path / "a.h5", reward=np.full(ROWS, np.nan)))
    assert all(episode.reward is None for episode in reader.episodes())
    assert [problem.column for problem in reader.problems] == ["reward"]


def test_a_last_action_that_is_a_number_is_dropped_too(tmp_path):
    reader = open_reader(save(tmp_path / "a.h5", **changed("action", LAST, 7.0)))
    assert [len(episode) for episode in reader.episodes()] == [4, 2, 3]
    assert reader.spaces.action.high.tolist() == [1, 1]


def test_a_reset_frame_that_was_not_recorded_is_noticed(tmp_path):
    reader = open_reader(save(tmp_path / "a.h5", step_idx=columns()["step_idx"] + 1))
    assert reader.metadata["notes"] == [
        "step_idx begins after 0 in 3 episodes: the frame of their reset is missing"
    ]


def test_an_episode_of_one_row_is_left_out_and_said(tmp_path):
    lengths, offsets = np.array([5, 1, 4]), np.array([0, 5, 8])
    reader = open_reader(save(tmp_path / "a.h5", ep_len=lengths, ep_offset=offsets))
    assert [len(episode) for episode in reader.episodes()] == [4, 3]
    assert any("1 episodes of a single row" in str(problem) for problem in reader.problems)


def test_nan_in_an_earlier_action_is_refused_with_episode_and_row(tmp_path):
    reader = open_reader(save(tmp_path / "a.h5", **changed("action", FIRST[2] + 1, np.nan)))
    assert len(list(zip(range(2), reader.episodes(), strict=False))) == 2
    with pytest.raises(DataError, match=r"a\.h5, column 'action', episode 2, row 1: is NaN in 1"):
        list(reader.episodes(2))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"pixels": None}, "column 'pixels': is missing"),
        ({"action": None}, "column 'action': is missing"),
        ({"pixels": np.zeros((ROWS, 6, 8, 3), np.float32)}, "column 'pixels': is float32"),
        ({"pixels": np.zeros((ROWS, 6, 8), np.uint8)}, "expected uint8"),
        (
            {"reward": np.zeros((ROWS, 2))},
            "column 'reward': has shape (12, 2), expected one number",
        ),
        ({"action": columns()["action"][:10]}, "column 'action', episode 2: has 10 rows"),
        (
            changed("ep_len", 0, 6),
            "'ep_offset', episode 1: begins episode 1 at row 5, but episode 0",
        ),
        (changed("ep_len", 2, 5), "episode 2: has 12 rows, but the episode ends before row 13"),
        (changed("ep_len", 1, 0), "column 'ep_len', episode 1: is 0, expected 1 or more"),
        (changed("ep_offset", 1, -1), "column 'ep_offset', episode 1: is -1, expected 0 or more"),
        ({"ep_len": np.array([5.0, 3.0, 4.0])}, "column 'ep_len': is float64"),
        ({"ep_offset": FIRST[:2]}, "column 'ep_offset': has 2 entries, ep_len has 3"),
        (
            changed("step_idx", 2, 9),
            "column 'step_idx', episode 0, row 2: is 9 after 1, expected 1",
        ),
        (
            changed("ep_idx", 6, 9),
            "column 'ep_idx', episode 1, row 1: is 9 after 1, expected 0 more",
        ),
        ({"ep_len": np.ones(3, int), "ep_offset": FIRST}, "no episode of two rows"),
    ],
)
def test_what_does_not_add_up_is_refused_by_name(tmp_path, replaced, message):
    path = save(tmp_path / "a.h5", **replaced)
    with pytest.raises(DataError, match=r"a\.h5") as error:
        open_reader(path)
    assert message in str(error.value)


def test_a_frame_that_is_damaged_on_disk_names_the_episode(tmp_path):
    plain = np.zeros(
        (ROWS, 16, 16, 3), np.uint8
    )  # noise is not compressed, so nothing would notice
    path = save(tmp_path / "a.h5", pixels=plain)
    with h5py.File(path) as file:
        place = file["pixels"].id.get_chunk_info(FIRST[1]).byte_offset
    data = bytearray(path.read_bytes())
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.h5, column 'pixels', episode 1"):
        list(open_reader(path).episodes())


def test_a_truncated_file_says_so(tmp_path):
    path = save(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a\.h5 cannot be opened .*truncated"):
        open_reader(path)


@pytest.mark.parametrize(
    ("name", "command"),
    [("a.h5.zst", "zstd -d "), ("a.tar.zst", "tar --zstd -xvf ")],
)
def test_a_packed_file_comes_with_the_command_that_unpacks_it(tmp_path, name, command):
    path = tmp_path / name
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(DataError, match="unpack it first") as error:
        open_reader(path)
    assert str(error.value).endswith(f"{command}{path}")


def test_without_the_filter_the_error_names_the_extra(tmp_path, monkeypatch):
    path = save(tmp_path / "a.h5")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'wm_toolkit\[blosc\]'"):
        open_reader(path)


def test_a_native_file_is_still_found_as_native(tmp_path):
    native = convert(save(tmp_path / "a.h5"), tmp_path / "b.h5")
    for path, name in ((tmp_path / "a.h5", "stable_worldmodel"), (native, "hdf5")):
        found = find_format(path)
        assert found is not None
        assert found[0].name == name
    assert len(TrajectoryDataset.load(native)) == 3


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(lengths=st.lists(st.integers(2, 6), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_every_row_survives_the_way_to_native_and_back(tmp_path, lengths, seed):
    rng, rows = np.random.default_rng(seed), sum(lengths)
    last = np.cumsum(lengths) - 1
    action = rng.normal(size=(rows, 3))
    action[last] = np.nan
    frames = rng.integers(0, 256, (rows, 2, 3, 3), dtype=np.uint8)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    path, target = folder / "a.h5", folder / "native.h5"
    with h5py.File(path, "w") as file:
        file["pixels"], file["action"] = frames, action
        file["ep_len"], file["ep_offset"] = lengths, last + 1 - lengths
    data = TrajectoryDataset.load(convert(path, target))
    np.testing.assert_array_equal(data.columns["obs/image"].array[:], frames)
    taken = np.setdiff1d(np.arange(rows), last)
    np.testing.assert_array_equal(data.columns["action"].array[:][taken], action[taken])
