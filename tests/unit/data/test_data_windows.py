"""Windows by arithmetic equal windows by enumeration; statistics, splits and batches."""

import logging

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_toolkit.data.columns import Column
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.statistics import CHUNK_BYTES, chunk_rows, stream
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

SPACES = Spaces({"vector": gym.spaces.Box(-9e9, 9e9, (2,))}, gym.spaces.Box(-1000, 1000, (2,)))


def make(lengths, spaces=SPACES):
    """Episodes of `lengths` steps whose numbers say where they stand: (episode, row)."""
    episodes = []
    for e, steps in enumerate(lengths):
        row = np.arange(steps + 1, dtype=np.float32)
        vector = np.stack([np.full_like(row, e), row], 1)
        last = np.arange(steps) == steps - 1
        action = (
            vector[:-1] + 1 if isinstance(spaces.action, gym.spaces.Box) else np.arange(steps) % 3
        )
        episodes.append(
            Trajectory(
                {"vector": vector},
                action,
                2.0 ** np.arange(steps),
                last & (e % 2 == 0),
                last & (e % 2 == 1),
            )
        )
    return TrajectoryDataset.from_trajectories(episodes, spaces, name="toy")


def brute_force(data, length, stride, skip, real):
    """Every window the slow way: a list of (episode, rows, blocks, rewards, terminated, truncated)."""
    found = []
    for e, episode in enumerate(data):
        steps = len(episode)
        for s in range(0, steps + 1, stride):
            frames = [s + t * skip for t in range(length)]
            if frames[-1] > steps or (real and frames[-1] + skip > steps):
                break
            blocks = [
                [episode.action[r] / 1000 if r < steps else np.zeros(2) for r in range(f, f + skip)]
                for f in frames
            ]
            # The reward of step r arrives at row r + 1.
            came = [range(max(0, f - skip), f) for f in frames]
            signals = [
                [fn(values[list(r)]) if len(r) else fn(values[:0]) for r in came]
                for values, fn in (
                    (episode.reward, np.sum),
                    (episode.terminated, np.any),
                    (episode.truncated, np.any),
                )
            ]
            found.append((e, frames, np.reshape(blocks, (length, -1)), *signals))
    return found


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    length=st.integers(1, 5),
    stride=st.integers(1, 4),
    skip=st.integers(1, 4),
    real=st.booleans(),
    subset=st.booleans(),
)
def test_windows_equal_brute_force(lengths, length, stride, skip, real, subset):
    data = make(lengths)
    if subset:  # a view in another order, with rows of its own
        data = data.select(np.arange(len(lengths))[::-2])
    expected = brute_force(data, length, stride, skip, real)
    options = {"stride": stride, "frame_skip": skip, "last_action": "real" if real else "filler"}
    if not expected:
        with pytest.raises(DataError, match="longest episode has"):
            data.windows(length, **options)
        return
    windows = data.windows(length, **options)
    assert len(windows) == len(expected)
    assert windows.skipped == len(data) - len({window[0] for window in expected})
    batch = windows.gather(np.arange(len(expected)))
    episode, offset = windows.locate(np.arange(len(expected)))
    for i, (e, frames, blocks, reward, terminated, truncated) in enumerate(expected):
        assert (episode[i], offset[i]) == (e, frames[0])
        np.testing.assert_array_equal(batch.obs["vector"][i], data.episode(e).obs["vector"][frames])
        np.testing.assert_allclose(batch.action[i], blocks, rtol=1e-6)
        np.testing.assert_array_equal(batch.reward[i], np.float32(reward))
        assert batch.terminated[i].tolist() == terminated
        assert batch.truncated[i].tolist() == truncated
        assert batch.is_first[i].tolist() == [frame == 0 for frame in frames]
    assert batch.index.tolist() == list(range(len(expected)))


def test_discrete_blocks_are_one_hot_and_never_taken_actions_are_zero():
    spaces = Spaces(SPACES.observation, gym.spaces.Discrete(3))
    batch = make([3], spaces).windows(2, frame_skip=2).gather([1])
    # Rows 1 and 3: actions 1, 2, then the final observation, where nothing was chosen.
    assert batch.action[0].tolist() == [[0, 1, 0, 0, 0, 1], [0] * 6]


