"""A replay on disk and as a data set: what is saved, linked, filled from episodes and handed on."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from replay_toys import SPACES, filled, row

from wm_toolkit.data import rings
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.samplers import Mix
from wm_toolkit.errors import CheckpointError, DataError


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
