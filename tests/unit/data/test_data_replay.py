"""The replay buffer against a plain list of rows: what is drawn, corrected, kept and handed on."""

from __future__ import annotations

import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from wm_toolkit.data import rings, tables
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.samplers import Mix, SumTree
from wm_toolkit.data.tables import ColumnSpec
from wm_toolkit.errors import CheckpointError, ConfigError, DataError
from wm_toolkit.spaces import Spaces

SPACES = Spaces(
    {"row": gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)},
    gym.spaces.Discrete(3),
)
EPISODE = 7
HALF = ColumnSpec((3, 1), np.dtype(np.float16))


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
    extras = options.get("extras") or {}
    for number in range(rows):
        more = {
            n: np.full((streams, *spec.shape), number, spec.dtype) for n, spec in extras.items()
        }
        replay.add(**row(number, streams), **more)
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
    path = tmp_path / "replay" / "obs.row.00000.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"obs\.row\.00000\.npy"):
        filled().load(tmp_path / "replay")


def test_a_buffer_beyond_its_memory_lies_in_files_and_says_so(tmp_path, caplog):
    mapped = filled(memory=100, folder=tmp_path / "rings")
    assert "more than" in caplog.text
    # Observation, action, reward and flags side by side, aligned to 4 bytes.
    row = 2 * 4 + 3 * 4 + 4 + 3
    assert (tmp_path / "rings" / "_narrow.ring").stat().st_size == 60 * (row + 1)
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


def episodes(lengths: list[int]) -> list[dict[str, np.ndarray]]:
    """Recorded episodes whose rows are numbered through."""
    starts = np.cumsum([0, *lengths])
    found = []
    for number, length in enumerate(lengths):
        at = np.arange(length)
        found.append(
            {
                "obs/row": np.stack([np.full(length, number), starts[number] + at], -1),
                "action": (starts[number] + at) % 3,
                "reward": np.where(at == 0, 0.0, starts[number] + at),
                "terminated": (at == length - 1) & (number % 2 == 0),
                "truncated": (at == length - 1) & (number % 2 == 1),
            }
        )
    return found


