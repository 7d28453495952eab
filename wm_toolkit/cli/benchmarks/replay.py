"""How fast sequences are drawn from a replay."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import gymnasium as gym
import numpy as np

from wm_toolkit.cli.benchmarks import Case, benchmark
from wm_toolkit.cli.benchmarks.measure import compare
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.tables import NARROW, ColumnSpec
from wm_toolkit.spaces import Spaces

BATCH, LENGTH, STREAMS = 16, 64, 4
MANY = 40
"""Batches between two looks at the clock."""
SMALL = 2**14
"""Bytes of a sequence of a column that is small enough to stay in the processor's cache."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What a replay of the benchmark holds.

    Attributes:
        seen: the only observation; an action of 6 numbers comes with it.
        rows: more bytes of them than the processor's caches hold.
        latents: stored states, with one row more in front of a sequence to begin with; and fresh
            sequences are looked for first, as Dreamer V3 has it.
    """

    seen: gym.spaces.Box
    rows: int
    latents: Mapping[str, ColumnSpec] = dataclasses.field(default_factory=dict)


LATENTS = {
    "deter": ColumnSpec((512,), np.dtype(np.float16)),
    "stoch": ColumnSpec((32,), np.dtype(np.uint8)),
}
"""Of `dreamer_v3.size1m`."""
CONTENTS = {
    "images 64x64x3": Content(gym.spaces.Box(0, 255, (64, 64, 3), np.uint8), 20_000),
    "vectors of 1000": Content(gym.spaces.Box(-1.0, 1.0, (1000,), np.float32), 40_000),
    "vectors of 24": Content(gym.spaces.Box(-1.0, 1.0, (24,), np.float32), 100_000),
    "vectors of 24 with the latents of Dreamer V3 size1m": Content(
        gym.spaces.Box(-1.0, 1.0, (24,), np.float32), 100_000, LATENTS
    ),
}


@benchmark("replay")
def run(quick: bool) -> Iterator[Case]:
    """Batches of 16 sequences of 64 rows from a replay, beside a plain copy of as many bytes."""
    for name, content in CONTENTS.items():
        replay = full(content)
        works = {"ours": partial(next, replay), "far": far_copy(replay), "near": near_copy(replay)}
        many = {key: partial(_repeat, work) for key, work in works.items()}
        taken = compare(many, 3 if quick else 25)
        ours, far, near = (spent.times(1e6 / MANY) for spent in taken.values())
        yield Case(
            f"{BATCH} x {LENGTH} rows of {name}",
            "CPU us",
            ours.cpu,
            far.cpu,
            wall=ours.wall,
            note=f"{ours.cpu / far.cpu:.2f} times the floor; {near.cpu:.0f} us from the processor's cache",
        )


def full(content: Content) -> ReplayBuffer:
    """A replay that has been written round once and a third; nothing in it is fresh."""
    replay = ReplayBuffer(
        Spaces({"seen": content.seen}, gym.spaces.Box(-1.0, 1.0, (6,), np.float32)),
        capacity=content.rows,
        streams=STREAMS,
        batch_size=BATCH,
        length=LENGTH,
        context=1 if content.latents else 0,
        online=bool(content.latents),
        extras=content.latents,
    )
    for column in replay.rings.columns.values():
        column[:] = 1
    replay.rings.written = content.rows // STREAMS * 4 // 3
    replay.fresh[:] = replay.rings.written
    return replay


def far_copy(replay: ReplayBuffer) -> Callable[[], None]:
    """Copies the bytes of so many sequences, wherever in a long line of rows they lie."""
    rng, length = np.random.default_rng(0), replay.span
    works = [_copying(len(replay), n * length, n) for n in _row_bytes(replay)]
    most = len(replay) - length

    def copy() -> None:
        starts = rng.integers(most, size=BATCH)
        for work in works:
            work(starts)

    return copy


def _row_bytes(replay: ReplayBuffer) -> list[int]:
    """Bytes of a row of all narrow columns together, and of each wide one."""
    sizes = [spec.nbytes for spec in replay.rings.specs.values()]
    narrow = sum(size for size in sizes if size < NARROW)
    return [narrow, *(size for size in sizes if size >= NARROW)]


def _copying(rows: int, many: int, step: int) -> Callable[[np.ndarray], object]:
    """A copy of `many` bytes from each of the rows it is given, which are `step` bytes long."""
    line = np.ones(rows * step, np.uint8)
    if many < SMALL:  # a call for each sequence would cost more than the bytes
        every = np.ndarray((rows - many // step + 1,), f"V{many}", line, strides=(step,))
        return every.__getitem__

    targets = np.ones((BATCH, many), np.uint8)

    def copy(starts: np.ndarray) -> None:
        for row, start in enumerate(starts.tolist()):
            targets[row] = line[start * step : start * step + many]

    return copy


def near_copy(replay: ReplayBuffer) -> Callable[[], None]:
    """Copies the same bytes again and again, in one call for each column."""
    columns = replay.rings.columns.values()
    rows = [np.ones((BATCH, replay.span, *c.shape[2:]), c.dtype) for c in columns]
    copies = [row.copy() for row in rows]

    def copy() -> None:
        for row, target in zip(rows, copies, strict=True):
            np.copyto(target, row)

    return copy


def _repeat(work: Callable[[], object]) -> None:
    for _ in range(MANY):
        work()
