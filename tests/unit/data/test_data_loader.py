"""Every window once an epoch, over any number of processes, resumed anywhere."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_toolkit.data import buffers
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.loader import Loader
from wm_toolkit.data.source import Source
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import CheckpointError, DataError
from wm_toolkit.spaces import Spaces

SPACES = Spaces({"vector": gym.spaces.Box(-9, 9, (1,))}, gym.spaces.Box(-1, 1, (1,)))


def windows(n, length=1):
    """n windows of one frame."""
    flags = np.zeros(n - 1, bool)
    obs = {"vector": np.zeros((n, 1), np.float32)}
    episode = Trajectory(obs, np.zeros((n - 1, 1), np.float32), None, flags, flags)
    return TrajectoryDataset.from_trajectories([episode], SPACES).windows(length)


def ids(batches):
    return [batch.index.tolist() for batch in batches]


def join(lists):
    return [i for part in lists for i in part]


def take(loader, n):
    return ids(next(loader) for _ in range(n))


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 50),
    share=st.integers(1, 6),
    world=st.sampled_from([1, 2, 3]),
    epoch=st.integers(0, 2),
)
def test_an_epoch_holds_every_window_once_over_all_processes(n, share, world, epoch):
    loaders = [Loader(windows(n), share * world, rank=r, world_size=world) for r in range(world)]
    if n // len(loaders[0]) < world:
        with pytest.raises(DataError, match="without a window"):
            list(loaders[0].epoch(epoch))
        return
    parts = [ids(loader.epoch(epoch)) for loader in loaders]
    assert {len(part) for part in parts} == {len(loaders[0])} == {-(-n // (share * world))}
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(n))
    assert all(1 <= len(batch) <= share for part in parts for batch in part)
    whole = ids(Loader(windows(n), share * world).epoch(epoch))
    assert [join(batches) for batches in zip(*parts, strict=True)] == whole


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 30), batch=st.sampled_from([6, 12]), world=st.sampled_from([2, 3, 6]))
def test_the_stream_is_epoch_after_epoch_whatever_the_number_of_processes(n, batch, world):
    one = take(Loader(windows(n), batch, seed=3), 9)
    parts = [
        take(Loader(windows(n), batch, seed=3, rank=r, world_size=world), 9) for r in range(world)
    ]
    assert [join(batches) for batches in zip(*parts, strict=True)] == one
    stream = join(one)
    for epoch in range(len(stream) // n):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_seeds_and_epochs_give_different_orders_and_no_shuffling_none():
    loader = Loader(windows(40), 40, seed=0)
    first, second = take(loader, 2)
    assert first != second
    assert take(Loader(windows(40), 40, seed=0), 2) == [first, second]
    assert take(Loader(windows(40), 40, seed=1), 1)[0] not in (first, second)
    assert take(Loader(windows(6), 4, shuffle=False), 3) == [
        [0, 1, 2, 3],
        [4, 5, 0, 1],
        [2, 3, 4, 5],
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_gives_exactly_the_batches_that_were_left(workers):
    whole = take(Loader(windows(23), 4, seed=5), 20)
    first = Loader(windows(23), 4, seed=5, workers=workers)
    assert take(first, 8) == whole[:8]
    state = first.state_dict()
    resumed = Loader(windows(23), 4, seed=5, workers=workers)
    take(resumed, 3)  # whatever it did before is forgotten
    resumed.load_state_dict(state)
    assert take(resumed, 12) == whole[8:]
    halves = [Loader(windows(23), 4, seed=5, rank=r, world_size=2) for r in range(2)]
    for half in halves:
        half.load_state_dict(state)
    assert [join(b) for b in zip(*(take(h, 12) for h in halves), strict=True)] == whole[8:]
    for loader in (first, resumed):
        loader.close()


def test_a_state_of_other_windows_is_refused():
    state = Loader(windows(23), 4).state_dict()
    with pytest.raises(CheckpointError, match="batch_size=4, this loader has 5"):
        Loader(windows(23), 5).load_state_dict(state)
    with pytest.raises(CheckpointError, match="length=1, this loader has 2"):
        Loader(windows(23, length=2), 4).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_still_held_is_not_read_over(workers, monkeypatch):
    monkeypatch.setattr(buffers, "LEAST", 0)
    loader = Loader(windows(23), 4, workers=workers)
    held = [next(loader) for _ in range(5)]
    loader.close()
    for batch in held:
        again = loader.windows.gather(batch.index.numpy())
        assert all(torch.equal(batch.obs[key], again.obs[key]) for key in again.obs)


def test_an_error_in_a_reading_thread_reaches_the_caller(monkeypatch):
    loader = Loader(windows(23), 4, workers=2)
    next(loader)

    def fail(*_, **__):
        raise DataError("the disk is gone")

    monkeypatch.setattr(loader.windows, "gather", fail)

    def drain():
        for _ in range(10):
            next(loader)

    with pytest.raises(DataError, match="the disk is gone"):
        drain()
    loader.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5, "world_size": 2}, "multiple of the 2 processes"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank is 2"),
    ],
)
def test_wrong_arguments_are_explained(options, message):
    with pytest.raises(DataError, match=message):
        Loader(windows(9), **options)


def test_a_loader_is_a_source_and_a_missing_reward_stays_none():
    loader = Loader(windows(9), 3)
    assert isinstance(loader, Source)
    assert loader.spaces.action_width == 1
    batch = next(loader)
    assert batch.reward is None
    assert batch.truncated.dtype == torch.bool
