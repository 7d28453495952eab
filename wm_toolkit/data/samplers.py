"""Which sequences a replay buffer shows: uniformly, by priority, or the recent ones more often."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from wm_toolkit.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Mix:
    """Shares of the three ways to choose; they add up to 1.

    Attributes:
        uniform: every start equally often.
        priority: proportional to priority ** exponent.
        recency: proportional to 1 / age ** decay, age 1 being the newest start.
        exponent: of priorities.
        decay: of age.
        ends: a sequence that would run across an episode's end is moved back to finish with it, so that
            ends come up as often as a whole sequence of other rows (Dreamer V2's code on Atari).
    """

    uniform: float = 1.0
    priority: float = 0.0
    recency: float = 0.0
    exponent: float = 0.8
    decay: float = 1.0
    ends: bool = False

    def __post_init__(self) -> None:
        shares = (self.uniform, self.priority, self.recency)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ConfigError(f"shares {shares} of uniform, priority and recency must add up to 1")


class SumTree:
    """Weights in which one is found by its share of the total, in logarithmic time.

    Args:
        size: number of weights, all 0 at first.
    """

    def __init__(self, size: int) -> None:
        self.size, self.leaves = size, 1 << max(0, size - 1).bit_length()
        self.nodes = np.zeros(2 * self.leaves)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self.nodes[1])

    def set(self, index: np.ndarray, weight: np.ndarray | float) -> None:
        """Give weights [n] new values; of repeated indices the last counts."""
        node = np.atleast_1d(index) + self.leaves
        self.nodes[node] = weight
        node = np.unique(node >> 1)
        while node[0] > 0:
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]
            node = np.unique(node >> 1)

    @property
    def weights(self) -> np.ndarray:
        """All of them [size]."""
        return self.nodes[self.leaves : self.leaves + self.size]

    @weights.setter
    def weights(self, values: np.ndarray) -> None:
        self.set(np.arange(self.size), values)

    def get(self, index: np.ndarray) -> np.ndarray:
        """Weights [n]."""
        return self.nodes[index + self.leaves]

    def find(self, share: np.ndarray) -> np.ndarray:
        """Indices [n] of the weights that hold these shares [n], in [0, 1), of the total."""
        target = share * self.total
        node = np.ones(len(share), np.int64)
        while node[0] < self.leaves:
            left = self.nodes[2 * node]
            right = target >= left
            target = np.where(right, target - left, target)
            node = 2 * node + right
        return node - self.leaves


def recent(rng: np.random.Generator, count: int, starts: int, decay: float) -> np.ndarray:
    """Ages [count] in 0 .. starts - 1, drawn with weight 1 / (age + 1) ** decay."""
    weight = np.cumsum(np.arange(1, starts + 1, dtype=np.float64) ** -decay)
    return np.searchsorted(weight, rng.random(count) * weight[-1], side="right")


def places(
    rng: np.random.Generator, count: int, streams: int, starts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chances [count] for `unit`, streams [count] below `streams`, starts [count] below `starts`, all as likely.

    They are what `rng.random` and `rng.integers` would give, for a fifth of their time: random numbers of 32
    bits, scaled down (Lemire 2019, https://arxiv.org/abs/1805.10941) in double precision, which is exact below
    2**21. His test for the one number in 2**32 / starts that makes all equally likely to the last digit is
    left out.

    Args:
        rng: of PCG64.
        count: of each.
        streams: N.
        starts: of every stream, below 2**32.
    """
    kinds = 1 if streams == 1 else 2  # for one stream alone numpy draws nothing
    if starts == 1 or kinds * count % 2:
        raw = rng.bit_generator.random_raw(count)
        return raw, rng.integers(streams, size=count), rng.integers(starts, size=count)
    raw = rng.bit_generator.random_raw(count + kinds * count // 2)
    drawn = (raw[count:].view(np.uint32) * _scale(count, streams, starts)).astype(np.int64)
    stream = drawn[:count] if kinds == 2 else np.zeros(count, np.int64)
    return raw[:count], stream, drawn[-count:]


def unit(raw: np.ndarray) -> np.ndarray:
    """[n] numbers in [0, 1) from 64 random bits each, as `Generator.random` makes them."""
    return (raw >> np.uint64(11)) * 2.0**-53


@functools.lru_cache(maxsize=16)
def _scale(count: int, streams: int, starts: int) -> np.ndarray:
    """What numbers below 2**32 are multiplied by: those that choose streams, if there are any, and starts."""
    both = [streams, starts] if streams > 1 else [starts]
    return np.repeat(np.array(both) / 2**32, count)
