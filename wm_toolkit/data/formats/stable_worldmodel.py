"""HDF5 files of stable-worldmodel and LeWorldModel (read only).

    pixels              [n, H, W, 3] or [n, 3, H, W] uint8, often compressed with Blosc
    action              [n, A]; action[t] was taken in row t, the last one of an episode is NaN
    proprio, state ...  [n, ...] one value a row
    ep_len, ep_offset   [N] rows of every episode, and its first row

A row holds an observation, and the reward and `terminated` that arrived with it (NaN and false on an
episode's first row). An episode of n rows has n - 1 steps: where the action of its last row led to is not
in the file, so that action is dropped whether it is NaN or not. NaN in any other action is refused: the
original code trains on such a row as if the action had been the mean one. A step that ends an episode and
is not `terminated` is `truncated`.

`pixels` becomes the observation "image"; `proprio`, `state` and `observation` stay observations; every
other column of numbers is an extra. `ep_idx`, `episode_idx` and `step_idx` repeat what the lengths say;
they are compared, not copied.

`World.collect` of stable-worldmodel 0.1.1 did not store the frame of the reset and wrote the episode's
first action into its last row. Such files are whole otherwise; where `step_idx` shows it, a note says so.

Maes et al. 2026, "LeWorldModel: Stable End-to-End Joint-Embedding Predictive Architecture from Pixels".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np

from wm_toolkit.data.foreign import (
    HDF5_SUFFIXES,
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
from wm_toolkit.errors import require
from wm_toolkit.spaces import Spaces

LENGTHS, OFFSETS = "ep_len", "ep_offset"
FRAMES, IMAGE = "pixels", "image"
VECTORS = ("proprio", "state", "observation")
SIGNALS = ("reward", "terminated", "truncated")
STEP_INDEX = "step_idx"
INDICES = {"ep_idx": 0, "episode_idx": 0, STEP_INDEX: 1}
"""Columns that number episodes and steps: what they grow by from row to row of an episode."""
UNPACK = {".tar.zst": "tar --zstd -xvf {}", ".zst": "zstd -d {}"}


class StableWorldmodelReader(ForeignReader):
    """A file in that layout, read episode by episode.

    Args:
        path: the HDF5 file.

    Raises:
        DataError: if it is still packed, or naming the column and episode that do not add up.
        MissingPackageError: if a column is compressed with a filter of hdf5plugin, which is missing.

    Example:
        >>> reader = StableWorldmodelReader(Path("pusht_expert_train.h5"))
        >>> sorted(reader.spaces.observation)
        ['image', 'proprio', 'state']
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, source="stable-worldmodel HDF5")
        _refuse_packed(path)
        with reading(path):
            self._file = h5py.File(path, "r")
        self._columns = self._numeric_columns()
        for name, column in self._columns.items():
            _require_filters(path, name, column)
        self._starts, self._stops = self._bounds()
        self._check_shapes()
        self._check_indices()
        self._rewarded = self._has_rewards()
        self.spaces = self._told_spaces()

    def __len__(self) -> int:
        return len(self._starts)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming file, column, episode and row.
        """
        for i in range(start, len(self)):
            rows = slice(int(self._starts[i]), int(self._stops[i]))
            columns: dict[str, np.ndarray] = {}
            for name, data in self._columns.items():
                if name not in INDICES:
                    with reading(self.path, name, i):
                        columns[name] = data[rows]
            yield self._trajectory(columns, i, rows.start)

    def _trajectory(self, columns: dict[str, np.ndarray], episode: int, row: int) -> Trajectory:
        frames, action = columns.pop(FRAMES), columns.pop("action")[:-1]
        self._refuse_nan(action, episode)
        reward, terminated, truncated = (columns.pop(name, None) for name in SIGNALS)
        ended = self._flags("terminated", terminated, len(action), episode)
        cut = self._flags("truncated", truncated, len(action), episode)
        cut[-1:] |= ~ended[-1:]
        obs = {name: columns.pop(name) for name in VECTORS if name in columns}
        return Trajectory(
            {IMAGE: np.ascontiguousarray(_last_axis(frames)), **obs},
            action,
            reward[1:].reshape(len(action)) if reward is not None and self._rewarded else None,
            ended,
            cut,
            columns,
            {"first_row": row},
        )

    def _flags(self, name: str, values: np.ndarray | None, steps: int, episode: int) -> np.ndarray:
        """[T] the flags that arrived after the first row."""
        if values is None:
            return np.zeros(steps, bool)
        return flags(values.reshape(steps + 1, -1)[1:, 0], self.path, name, episode)

    def _refuse_nan(self, action: np.ndarray, episode: int) -> None:
        if action.dtype.kind != "f":
            return
        bad = np.flatnonzero(np.isnan(action).reshape(len(action), -1).any(1))
        if len(bad):
            what = (
                f"is NaN in {len(bad)} rows before the episode's last. stable-worldmodel trains on "
                "such rows as the mean action; here nothing is made up: cut the episode there, or drop it"
            )
            refuse(self.path, "action", what, episode=episode, row=int(bad[0]))

    def _numeric_columns(self) -> dict[str, h5py.Dataset]:
        """Every column that holds numbers, by name; the others are left out with a note."""
        found: dict[str, h5py.Dataset] = {}

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                found[name] = node

        with reading(self.path):
            self._file.visititems(visit)
            if self._file.attrs:
                said = {name: readable(value) for name, value in self._file.attrs.items()}
                self.metadata["stable_worldmodel"] = said
        for name in (FRAMES, "action"):
            if name not in found:
                refuse(self.path, name, f"is missing; there are {sorted(found)}")
        text = [n for n, d in found.items() if d.dtype.kind not in "fiub" or not d.shape]
        if text:
            self._note("", f"holds {text}, which are no numbers a row and are left out")
        return {n: d for n, d in found.items() if n not in (LENGTHS, OFFSETS, *text)}

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """First row of every episode of two rows or more, and the row after its last."""
        starts, lengths = self._whole_numbers(OFFSETS, 0), self._whole_numbers(LENGTHS, 1)
        if len(starts) != len(lengths) or not len(lengths):
            refuse(self.path, OFFSETS, f"has {len(starts)} entries, {LENGTHS} has {len(lengths)}")
        stops = starts + lengths
        self._refuse_overlap(starts, stops)
        for name, column in self._columns.items():
            self._refuse_overrun(name, len(column), stops)
        unused = len(self._columns["action"]) - int(lengths.sum())
        if unused:
            self._note(LENGTHS, f"leaves {unused} rows to no episode; they are left out")
        whole = lengths > 1
        if not whole.any():
            refuse(self.path, LENGTHS, "has no episode of two rows or more")
        if not whole.all():
            what = f"has {int((~whole).sum())} episodes of a single row, which are left out"
            self._note(LENGTHS, what)
        return starts[whole], stops[whole]

    def _whole_numbers(self, name: str, smallest: int) -> np.ndarray:
        """[N] a column of lengths or offsets."""
        with reading(self.path, name):
            data: Any = self._file[name]
            values = np.asarray(data[()]).reshape(-1)
        if values.dtype.kind not in "iu":
            refuse(self.path, name, f"is {values.dtype}, expected whole numbers")
        bad = np.flatnonzero(values < smallest)
        if len(bad):
            i = int(bad[0])
            refuse(self.path, name, f"is {values[i]}, expected {smallest} or more", episode=i)
        return values.astype(np.int64)

    def _refuse_overlap(self, starts: np.ndarray, stops: np.ndarray) -> None:
        order = np.argsort(starts, kind="stable")
        bad = np.flatnonzero(starts[order][1:] < stops[order][:-1])
        if len(bad):
            first, second = (int(i) for i in order[bad[0] : bad[0] + 2])
            what = (
                f"begins episode {second} at row {starts[second]}, but episode {first} ends before "
                f"row {stops[first]}: they overlap"
            )
            refuse(self.path, OFFSETS, what, episode=second)

    def _refuse_overrun(self, name: str, rows: int, stops: np.ndarray) -> None:
        bad = np.flatnonzero(stops > rows)
        if len(bad):
            i = int(bad[0])
            what = f"has {rows} rows, but the episode ends before row {stops[i]}; the file is incomplete"
            refuse(self.path, name, what, episode=i)

    def _check_shapes(self) -> None:
        for name in (n for n in SIGNALS if n in self._columns):
            column = self._columns[name]
            if column.size != len(column):
                refuse(self.path, name, f"has shape {column.shape}, expected one number a row")
        frames = self._columns[FRAMES]
        images = frames.ndim == 4 and 3 in (frames.shape[-1], frames.shape[1])
        if not images or frames.dtype != np.uint8:
            what = f"is {frames.dtype} of shape {frames.shape}, expected uint8 [n, H, W, 3]"
            refuse(self.path, FRAMES, what)

    def _check_indices(self) -> None:
        """Compare the columns that number episodes and steps with the lengths."""
        for name in (n for n in INDICES if n in self._columns):
            values = self._read_index(name)
            for i, (start, stop) in enumerate(zip(self._starts, self._stops, strict=True)):
                self._refuse_jump(name, values[start:stop], i)
        if STEP_INDEX in self._columns:
            late = int((self._read_index(STEP_INDEX)[self._starts] > 0).sum())
            if late:
                what = f"begins after 0 in {late} episodes: the frame of their reset is missing"
                self._note(STEP_INDEX, what)

    def _refuse_jump(self, name: str, values: np.ndarray, episode: int) -> None:
        bad = np.flatnonzero(np.diff(values) != INDICES[name])
        if len(bad):
            row = int(bad[0]) + 1
            found = f"is {values[row]} after {values[row - 1]}, expected {INDICES[name]} more"
            what = f"{found}: {LENGTHS} and {OFFSETS} do not fit the rows"
            refuse(self.path, name, what, episode=episode, row=row)

    def _read_index(self, name: str) -> np.ndarray:
        """[n] whole numbers."""
        with reading(self.path, name):
            return self._columns[name][:].reshape(len(self._columns[name]), -1)[:, 0]

    def _has_rewards(self) -> bool:
        """Whether there is a reward that is a number."""
        if "reward" not in self._columns:
            return False
        with reading(self.path, "reward"):
            values = self._columns["reward"][:]
        if values.dtype.kind == "f" and np.isnan(values).all():
            self._note("reward", "is NaN in every row, so there is none")
            return False
        return True

    def _told_spaces(self) -> Spaces:
        frames = self._columns[FRAMES]
        image = _last_axis(np.empty((0, *frames.shape[1:]), frames.dtype))
        obs: dict[str, gym.Space] = {IMAGE: observation_space(image.shape[1:], image.dtype)}
        for name in (n for n in VECTORS if n in self._columns):
            with reading(self.path, name):
                column = self._columns[name]
                obs[name] = observation_space(column.shape[1:], column.dtype)
        with reading(self.path, "action"):
            actions = self._columns["action"][:]
            taken = np.ones(len(actions), bool)
            taken[self._stops - 1] = False
            low, high = action_range(_numbers(actions[taken]))
            return Spaces(obs, action_space(low, high, actions.shape[1:], actions.dtype))


def _numbers(actions: np.ndarray) -> np.ndarray:
    """The rows [n, *shape] without NaN; a NaN is refused when its episode is read."""
    if actions.dtype.kind != "f":
        return actions
    return actions[~np.isnan(actions).reshape(len(actions), -1).any(1)]


def _last_axis(frames: np.ndarray) -> np.ndarray:
    """Frames [n, H, W, 3] from those or from [n, 3, H, W]."""
    return frames if frames.shape[-1] == 3 else frames.transpose(0, 2, 3, 1)


def _require_filters(path: Path, name: str, data: h5py.Dataset) -> None:
    """Make the filters that a column is compressed with known to HDF5.

    Raises:
        MissingPackageError: if hdf5plugin is not installed.
        DataError: if it does not know the filter either.
    """
    properties = data.id.get_create_plist()
    used = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    for number, *_ in used:
        if not h5py.h5z.filter_avail(number):
            require("hdf5plugin", "blosc")
        if not h5py.h5z.filter_avail(number):
            refuse(path, name, f"is compressed with the unknown HDF5 filter {number}")


def _refuse_packed(path: Path) -> None:
    for suffix, command in UNPACK.items():
        if path.name.endswith(suffix):
            refuse(path, "", f"is packed; unpack it first: {command.format(path)}")


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    packed = path.name.endswith((*(f"{s}.zst" for s in HDF5_SUFFIXES), ".tar.zst"))
    if packed:
        return path if path.is_file() else None
    return path if holds_columns(path, (LENGTHS, OFFSETS)) else None


FORMATS.register("stable_worldmodel", read_only("stable_worldmodel", _find, StableWorldmodelReader))
