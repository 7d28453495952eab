"""Rings of rows against plain arrays in which every row ever written still lies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wm_toolkit.data import rings, tables
from wm_toolkit.data.rings import Rings
from wm_toolkit.data.tables import ColumnSpec

STREAMS, SIZE = 2, 9
SPECS = {
    "vector": ColumnSpec((3,), np.dtype(np.float32)),
    "flag": ColumnSpec((), np.dtype(bool)),
    "nothing": ColumnSpec((0,), np.dtype(np.float32)),
    "wide": ColumnSpec((100,), np.dtype(np.int16)),
}


def written(rows: int) -> Rings:
    """Row t of stream n holds 100 n + t three times, and whether t is odd."""
    made = Rings(SPECS, streams=STREAMS, size=SIZE)
    for t in range(rows):
        vector = np.broadcast_to(100 * np.arange(STREAMS)[:, None] + t, (STREAMS, 3))
        made.add(
            {
                "vector": vector,
                "flag": np.full(STREAMS, t % 2 == 1),
                "nothing": np.zeros((STREAMS, 0)),
                "wide": np.full((STREAMS, 100), t),
            }
        )
    return made


@given(data=st.data(), rows=st.integers(1, 30), length=st.integers(1, SIZE))
def test_corrected_rows_are_those_that_are_still_kept_and_the_last_of_a_batch_counts(
    data, rows, length
):
    made = written(rows)
    count = data.draw(st.integers(0, 4))
    stream = np.array(
        data.draw(st.lists(st.integers(0, STREAMS - 1), min_size=count, max_size=count)), int
    )
    starts = st.integers(max(0, rows - 2 * SIZE), rows)
    start = np.array(data.draw(st.lists(starts, min_size=count, max_size=count)), int)
    values = -1.0 - np.arange(count * length * 3, dtype=np.float64).reshape(count, length, 3)
    made.write("vector", stream, start, values)

    line = np.zeros((STREAMS, rows + length, 3))  # every row ever written, and some that never were
    line[:, :rows] = (100 * np.arange(STREAMS)[:, None] + np.arange(rows))[..., None]
    for n, first, new in zip(stream, start, values, strict=True):
        line[n, first : first + length] = new
    number = np.arange(made.oldest, rows)[None].repeat(STREAMS, 0)
    found = made.read("vector", np.arange(STREAMS), number)
    assert np.array_equal(found, line[:, made.oldest : rows])
    assert np.array_equal(made.read("flag", np.arange(STREAMS), number), number % 2 == 1)


@given(data=st.data(), rows=st.integers(SIZE, 30), large=st.booleans())
def test_sequences_of_any_length_are_cut_from_where_they_lie(data, rows, large):
    made = written(rows)
    length = data.draw(st.integers(1, SIZE))
    starts = st.integers(made.oldest, rows - length)
    start = np.array(data.draw(st.lists(starts, max_size=5)), int)
    stream = np.arange(len(start)) % STREAMS
    least = tables.LEAST
    tables.LEAST = 0 if large else least
    try:
        found = made.sequences(stream, start, length)
    finally:
        tables.LEAST = least
    number = start[:, None] + np.arange(length)
    vector = np.broadcast_to((100 * stream[:, None] + number)[..., None], (len(start), length, 3))
    assert np.array_equal(found["vector"], vector)
    assert np.array_equal(found["flag"], number % 2 == 1)
    assert np.array_equal(found["wide"], number[..., None].repeat(100, 2))
    assert found["nothing"].shape == (len(start), length, 0)
    assert {name: rows.dtype for name, rows in found.items()} == {
        name: spec.dtype for name, spec in SPECS.items()
    }


def test_every_file_that_a_correction_across_the_end_of_the_ring_touches_is_written_anew(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(rings, "PIECE", STREAMS * 12 * 3)  # three rows of the vector in a file
    made = written(12)  # row 9 lies in front, where row 0 lay
    made.save(tmp_path / "one", {})
    made.write("vector", np.array([1]), np.array([8]), np.full((1, 2, 3), -5.0))
    made.save(tmp_path / "two", {}, tmp_path / "one")
    inodes = [
        [(tmp_path / run / f"vector.{piece:05d}.npy").stat().st_ino for piece in range(3)]
        for run in ("one", "two")
    ]
    assert [a == b for a, b in zip(*inodes, strict=True)] == [False, True, False]
    again = Rings(SPECS, streams=STREAMS, size=SIZE)
    again.load(tmp_path / "two")
    assert again.columns["vector"][1, :, 0].tolist() == [-5, 110, 111, 103, 104, 105, 106, 107, -5]
