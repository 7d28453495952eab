"""What readers of other people's releases share: spaces told from arrays, and errors that say where."""

from __future__ import annotations

import contextlib
import logging
import pickle
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import h5py
import numpy as np
from gymnasium import spaces as gs

from wm_toolkit.data.checks import Problem
from wm_toolkit.data.partial import plain
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

log = logging.getLogger(__name__)

HDF5_SUFFIXES = (".h5", ".hdf5")
DAMAGE = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
)


class ForeignReader:
    """The attributes that every reader has.

    Args:
        path: the file or folder.
        metadata: JSON-ready; `name` is the file's stem unless it is given.

    Attributes:
        path: the file or folder.
        spaces: set by the reader: such releases hold no spaces, so they are told from the arrays.
        metadata: source, name, what the release says about itself, and `notes`: what is lost in reading.
        problems: what was noticed while opening.
    """

    spaces: Spaces

    def __init__(self, path: Path, **metadata: Any) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {"name": path.stem, **metadata}
        self.problems: list[Problem] = []

    @property
    def units(self) -> dict[str, str]:
        """None of these releases says units."""
        return {}

    def _note(self, column: str, message: str) -> None:
        problem = Problem(message, str(self.path), column, severity="note")
        self.problems.append(problem)
        said = f"{column} {message}" if column else message
        self.metadata.setdefault("notes", []).append(said)
        log.warning("%s", problem)


def refuse(
    path: Path, column: str, message: str, *, episode: int | None = None, row: int | None = None
) -> NoReturn:
    """Say what is wrong with a release, and where.

    Raises:
        DataError: always.
    """
    raise DataError(str(Problem(message, str(path), column, episode, row)))


def holds_columns(path: Path, names: Iterable[str]) -> bool:
    """Whether `path` is an HDF5 file with these columns; a truncated file of whatever layout has none."""
    if path.suffix not in HDF5_SUFFIXES or not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return all(name in file for name in names)
    except (OSError, RuntimeError):  # h5py raises either; the native format says what is wrong
        return False


@contextlib.contextmanager
def reading(path: Path, column: str = "", episode: int | None = None) -> Iterator[None]:
    """Turn what libraries raise on damaged files into an error that says where.

    Raises:
        DataError: naming file, column and episode.
    """
    try:
        yield
    except DataError:
        raise
    except DAMAGE as error:
        text = f"{error or type(error).__name__}. It is damaged or of another layout; copy it again"
        raise DataError(str(Problem(text, str(path), column, episode))) from error


def observation_space(shape: tuple[int, ...], dtype: np.dtype) -> gym.Space:
    """The space of one row: floats have no bounds, integers those of their type (images: 0..255).

    Raises:
        ValueError: if rows do not hold numbers.
    """
    if dtype.kind == "f":
        return gs.Box(-np.inf, np.inf, shape, dtype.type)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return gs.Box(int(bounds.min), int(bounds.max), shape, dtype.type)
    if dtype.kind == "b":
        return gs.MultiBinary(shape) if shape else gs.Discrete(2)
    raise ValueError(f"rows of {dtype} hold no numbers")


def action_range(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of every component of actions [N, *shape]; NaN if there is one.

    Raises:
        ValueError: if actions hold no numbers, or there is none.
    """
    if actions.dtype.kind not in "fiu":
        raise ValueError(f"actions of {actions.dtype} hold no numbers")
    return actions.min(0), actions.max(0)


def action_space(low: Any, high: Any, shape: tuple[int, ...], dtype: np.dtype) -> gym.Space:
    """The space of actions whose components lie between `low` and `high` [*shape] in the whole data set.

    Benchmarks normalise continuous actions to [-1, 1], so those are the bounds of a data set that
    respects them; one that does not has none. Integers are choices, as many as occur.

    Raises:
        ValueError: if there is a negative choice.
    """
    if dtype.kind == "f":
        bound = 1.0 if np.all(low >= -1) and np.all(high <= 1) else np.inf
        return gs.Box(-bound, bound, shape, dtype.type)
    if np.any(low < 0):
        raise ValueError(f"holds the choice {np.min(low)}, expected 0, 1, 2 ...")
    if shape:
        return gs.MultiDiscrete(np.asarray(high, np.int64) + 1, dtype=dtype.type)
    return gs.Discrete(int(high) + 1, dtype=dtype.type)


def readable(value: Any) -> Any:
    """What an HDF5 file says in an attribute or a small array, as JSON knows it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [readable(item) for item in value.ravel().tolist()]
    return value if isinstance(value, str) else plain(value)


def flags(values: np.ndarray, path: Path, column: str, episode: int | None = None) -> np.ndarray:
    """[N] zeros and ones of any type as booleans.

    Raises:
        DataError: naming file, column, episode and the row of the first other value.
    """
    if values.ndim != 1:
        refuse(path, column, f"has shape {values.shape}, expected one flag a row", episode=episode)
    bad = np.flatnonzero((values != 0) & (values != 1))
    if len(bad):
        row = int(bad[0])
        refuse(path, column, f"is {values[row]}, expected 0 or 1", episode=episode, row=row)
    return values.astype(bool)


def without_outcome(
    obs: Mapping[str, np.ndarray],
    action: np.ndarray,
    extras: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
    *,
    reward: np.ndarray | None = None,
) -> Trajectory:
    """An episode of as many actions as observations: nobody knows where the last action led to.

    It is dropped, so T + 1 rows are T steps; nothing is said about how they ended, so the last is
    `truncated`.

    Args:
        obs: [T + 1, ...] by key.
        action: [T + 1, ...] action[t] was taken in row t.
        extras: [T + 1, ...] by name.
        info: about the episode.
        reward: [T + 1] what action[t] earned.
    """
    steps = len(action) - 1
    kept = None if reward is None else reward[:-1]
    ends = np.arange(steps) == steps - 1
    return Trajectory(obs, action[:-1], kept, np.zeros(steps, bool), ends, extras, info)
