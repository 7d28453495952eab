"""Episode folders of Dreamer V1 and V2 and their PyTorch ports: one NPZ file an episode (read only).

Row t of such a file holds observation t with the action and reward that LED TO it, so there are T + 1
rows, and row 0 holds a filler action (zeros) and reward. A `Trajectory` keeps the action beside the
observation it was taken in: action[t] here is action[t + 1] there.

How an episode ended: `is_terminal`, or a `discount` of 0, is `terminated`; any other end is `truncated`.
A one-hot action stays the vector of numbers that the file holds. Columns named `log...` were not seen
by the agent and become extras, as does `discount`; every other column is an observation.

Replay chunks of the official DreamerV3 hold parts of episodes, with the action taken IN each row; they
are refused.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np

from wm_toolkit.data.foreign import (
    ForeignReader,
    action_range,
    action_space,
    flags,
    observation_space,
    reading,
    refuse,
)
from wm_toolkit.data.formats import FORMATS, read_only
from wm_toolkit.data.npz import NpzFile
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.spaces import Spaces

ENDINGS = ("is_first", "is_last", "is_terminal", "discount")
CHUNK = "stepid"  # only DreamerV3's replay has it


class DreamerReader(ForeignReader):
    """A folder of Dreamer episodes, in the order of their names (which begin with the time).

    Args:
        path: the folder.

    Raises:
        DataError: naming the file that cannot be read, or whose actions are not shifted as Dreamer's.

    Example:
        >>> [len(episode) for episode in DreamerReader(Path("logdir/train_eps")).episodes()]
        [500, 500]
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, source="Dreamer episode folder")
        self._files = sorted(path.glob("*.npz"))
        with NpzFile(self._files[0]) as first:
            obs = {name: _row_space(first, name) for name in first.names if _observed(name)}
            shape, dtype = first.header("action")
        low, high = self._action_range()
        with reading(path, "action"):
            self.spaces = Spaces(obs, action_space(low, high, shape[1:], dtype))

    def __len__(self) -> int:
        return len(self._files)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming file, column, episode and row.
        """
        for i, path in enumerate(self._files[start:], start):
            with NpzFile(path) as file:
                columns = {name: file.read(name) for name in file.names}
            yield _trajectory(columns, path, i)

    def _action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest value of every component in the folder; the frames are not read."""
        lows, highs = [], []
        for path in self._files:
            with reading(path, "action"), NpzFile(path) as file:
                low, high = action_range(file.read("action"))
                lows.append(low)
                highs.append(high)
        with reading(self.path, "action"):
            return np.min(lows, 0), np.max(highs, 0)


def _trajectory(columns: dict[str, np.ndarray], path: Path, episode: int) -> Trajectory:
    _check(columns, path, episode)
    terminated = _terminated(columns, path, episode)
    truncated = np.zeros_like(terminated)
    if "is_last" in columns:
        truncated |= flags(columns["is_last"], path, "is_last", episode)[1:] & ~terminated
    truncated[-1] = not terminated[-1]
    return Trajectory(
        {name: columns[name] for name in columns if _observed(name)},
        columns["action"][1:],
        columns["reward"][1:],
        terminated,
        truncated,
        {name: columns[name] for name in columns if _extra(name)},
        {"file": path.name},
    )


def _terminated(columns: dict[str, np.ndarray], path: Path, episode: int) -> np.ndarray:
    """[T] whether the task ended; V1 says it with a discount of 0 only."""
    if "is_terminal" in columns:
        return flags(columns["is_terminal"], path, "is_terminal", episode)[1:]
    if "discount" in columns:
        return columns["discount"][1:] == 0
    return refuse(path, "is_terminal", "is missing, and so is 'discount'", episode=episode)


def _check(columns: dict[str, np.ndarray], path: Path, episode: int) -> None:
    for name in ("action", "reward"):
        if name not in columns:
            refuse(path, name, f"is missing; there are {sorted(columns)}", episode=episode)
    if CHUNK in columns:
        refuse(path, CHUNK, "marks a replay chunk of DreamerV3, which is no whole episode")
    rows = len(columns["action"])
    for name, values in columns.items():
        if values.ndim == 0 or len(values) != rows:
            refuse(path, name, f"has shape {values.shape}, expected {rows} rows", episode=episode)
    if rows < 2:
        refuse(path, "action", f"has {rows} rows, expected at least 2", episode=episode)
    if np.any(columns["action"][0] != 0):
        expected = "expected the zeros of a reset, since row t holds the action that led to it"
        found = columns["action"][0].tolist()
        refuse(path, "action", f"is {found}, {expected}", episode=episode, row=0)
    if "is_first" in columns:
        again = np.flatnonzero(flags(columns["is_first"], path, "is_first", episode)[1:]) + 1
        if len(again):
            row = int(again[0])
            refuse(path, "is_first", "is true again; split it there", episode=episode, row=row)


def _observed(name: str) -> bool:
    return name not in ("action", "reward", *ENDINGS) and not _extra(name)


def _extra(name: str) -> bool:
    return name == "discount" or name.startswith("log")


def _row_space(file: NpzFile, name: str) -> gym.Space:
    shape, dtype = file.header(name)
    with reading(file.path, name):
        return observation_space(shape[1:], dtype)


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else []
    if not files or not zipfile.is_zipfile(files[0]):
        return None
    with NpzFile(files[0]) as first:
        names = set(first.names)
    return path if {"action", "reward"} <= names and names & set(ENDINGS) else None


FORMATS.register("dreamer_npz", read_only("dreamer_npz", _find, DreamerReader))