def test_standardised_actions_use_the_given_statistics():
    data = make([8])
    statistics = data.statistics()["action"]
    spaces = data.spaces.blocked(2).standardised(statistics.mean, statistics.std)
    action = data.windows(5, frame_skip=2, spaces=spaces).gather([0]).action
    taken = action[0, :4].reshape(8, 2)
    assert action[0, 4].tolist() == [0] * 4
    torch.testing.assert_close(taken[:, 1].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(taken[:, 1].std(unbiased=False), torch.tensor(1.0))


def test_short_episodes_are_counted_and_logged(caplog):
    with caplog.at_level(logging.WARNING):
        assert make([2, 9, 3]).windows(3, frame_skip=2).skipped == 2
    assert (
        "2 of 3 episodes are skipped: a window of 3 frames, frame_skip 2, needs 4 steps"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.windows(0), "length is 0"),
        (lambda d: d.windows(2, frame_skip=2, spaces=d.spaces), "blocked\\(2\\)"),
        (lambda d: d.windows(2, last_action="maybe"), "use 'filler' or 'real'"),
        (lambda d: d.windows(2).gather([4]), "windows 0 to 3"),
        (lambda d: d.windows(2).gather([0], keys=["obs/vectr"]), "Did you mean 'obs/vector'"),
        (lambda d: d.episode(7), "no episode 7"),
        (lambda d: d.split(1.5), "between 0 and 1"),
        (lambda d: d.split(0.5), "at least two"),
    ],
)
def test_wrong_requests_are_explained(call, message):
    with pytest.raises(DataError, match=message):
        call(make([4]))


def test_keys_choose_what_is_read():
    batch = make([4]).windows(2).gather([0], keys=[])
    assert batch.obs == {}
    assert batch.action.shape == (1, 2, 2)


@given(n=st.integers(2, 40), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_a_split_parts_the_episodes_and_repeats(n, fraction, seed):
    data = make([1] * n)
    train, held_out = data.split(fraction, seed)
    both = np.concatenate([train.episode_starts, held_out.episode_starts])
    assert sorted(both.tolist()) == data.episode_starts.tolist()
    assert min(len(train), len(held_out)) >= 1
    assert abs(len(train) - fraction * n) <= 1
    again = data.split(fraction, seed)[0]
    np.testing.assert_array_equal(again.episode_starts, train.episode_starts)
    assert train.columns["action"].array is data.columns["action"].array


def test_statistics_equal_numpy_leave_fillers_out_and_are_kept(tmp_path):
    data = make([3, 5, 4])
    with Hdf5Writer(tmp_path / "a.h5", SPACES) as writer:
        for episode in data:
            writer.add_episode(episode)
    data = TrajectoryDataset.load(tmp_path / "a.h5")
    train = data.select([0, 2])
    actions = np.concatenate([data.episode(0).action, data.episode(2).action]).astype(np.float64)
    found = train.statistics()["action"]
    np.testing.assert_allclose(found.mean, actions.mean(0))
    np.testing.assert_allclose(found.std, actions.std(0))
    np.testing.assert_array_equal([found.min, found.max], [actions.min(0), actions.max(0)])
    assert found.count == 7
    assert train.statistics()["reward"].max == 8
    again = TrajectoryDataset.load(tmp_path / "a.h5").select([0, 2])
    # Only the saved file can answer now.
    again.columns = {name: Column(name, np.zeros(0)) for name in again.columns}
    np.testing.assert_array_equal(again.statistics()["action"].mean, found.mean)
    assert data.statistics()["action"].count == 12


def test_streamed_statistics_do_not_depend_on_the_chunks(rng):
    values = np.random.default_rng(0).normal(1e3, 1e-2, (500, 3))
    images = np.random.default_rng(1).integers(0, 256, (40, 7, 5, 3), dtype=np.uint8)
    for cuts in ([], [1], [100, 101, 350]):
        found = stream(np.split(values, cuts))
        np.testing.assert_allclose(found.std, values.std(0), rtol=1e-9)
        found = stream(np.split(images, [c // 10 for c in cuts]), image=True)
        np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)))
        np.testing.assert_allclose(found.std, images.std((0, 1, 2)))
    assert chunk_rows(CHUNK_BYTES * 3) == 1
