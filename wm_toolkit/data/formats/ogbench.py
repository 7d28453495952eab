"""OGBench data sets: one NPZ file of flat columns (read only).

An episode of T steps has T + 1 rows: `terminals` marks the row of the final observation, whose action was
stored but never executed. That action is left out, as OGBench's own loader does. OGBench cuts every
trajectory at a fixed length, so `terminals` means `truncated`; nothing is ever `terminated`.

A file saved in the compact form (`compact_dataset=True`) marks the last two rows of an episode in
`terminals`, and only the last with 0 in `valids`; then `valids` says where episodes end.

`observations` becomes the observation "image" or "vector", `rewards` (not in the release) the reward, and
every other column with one value a row (`qpos`, `qvel`, `button_states`) an extra.

Park et al. 2025, "OGBench: Benchmarking Offline Goal-Conditioned RL".
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

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
from wm_toolkit.spaces import Spaces, flat_space

SOURCE = "OGBench, https://github.com/seohongpark/ogbench"
REQUIRED = ("observations", "actions", "terminals")


class OgbenchReader(ForeignReader):
    """An OGBench file, streamed episode by episode.

    Args:
        path: the NPZ file.

    Raises:
        DataError: naming the column that is damaged or has another number of rows.

    Example:
        >>> reader = OgbenchReader(Path("pointmaze-medium-navigate-v0-val.npz"))
        >>> len(next(reader.episodes()))
        1000
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, source=SOURCE)
        self._file = NpzFile(path)
        self._check_rows()
        self._lengths = self._episode_lengths()
        self._key, self.spaces = self._told_spaces()

    def __len__(self) -> int:
        return len(self._lengths)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming file, column and episode that cannot be read.
        """
        names = [n for n in self._file.names if n not in ("terminals", "valids")]
        runs = {name: self._file.runs(name, self._lengths, start) for name in names}
        for i in range(start, len(self)):
            yield self._trajectory({name: next(run) for name, run in runs.items()}, i)

    def _trajectory(self, columns: dict[str, np.ndarray], episode: int) -> Trajectory:
        steps = self._lengths[episode] - 1
        reward = columns.pop("rewards", None)
        return Trajectory(
            {self._key: columns.pop("observations")},
            columns.pop("actions")[:-1],
            None if reward is None else reward[:-1],
            np.zeros(steps, bool),
            np.arange(steps) == steps - 1,
            columns,
        )

    def _check_rows(self) -> None:
        if "next_observations" in self._file.names:
            found = "was added by OGBench's loader, which drops rows; read the released file"
            refuse(self.path, "next_observations", found)
        rows = self._file.header("actions")[0][:1]
        for name in self._file.names:
            shape, _ = self._file.header(name)
            if shape[:1] != rows:
                refuse(self.path, name, f"has shape {shape}, but there are {rows} actions")

    def _episode_lengths(self) -> list[int]:
        """Rows of every episode."""
        last = flags(self._file.read("terminals"), self.path, "terminals")
        if "valids" in self._file.names:
            last = ~flags(self._file.read("valids"), self.path, "valids")
        if not len(last) or not last[-1]:
            refuse(self.path, "terminals", "does not mark the last row; the file is incomplete")
        lengths = np.diff(np.flatnonzero(last), prepend=-1)
        short = np.flatnonzero(lengths < 2)
        if len(short):
            what = "marks an episode of one row, which has no step; expected two rows or more"
            refuse(self.path, "terminals", what, episode=int(short[0]), row=0)
        return lengths.tolist()

    def _told_spaces(self) -> tuple[str, Spaces]:
        with reading(self.path, "observations"):
            shape, dtype = self._file.header("observations")
            observation = flat_space(observation_space(shape[1:], dtype))
        executed = np.delete(self._file.read("actions"), np.cumsum(self._lengths) - 1, axis=0)
        with reading(self.path, "actions"):
            action = action_space(*action_range(executed), executed.shape[1:], executed.dtype)
        return next(iter(observation)), Spaces(observation, action)


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    if path.suffix != ".npz" or not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with NpzFile(path) as file:
        return path if set(REQUIRED) <= set(file.names) else None


FORMATS.register("ogbench", read_only("ogbench", _find, OgbenchReader))
