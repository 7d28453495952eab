"""The replay buffer against a plain list of rows: what is drawn, in which order, and corrected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from replay_toys import EPISODE, HALF, SPACES, filled, row, shown
from torch.testing import assert_close

from wm_toolkit.batch import Batch
from wm_toolkit.data import tables
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.samplers import Mix, SumTree
from wm_toolkit.data.tables import ColumnSpec
from wm_toolkit.errors import ConfigError, DataError


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


@pytest.mark.parametrize("rows", [17, 30, 44])
@pytest.mark.parametrize("least", [1, 2**16])
def test_whole_sequences_are_the_rows_that_are_read_one_by_one(rows, least, monkeypatch):
    monkeypatch.setattr(tables, "LEAST", least)  # bytes from which on sequences count as large
    replay = filled(rows=rows, streams=3, capacity=90, length=6, extras={"half": HALF})
    streams, starts = np.arange(3), np.arange(replay.rings.oldest, rows - 6 + 1)
    stream, start = (grid.ravel() for grid in np.meshgrid(streams, starts))
    whole = replay.rings.sequences(stream, start, 6)
    assert whole.keys() == replay.rings.specs.keys()
    for name, found in whole.items():
        expected = replay.rings.read(name, stream, start[:, None] + np.arange(6))
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    whole["obs/row"][:] = 0  # a copy: the buffer keeps what it has
    assert (replay.rings.read("obs/row", stream, start[:, None])[..., 1] > 0).any()


def test_a_batch_that_is_still_held_is_not_written_over(monkeypatch):
    monkeypatch.setattr(tables, "LEAST", 1)
    replay = filled(batch_size=3)
    held = [next(replay) for _ in range(5)]
    before = [batch.obs["row"].clone() for batch in held]
    parts = [batch.obs["row"][1] for batch in held]
    indices = [batch.index for batch in held]
    del held
    for _ in range(5):
        next(replay)
    assert all(torch.equal(part, whole[1]) for part, whole in zip(parts, before, strict=True))
    assert len({tuple(index.tolist()) for index in indices}) == 5


@pytest.mark.parametrize("streams", [1, 2, 3])
@pytest.mark.parametrize("starts", [1, 26])
def test_draws_are_the_generators_numbers_one_kind_after_the_other(streams, starts):
    """What a seed shows is kept from version to version, and a saved run goes on with it."""
    replay = filled(seed=7, streams=streams, capacity=(starts + 4) * streams)
    rng = np.random.default_rng(7)
    for _ in range(5):
        rng.random(8)  # which way of choosing; there is but one
        stream, ahead = rng.integers(streams, size=8), rng.integers(starts, size=8)
        assert (
            next(replay).index.tolist()
            == ((replay.rings.oldest + ahead) * streams + stream).tolist()
        )
    assert replay.rng.random() == rng.random()


def test_what_is_drawn_has_every_field_and_would_pass_the_checks_of_a_batch():
    drawn = next(filled())
    again = Batch(**vars(drawn))
    assert vars(drawn).keys() == vars(again).keys() == {f.name for f in dataclasses.fields(Batch)}
    assert all(torch.equal(*pair) for pair in zip(drawn.leaves(), again.leaves(), strict=True))


def test_uniform_draws_show_every_start_equally_often():
    replay = filled(batch_size=2000)
    seen = shown(next(replay))[:, 0]
    counts = np.zeros((2, 26))
    np.add.at(counts, (seen[:, 0], seen[:, 1] - 10), 1)
    expected = 2000 / 52
    assert ((counts - expected) ** 2 / expected).sum() < 90  # chi-square, 51 degrees of freedom


@pytest.mark.parametrize("context", [0, 1])
def test_sequences_that_would_run_across_an_end_finish_with_it_on_demand(context):
    replay = filled(rows=44, batch_size=4000, context=context, mix=Mix(ends=True))
    seen = shown(next(replay))[:, context:, 1] % EPISODE
    # Of the 7 rows where a sequence of 5 may begin, 3 let it end within its episode, the last of them
    # with it; the 4 that would run on are moved back there.
    first = seen[:, 0]
    assert set(first.tolist()) == {0, 1, 2}
    share = (first == 2).mean()
    assert abs(share - 5 / 7) < 0.04
    assert (seen[first == 2, -1] == EPISODE - 1).all()


def test_an_episode_shorter_than_a_sequence_ends_it_too():
    replay = filled(batch_size=500, length=10, mix=Mix(ends=True))
    batch = next(replay)
    begins = batch.is_first[:, 1:].int()
    place = shown(batch)[:, -1, 1] % EPISODE
    moved = shown(batch)[:, 0, 1] > replay.rings.oldest
    assert (place[moved] == EPISODE - 1).all()
    assert (begins.sum(1) >= 1).all()


def test_the_newest_and_the_oldest_start_can_be_drawn():
    seen = shown(next(filled(batch_size=3000)))[:, 0, 1]
    assert {seen.min(), seen.max()} == {10, 35}


def test_fresh_sequences_come_first_and_once():
    replay = filled(rows=15, online=True, batch_size=4)
    fresh = [tuple(first) for first in shown(next(replay))[:, 0]]
    assert fresh == [(0, 0), (1, 0), (0, 5), (1, 5)]
    assert [tuple(first) for first in shown(next(replay))[:2, 0]] == [(0, 10), (1, 10)]
    assert replay.fresh.tolist() == [15, 15]


def test_fresh_sequences_beyond_a_batch_come_with_the_next_one():
    replay = filled(rows=7, streams=3, capacity=90, online=True, batch_size=2)
    assert [tuple(first) for first in shown(next(replay))[:, 0]] == [(0, 0), (1, 0)]
    assert replay.fresh.tolist() == [5, 5, 0]
    assert tuple(shown(next(replay))[0, 0]) == (2, 0)
    before = replay.rng.bit_generator.state
    batch = next(replay)
    replay.rng.bit_generator.state = before
    assert torch.equal(next(replay).index, batch.index), "nothing is fresh any more, all are drawn"


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


@pytest.mark.parametrize("mix", [Mix(0.0, 1.0, 0.0), Mix(0.5, 0.5, 0.0), Mix(0.3, 0.4, 0.3)])
def test_overwritten_rows_lose_their_priority(mix):
    replay = filled(rows=31, mix=mix)
    oldest = 0
    for number in range(31, 150):
        replay.add(**row(number, 2))
        batch = next(replay)
        seen = shown(batch)
        assert (seen[:, 1:, 1] - seen[:, :-1, 1] == 1).all()
        oldest += (seen[:, 0, 1] == replay.rings.oldest).sum()
        replay.prioritise(batch.index, torch.full((8,), 5.0))
    assert oldest > 0


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


def test_latents_of_another_length_are_refused():
    replay = filled(context=1, extras={"half": HALF})
    index = next(replay).index
    with pytest.raises(DataError, match=r"half has shape \(8, 6, 3, 1\), expected \(8, 5, 3, 1\)"):
        replay.write(index, {"half": torch.zeros(8, 6, 3, 1)})


def test_a_sequence_comes_with_the_rows_before_it_and_only_its_own_are_corrected():
    spec = {"latent": ColumnSpec((), np.dtype(np.float32))}
    replay = ReplayBuffer(SPACES, capacity=40, batch_size=3, length=5, context=1, extras=spec)
    for number in range(20):
        replay.add(**row(number, 1), latent=np.full(1, number))
    assert replay.starts == 15
    batch = next(replay)
    assert batch.action.shape == (3, 6, 3)
    assert torch.equal(batch.extras["latent"], batch.obs["row"][..., 1])
    one = replay.gather(np.array([0]), np.array([7]))
    replay.write(one.index, {"latent": -torch.ones(1, 5)})
    found = replay.gather(np.array([0]), np.array([7])).extras["latent"][0]
    assert found.tolist() == [7.0, -1.0, -1.0, -1.0, -1.0, -1.0]


def test_fresh_sequences_with_context_show_every_row_once_as_their_own():
    replay = filled(rows=21, streams=1, capacity=60, context=1, online=True, batch_size=4)
    own = shown(next(replay))[:, 1:, 1]
    assert own.ravel().tolist() == list(range(1, 21))


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
