"""Helpers that single and vector environments share: options, seeds, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from wm_toolkit.errors import ConfigError, did_you_mean


def check_options(options: Mapping[str, Any] | None, known: Sequence[str]) -> Mapping[str, Any]:
    """The options of a reset, refused if one is unknown.

    Raises:
        ConfigError: with close matches.
    """
    for key in options or {}:
        if key not in known:
            raise ConfigError(f"unknown reset option {key!r}.{did_you_mean(key, known)}")
    return options or {}


def row_seeds(seed: int | Sequence[int | None] | None, rows: int) -> list[int | None]:
    """One seed per row: seed + i for an int, as given for a sequence, None for None.

    Raises:
        ConfigError: if a sequence has another length.
    """
    if seed is None:
        return [None] * rows
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + row for row in range(rows)]
    if len(seed) != rows:
        raise ConfigError(f"{len(seed)} seeds for {rows} rows; give one each, or one int")
    return list(seed)


def row_generators(
    seed: int | Sequence[int | None] | None,
    rows: int,
    known: Sequence[np.random.Generator] | None = None,
) -> list[np.random.Generator]:
    """One generator per row, seeded as `gymnasium.Env.reset(seed=...)` does; unseeded rows keep theirs."""
    return [
        known[row] if one is None and known is not None else np_random(one)[0]
        for row, one in enumerate(row_seeds(seed, rows))
    ]


def pop_reset_mask(options: dict[str, Any], rows: int) -> NDArray[np.bool_]:
    """[rows] which rows a reset means: `options["reset_mask"]`, taken out, or all of them.

    Raises:
        ConfigError: if the mask is not a bool array [rows] with a true entry.
    """
    mask = options.pop("reset_mask", None)
    if mask is None:
        return np.ones(rows, bool)
    mask = np.asarray(mask)
    if mask.shape != (rows,) or mask.dtype != np.bool_ or not mask.any():
        raise ConfigError(
            f"reset_mask has shape {mask.shape}, dtype {mask.dtype}; expected bool ({rows},) with at "
            "least one true entry"
        )
    return mask


def over(terminated: Any, truncated: Any) -> Any:
    """[...] whether an episode must be followed by a reset, for whichever reason.

    For bookkeeping only: what the reason was decides about values, so both are handed on as they are.
    """
    return np.logical_or(terminated, truncated)


def put_rows(space: gym.Space, mask: NDArray[np.bool_], new: Any, old: Any) -> Any:
    """Batched observations with the rows `mask` from `new` and the others from `old`."""
    if isinstance(space, gym.spaces.Dict):
        return {key: put_rows(child, mask, new[key], old[key]) for key, child in space.items()}
    merged = np.array(old)
    merged[mask] = np.asarray(new)[mask]
    return merged


def feature_space(width: int) -> gym.spaces.Box:
    """The space of a model's features [width]: any float32.

    The bounds are the largest finite numbers, because the checkers warn about infinite ones.
    """
    limit = np.finfo(np.float32).max
    return gym.spaces.Box(-limit, limit, (width,), np.float32)


class Shared:
    """An argument of an environment that is shared, never copied, when Gymnasium copies its records."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: Any) -> Shared:
        return self

    def __repr__(self) -> str:
        return f"Shared({type(self.value).__name__})"


def share(value: Any) -> Any:
    """The value as it is if it is plain, else wrapped in `Shared`."""
    plain = value is None or isinstance(value, (str, int, float, bool, Shared))
    return value if plain else Shared(value)


def unshare(value: Any) -> Any:
    """The value inside a `Shared`, or the value itself."""
    return value.value if isinstance(value, Shared) else value