@pytest.mark.parametrize(
    ("lengths", "streams", "capacity"),
    [
        ([5, 9, 4], 1, 100),
        ([5, 9, 4], 2, 100),
        ([5, 9, 4, 30], 3, 30),
        ([50], 2, 20),
        ([7, 6], 2, 60),
    ],
)
def test_recorded_episodes_fill_the_streams_in_order_newest_kept(lengths, streams, capacity):
    replay = filled(rows=0, streams=streams, capacity=capacity, length=3)
    replay.fill(episodes(lengths), sum(lengths))
    rows = {name: column[:, : len(replay.rings)] for name, column in replay.rings.columns.items()}
    share = min(sum(lengths) // streams, capacity // streams)
    number = rows["obs/row"][..., 1].astype(int)
    line = np.arange(sum(lengths) - share * streams, sum(lengths))
    assert np.array_equal(number.ravel(), line)
    starts, ends = np.cumsum([0, *lengths[:-1]]), np.cumsum(lengths) - 1
    begins = np.isin(number, starts)
    begins[:, 0] = True
    assert np.array_equal(rows["is_first"], begins)
    terminal = np.isin(number, ends[::2])
    cut = np.isin(number, ends[1::2])
    cut[:, -1] |= ~terminal[:, -1]
    assert np.array_equal(rows["terminated"], terminal)
    assert np.array_equal(rows["truncated"], cut)
    last = np.isin(number, ends)
    assert np.array_equal(rows["action"].argmax(-1)[~last], (number % 3)[~last])
    assert not rows["action"][last].any()
    assert np.array_equal(rows["reward"], np.where(np.isin(number, starts), 0, number))


def test_a_buffer_opens_from_the_data_set_it_saved_itself_as():
    replay = filled()
    data = TrajectoryDataset.from_trajectories(replay.trajectories(), SPACES)
    other = filled(rows=0)
    other.fill((data.rows(number) for number in range(len(data))), data.num_rows)
    for name in ("obs/row", "terminated", "truncated", "reward"):
        kept = replay.rings.read(name, np.arange(2), np.arange(10, 40)[None].repeat(2, 0))
        found = other.rings.columns[name][:, :30]
        if name == "truncated":  # what still ran, and what lost its beginning, counts as cut
            found, kept = found[:, :-1], kept[:, :-1]
        if name == "reward":  # what arrived with the first row of a begun episode is not known
            found, kept = found[:, 1:], kept[:, 1:]
        assert np.array_equal(found, kept)


def test_filled_rows_count_neither_as_fresh_nor_as_unlikely():
    replay = filled(rows=0, online=True, mix=Mix(0.0, 1.0, 0.0))
    replay.fill(episodes([20, 20]), 40)
    assert not len(replay._online()[0])
    assert replay.tree is not None
    assert replay.tree.total == 2 * replay.starts
    with pytest.raises(DataError, match="only an empty buffer"):
        replay.fill(episodes([4]), 4)


def test_episodes_without_rewards_are_refused():
    (bare,) = episodes([9])
    del bare["reward"]
    with pytest.raises(DataError, match="lack reward"):
        filled(rows=0).fill([bare], 9)


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


def test_what_did_not_change_is_linked_from_the_last_save_and_the_rest_written(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(rings, "PIECE", 2 * 10 * 8)  # pieces of 10 rows of the observation
    replay = filled(rows=25)
    replay.save(tmp_path / "one")
    for number in range(25, 28):
        replay.add(**row(number, 2))
    replay.save(tmp_path / "two", tmp_path / "one")
    names = [f"obs.row.{piece:05d}.npy" for piece in range(3)]
    inodes = [[(tmp_path / run / n).stat().st_ino for n in names] for run in ("one", "two")]
    assert [a == b for a, b in zip(*inodes, strict=True)] == [True, True, False]
    for folder, count in (("one", 25), ("two", 28)):
        again = filled(rows=0)
        again.load(tmp_path / folder)
        assert again.rings.written == count
        expected = filled(rows=count).rings.columns
        assert all(np.array_equal(again.rings.columns[n], expected[n]) for n in expected)
    again.rings.write("reward", np.array([0]), np.array([3]), np.array([[99.0]]))
    again.save(tmp_path / "three", tmp_path / "two")
    third = filled(rows=0)
    third.load(tmp_path / "three")
    assert third.rings.columns["reward"][0, 3] == 99.0
    second = filled(rows=0)
    second.load(tmp_path / "two")
    assert second.rings.columns["reward"][0, 3] == 3.0


def test_a_folder_of_another_save_is_not_linked_from(tmp_path):
    one, other = filled(), filled(rows=33)
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    other.save(tmp_path / "again", tmp_path / "one")
    found = filled(rows=0)
    found.load(tmp_path / "again")
    assert found.rings.written == 33
    assert np.array_equal(found.rings.columns["reward"], other.rings.columns["reward"])


def test_where_nothing_can_be_linked_everything_is_copied(tmp_path, monkeypatch):
    replay = filled()
    replay.save(tmp_path / "one")

    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(rings.os, "link", refuse)
    replay.save(tmp_path / "two", tmp_path / "one")
    found = filled(rows=0)
    found.load(tmp_path / "two")
    assert np.array_equal(found.rings.columns["reward"], replay.rings.columns["reward"])


def free_bytes(monkeypatch, free):
    """Let every disk have so many."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(rings.shutil, "disk_usage", lambda path: usage._replace(free=free))


def test_a_disk_that_fills_up_is_said_before_the_start_and_again_before_it_is_full(
    tmp_path, monkeypatch, caplog
):
    much = {"memory": 100, "folder": tmp_path / "rings", "capacity": 10**9}
    free_bytes(monkeypatch, rings.RESERVE + 28 * 10**8)
    replay = filled(**much, rows=40, copies=2)
    assert "1,000,000,000 rows of replay take 52.2" in caplog.text
    assert "after some 51,19" in caplog.text, "each row lies there twice"
    free_bytes(monkeypatch, rings.RESERVE - 1)
    replay.rings.written = 2 * rings.PIECE // 56  # where it looks again
    with pytest.raises(DataError, match=r"has 64 MiB left.*behind the 1,198,372 that were written"):
        replay.add(**row(0, 2))
    with pytest.raises(DataError, match="too little for 40 more rows behind the 0"):
        filled(**much, rows=0).fill(iter(()), 40)


def test_a_disk_needs_room_for_the_rows_that_will_be_written_and_no_more(
    tmp_path, monkeypatch, caplog
):
    free_bytes(monkeypatch, rings.RESERVE + rings.PIECE)
    much = {"memory": 100, "folder": tmp_path / "rings", "capacity": 10**9}
    replay = filled(**much, expected=100, rows=40)
    file = tmp_path / "rings" / "_narrow.ring"
    assert file.stat().st_size == 28 * 10**9
    assert file.stat().st_blocks * 512 < 10**6, "a file of holes"
    assert replay.rings.columns["obs/row"][1, 39].tolist() == [1, 39]
    assert "rows of replay take" not in caplog.text
    filled(**much, expected=10**7, rows=0)
    assert "10,000,000 rows of replay take" in caplog.text


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
