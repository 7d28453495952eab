"""A small replay whose rows say which they are."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.tables import ColumnSpec
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
