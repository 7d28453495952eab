"""The replay buffer against a plain list of rows: what is drawn, corrected, kept and handed on."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.rings import ColumnSpec
from wm_toolkit.data.samplers import Mix, SumTree
from wm_toolkit.errors import CheckpointError, ConfigError, DataError
from wm_toolkit.spaces import Spaces

SPACES = Spaces(
    {"row": gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)},
    gym.spaces.Discrete(3),
)
EPISODE = 7


def row(number: int, streams: int) -> dict:
    """Row `number` of every stream: it shows (stream, number), episodes have 7 rows."""
    place, which = number % EPISODE, np.arange(streams)
    last = place == EPISODE - 1
    return {
        "obs": {"row": np.stack([which, np.full(streams, number)], -1)},
        "action": np.eye(3)[(which + number) % 3],
        "reward": np.full(streams, 0.0 if place == 0 else number),
        "is_first": np.full(streams, place == 0),
        "terminated": (which == 0) & last,
        "truncated": (which > 0) & last,
    }


def filled(rows: int = 40, *, streams: int = 2, capacity: int = 60, **options) -> ReplayBuffer:
    replay = ReplayBuffer(
        SPACES, capacity=capacity, streams=streams, **{"batch_size": 8, "length": 5, **options}
    )
    for number in range(rows):
        replay.add(**row(number, streams))
    return replay


def shown(batch) -> np.ndarray:
    """[B, T, 2] streams and row numbers of a batch."""
    return batch.obs["row"].numpy().astype(int)


def test_every_sequence_is_what_its_stream_wrote_in_order():
    replay = filled()
    for _ in range(20):
        batch = next(replay)
        seen = shown(batch)
        assert (seen[:, 1:, 1] - seen[:, :-1, 1] == 1).all()
        assert (seen[:, :, 0] == seen[:, :1, 0]).all()
        assert seen[..., 1].min() >= 10  # 40 written, 30 kept
        stream, number = torch.from_numpy(seen).unbind(-1)
        assert torch.equal(batch.action.argmax(-1), (stream + number) % 3)
        assert torch.equal(batch.is_first, number % EPISODE == 0)
        assert torch.equal(batch.terminated, (number % EPISODE == 6) & (stream == 0))
        assert torch.equal(batch.truncated, (number % EPISODE == 6) & (stream == 1))
        assert_close(batch.reward, torch.where(batch.is_first, 0, number).float())


def test_uniform_draws_show_every_start_equally_often():
    replay = filled(batch_size=2000)
    seen = shown(next(replay))[:, 0]
    counts = np.zeros((2, 26))
    np.add.at(counts, (seen[:, 0], seen[:, 1] - 10), 1)
    expected = 2000 / 52
    assert ((counts - expected) ** 2 / expected).sum() < 90  # chi-square, 51 degrees of freedom


def test_the_newest_and_the_oldest_start_can_be_drawn():
    seen = shown(next(filled(batch_size=3000)))[:, 0, 1]
    assert {seen.min(), seen.max()} == {10, 35}


def test_fresh_sequences_come_first_and_once():
    replay = filled(rows=15, online=True, batch_size=4)
    fresh = [tuple(first) for first in shown(next(replay))[:, 0]]
    assert fresh == [(0, 0), (1, 0), (0, 5), (1, 5)]
    assert [tuple(first) for first in shown(next(replay))[:2, 0]] == [(0, 10), (1, 10)]
    assert replay.fresh.tolist() == [15, 15]


def test_fresh_sequences_that_were_overwritten_are_skipped():
    replay = filled(rows=50, online=True, batch_size=2)
    assert shown(next(replay))[:, 0, 1].tolist() == [20, 20]


def test_priorities_decide_how_often_a_sequence_is_drawn():
    replay = filled(mix=Mix(0.0, 1.0, 0.0, exponent=1.0), batch_size=400)
    batch = next(replay)
    wanted = torch.from_numpy((shown(batch)[:, 0] == [1, 20]).all(-1))
    replay.prioritise(batch.index, torch.where(wanted, 60.0, 1e-6))
    counts = (shown(next(replay))[:, 0] == [1, 20]).all(-1).mean()
    never_seen = 52 - len(np.unique(shown(batch)[:, 0], axis=0))
    assert abs(counts - 60 / (60 + never_seen)) < 0.08


def test_overwritten_rows_lose_their_priority():
    replay = filled(rows=31, mix=Mix(0.0, 1.0, 0.0))
    for number in range(31, 75):
        replay.add(**row(number, 2))
        seen = shown(next(replay))
        assert (seen[:, 1:, 1] - seen[:, :-1, 1] == 1).all()


def test_recent_sequences_are_drawn_more_often():
    replay = filled(mix=Mix(0.0, 0.0, 1.0, decay=1.0), batch_size=4000)
    age = 35 - shown(next(replay))[:, 0, 1]
    weight = 1 / np.arange(1, 27)
    assert abs((age == 0).mean() - weight[0] / weight.sum()) < 0.03


def test_a_sum_tree_finds_weights_by_their_share():
    tree = SumTree(5)
    tree.set(np.array([0, 1, 2, 3, 4]), np.array([1.0, 0.0, 2.0, 3.0, 4.0]))
    assert tree.total == 10
    share = np.array([0.0, 0.09, 0.1, 0.29, 0.3, 0.59, 0.6, 0.99])
    assert tree.find(share).tolist() == [0, 0, 2, 2, 3, 3, 4, 4]
    tree.set(np.array([4]), 0.0)
    assert tree.total == 6


def test_latents_are_written_back_where_their_rows_are_still_kept():
    spec = {"latent": ColumnSpec((2,), np.dtype(np.float16))}
    replay = ReplayBuffer(SPACES, capacity=12, batch_size=1, length=5, extras=spec)
    for number in range(12):
        replay.add(**row(number, 1), latent=np.zeros((1, 2)))
    batch = replay.gather(np.array([0]), np.array([0]))
    for number in range(12, 14):
        replay.add(**row(number, 1), latent=np.zeros((1, 2)))
    values = torch.arange(1.0, 6.0).view(1, 5, 1).expand(1, 5, 2)
    replay.write(batch.index, {"latent": values})
    kept = replay.gather(np.array([0]), np.array([2])).extras["latent"][0, :, 0]
    assert kept.tolist() == [3.0, 4.0, 5.0, 0.0, 0.0]
    newest = replay.gather(np.array([0]), np.array([9])).extras["latent"]
    assert not newest.any()  # rows 12 and 13 took the places of 0 and 1


def test_a_saved_buffer_goes_on_exactly(tmp_path):
    mix = Mix(0.4, 0.3, 0.3)
    replay = filled(mix=mix, online=True)
    replay.prioritise(next(replay).index, torch.rand(8) + 0.1)
    replay.save(tmp_path / "replay")
    other = filled(rows=0, mix=mix, online=True)
    other.load(tmp_path / "replay")
    for number in range(40, 45):
        replay.add(**row(number, 2))
        other.add(**row(number, 2))
        one, two = next(replay), next(other)
        assert torch.equal(one.index, two.index)
        assert torch.equal(one.obs["row"], two.obs["row"])


def test_a_buffer_of_another_layout_is_not_loaded(tmp_path):
    filled().save(tmp_path / "replay")
    with pytest.raises(CheckpointError, match="layout"):
        filled(capacity=80).load(tmp_path / "replay")


def test_a_truncated_file_is_named(tmp_path):
    filled().save(tmp_path / "replay")
    path = tmp_path / "replay" / "obs.row.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"obs\.row\.npy"):
        filled().load(tmp_path / "replay")


def test_a_buffer_beyond_its_memory_lies_in_files_and_says_so(tmp_path, caplog):
    mapped = filled(memory=100, folder=tmp_path / "rings")
    assert "more than" in caplog.text
    assert (tmp_path / "rings" / "obs.row.ring").stat().st_size == 60 * 2 * 4
    plain = filled()
    for _ in range(3):
        one, two = next(mapped), next(plain)
        assert torch.equal(one.index, two.index)
        assert torch.equal(one.obs["row"], two.obs["row"])


def test_its_episodes_are_a_data_set():
    replay = filled()
    data = TrajectoryDataset.from_trajectories(replay.trajectories(), SPACES)
    # Rows 10 ... 39 of each stream: 4 rows of a begun episode, three whole ones, 5 rows of the last.
    assert data.episode_lengths.tolist() == [4, 7, 7, 7, 5] * 2
    whole = data.episode(1)
    assert whole.obs["row"][:, 1].tolist() == list(range(14, 21))
    assert whole.terminated.tolist() == [False] * 5 + [True]
    assert whole.action.tolist() == [n % 3 for n in range(14, 20)]
    assert data.episode(4).truncated[-1]


def test_too_few_rows_are_said():
    with pytest.raises(DataError, match="collect more"):
        next(filled(rows=3))


def test_a_column_that_does_not_fit_is_named():
    wrong = {**row(0, 2), "reward": np.zeros(3)}
    with pytest.raises(DataError, match="reward has shape"):
        filled(rows=0).add(**wrong)


def test_a_capacity_below_one_sequence_is_refused():
    with pytest.raises(DataError, match="fewer than the 5"):
        ReplayBuffer(SPACES, capacity=8, streams=2, length=5)


def test_shares_must_add_up():
    with pytest.raises(ConfigError, match="add up"):
        Mix(0.5, 0.2, 0.2)
