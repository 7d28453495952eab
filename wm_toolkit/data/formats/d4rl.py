"""D4RL data sets: one HDF5 file of flat columns (read only).

Row t holds observation t, the action taken in it, its reward, and two flags: `terminals` (the task ended
with this action: `terminated`) and `timeouts` (it was cut after this action: `truncated`). They are kept
apart. An episode ends at a row with either flag, where `next_observations` is not the next row's
observation (a cut that the flags do not show), and with the file; without a flag that is `truncated`.

- With `next_observations` an episode of n rows has n steps: its last entry is the final observation. The
  `infos` of that observation are not in the file; zeros stand there.
- Without, the final observation is not in the file either: the last action of every episode is dropped,
  n rows are n - 1 steps, the last one `truncated`. Which flag the dropped row had is kept as `ended_by`
  in the episode's info.

`infos/...` columns with one value a row become extras; `metadata` and the attributes become metadata.

Fu et al. 2020, "D4RL: Datasets for Deep Data-Driven Reinforcement Learning".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wm_toolkit.data.foreign import (
    ForeignReader,
    action_range,
    action_space,
    flags,
    holds_columns,
    observation_space,
    readable,
    reading,
    refuse,
)
from wm_toolkit.data.formats import FORMATS, read_only
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.spaces import Spaces, flat_space

SOURCE = "D4RL, https://github.com/Farama-Foundation/D4RL"
REQUIRED = ("observations", "actions", "rewards", "terminals")
FLAGS = ("terminals", "timeouts")
NEXT = "next_observations"
KNOWN = (*REQUIRED, *FLAGS, NEXT)
# What IQL and its followers take for a cut between two rows, as a Euclidean distance.
JUMP = 1e-6
CHUNK = 65_536
SHORT = 16  # longer arrays in the metadata are weights of the policy that collected


class D4rlReader(ForeignReader):
    """A D4RL file, read episode by episode.

    Args:
        path: the HDF5 file.

    Raises:
        DataError: naming the column that is missing, damaged or has another number of rows.

    Example:
        >>> reader = D4rlReader(Path("halfcheetah_medium-v2.hdf5"))
        >>> reader.spaces.action
        Box(-1.0, 1.0, (6,), float32)
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, source=SOURCE)
        with reading(path):
            self._file = h5py.File(path, "r")
        with reading(path):
            self._columns, others = _columns(self._file)
            self.metadata |= _metadata(self._file)
        self._full = NEXT in self._columns
        self._check_rows()
        self._terminals, self._timeouts = self._flags("terminals"), self._flags("timeouts")
        self._starts, self._stops = self._bounds()
        self._key, self.spaces = self._told_spaces()
        self._say_what_is_lost(others)

    def __len__(self) -> int:
        return len(self._starts)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming file and episode that cannot be read.
        """
        for i in range(start, len(self)):
            rows = slice(int(self._starts[i]), int(self._stops[i]))
            with reading(self.path, episode=i):
                names = [n for n in self._columns if n not in (*FLAGS, NEXT)]
                episode = self._trajectory({n: self._columns[n][rows] for n in names}, rows)
            yield episode

    def _trajectory(self, columns: dict[str, np.ndarray], rows: slice) -> Trajectory:
        obs, action, reward = (columns.pop(name) for name in REQUIRED[:3])
        terminated, truncated = self._terminals[rows].copy(), self._timeouts[rows].copy()
        ended_by = [n for n, f in zip(FLAGS, (terminated, truncated), strict=True) if f[-1]]
        if self._full:
            obs = np.concatenate([obs, self._columns[NEXT][rows.stop - 1 : rows.stop]])
            columns = {n: np.concatenate([v, np.zeros_like(v[:1])]) for n, v in columns.items()}
            truncated[-1] |= not ended_by
        else:
            action, reward = action[:-1], reward[:-1]
            terminated, truncated = terminated[:-1], truncated[:-1]
            truncated[-1] = True
        about = {"ended_by": ended_by, "first_row": rows.start}
        return Trajectory({self._key: obs}, action, reward, terminated, truncated, columns, about)

    def _check_rows(self) -> None:
        rows = self._columns["actions"].shape[:1]
        for name, column in self._columns.items():
            if column.shape[:1] != rows:
                refuse(self.path, name, f"has shape {column.shape}, but there are {rows} actions")
        if rows in ((), (0,)):
            refuse(self.path, "actions", "is empty")
        if len(self._columns["rewards"].shape) != 1:
            found = self._columns["rewards"].shape
            refuse(self.path, "rewards", f"has shape {found}, expected one number a row")
        shape = self._columns["observations"].shape
        if self._full and self._columns[NEXT].shape != shape:
            found = self._columns[NEXT].shape
            refuse(self.path, NEXT, f"has shape {found}, but observations have {shape}")

    def _flags(self, name: str) -> np.ndarray:
        if name not in self._columns:
            return np.zeros(len(self._columns["actions"]), bool)
        with reading(self.path, name):
            values = self._columns[name][:]
        return flags(values, self.path, name)

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """First row of every episode, and the row after its last."""
        last = self._terminals | self._timeouts
        last[-1] = True
        if self._full:
            jumps = self._jumps() & ~last
            if jumps.any():
                what = "is not the next row's observation in {} rows: episodes are cut there"
                self._note(NEXT, what.format(int(jumps.sum())))
            last |= jumps
        stops = np.flatnonzero(last) + 1
        starts = np.concatenate([[0], stops[:-1]])
        whole = stops - starts >= (1 if self._full else 2)
        if not whole.all():
            what = f"leaves {int((~whole).sum())} episodes of a single row, which are left out"
            self._note("observations", what)
        if not whole.any():
            refuse(self.path, "observations", "has no episode of two rows or more")
        return starts[whole], stops[whole]

    def _jumps(self) -> np.ndarray:
        """[rows] whether the next row does not go on from this one."""
        after, now = self._columns[NEXT], self._columns["observations"]
        jumps = np.zeros(len(now), bool)
        with reading(self.path, NEXT):
            for i in range(0, len(now) - 1, CHUNK):
                n = min(CHUNK, len(now) - 1 - i)
                gap = after[i : i + n].astype(np.float64) - now[i + 1 : i + n + 1]
                jumps[i : i + n] = np.linalg.norm(gap.reshape(n, -1), axis=1) > JUMP
        return jumps

    def _told_spaces(self) -> tuple[str, Spaces]:
        column = self._columns["observations"]
        with reading(self.path, "observations"):
            observation = flat_space(observation_space(column.shape[1:], column.dtype))
        with reading(self.path, "actions"):
            actions = self._columns["actions"][:]
            action = action_space(*action_range(actions), actions.shape[1:], actions.dtype)
        return next(iter(observation)), Spaces(observation, action)

    def _say_what_is_lost(self, others: list[str]) -> None:
        infos = [name for name in self._columns if name not in KNOWN]
        if not self._full:
            what = "is not in the file: the last action of every episode is dropped"
            self._note(NEXT, what)
        elif infos:
            what = f"have no value for the final observation, zeros stand there: {infos}"
            self._note("infos", what)
        if others:
            self._note("", f"holds {others}, which have no value a row and are left out")


def _columns(file: h5py.File) -> tuple[dict[str, h5py.Dataset], list[str]]:
    """The columns with one value a row, and the names of everything else outside `metadata`."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node

    file.visititems(visit)
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise KeyError(f"has no {missing[0]!r}; there are {sorted(found)}")
    rows = len(found["actions"])
    columns = {n: d for n, d in found.items() if n in KNOWN or _is_column(d, rows)}
    return columns, [n for n in found if n not in columns and not n.startswith("metadata/")]


def _is_column(data: h5py.Dataset, rows: int) -> bool:
    inside = str(data.name).startswith("/infos/")
    return inside and data.dtype.kind in "fiub" and data.shape[:1] == (rows,)


def _metadata(file: h5py.File) -> dict[str, Any]:
    """Attributes and what the `metadata` group says in text and small arrays, under "d4rl"."""
    said = {name: readable(value) for name, value in file.attrs.items()}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.size is not None and node.size <= SHORT:
            said[name] = readable(node[()])

    group = file.get("metadata")
    if isinstance(group, h5py.Group):
        group.visititems(visit)
    return {"d4rl": said} if said else {}


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    return path if holds_columns(path, REQUIRED) else None


FORMATS.register("d4rl", read_only("d4rl", _find, D4rlReader))
