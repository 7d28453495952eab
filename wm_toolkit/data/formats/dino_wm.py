"""Released DINO-WM folders whose frames are tensors: `point_maze` and `wall_single` (read only).

    states.pth                    [N, T, S] float
    actions.pth                   [N, T, A] float; actions[i, t] was taken in states[i, t]
    seq_lengths.pth or .pkl       [N] rows of every episode; without it all have T
    obses/episode_{i:03d}.pth     [>= rows, H, W, 3] or [>= rows, 3, H, W], 0..255
    door_locations.pth, ...       [N, T, ...] extras, if there are any

There are as many actions as observations, so where the last action of an episode led to is not known: it
is dropped, and an episode of n rows has n - 1 steps. Nothing is said about how episodes ended, so all are
`truncated`. The state is the observation "proprio", as published for both; there are no rewards.

Only tensors are loaded (`weights_only=True`), and pickled lengths may hold numbers only.

Zhou et al. 2025, "DINO-WM: World Models on Pre-trained Visual Features enable Zero-shot Planning".
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from wm_toolkit.data.foreign import (
    ForeignReader,
    action_range,
    action_space,
    observation_space,
    reading,
    refuse,
)
from wm_toolkit.data.formats import FORMATS, read_only
from wm_toolkit.data.pickled import load_plain
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.spaces import Spaces

STATES, ACTIONS, FRAMES = "states.pth", "actions.pth", "obses"
LENGTHS = ("seq_lengths.pth", "seq_lengths.pkl")
PUSHT = ("rel_actions.pth", "abs_actions.pth")


class DinoWmReader(ForeignReader):
    """A released folder; the frames of an episode are loaded when it is its turn.

    Args:
        path: the folder.

    Raises:
        DataError: naming the file that is missing, damaged or does not fit the others.

    Example:
        >>> reader = DinoWmReader(Path("point_maze"))
        >>> reader.spaces.observation["image"].shape
        (224, 224, 3)
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, source="DINO-WM release")
        if any((path / name).exists() for name in PUSHT):
            found = "is of the Push-T release, whose frames are mp4 films; those are not read"
            refuse(path, "rel_actions", found)
        self._states, self._actions = _tensor(path / STATES), _tensor(path / ACTIONS)
        for name, values in (("states", self._states), ("actions", self._actions)):
            if values.ndim != 3 or values.shape[:2] != self._states.shape[:2]:
                expected = f"expected (N, T, size) with N, T = {self._states.shape[:2]}"
                refuse(path, name, f"has shape {values.shape}, {expected}")
        self._extras = self._side_columns()
        self._lengths = self._episode_lengths()
        self.spaces = self._told_spaces()

    def __len__(self) -> int:
        return len(self._lengths)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming the file of frames that is missing or does not fit, and the episode.
        """
        for i in range(start, len(self)):
            rows = self._lengths[i]
            yield Trajectory(
                {"image": self._frames(i, rows), "proprio": self._states[i, :rows]},
                self._actions[i, : rows - 1],
                None,
                np.zeros(rows - 1, bool),
                np.arange(rows - 1) == rows - 2,
                {name: values[i, :rows] for name, values in self._extras.items()},
            )

    def _frames(self, episode: int, rows: int) -> np.ndarray:
        """[rows, H, W, 3] uint8."""
        path = self.path / FRAMES / f"episode_{episode:03d}.pth"
        frames = _tensor(path, episode)
        if frames.ndim != 4 or 3 not in (frames.shape[-1], frames.shape[1]):
            what = f"has shape {frames.shape}, expected [T, H, W, 3] or [T, 3, H, W]"
            refuse(path, "image", what, episode=episode)
        if len(frames) < rows:
            refuse(path, "image", f"has {len(frames)} frames, expected {rows}", episode=episode)
        frames = frames[:rows] if frames.shape[-1] == 3 else frames[:rows].transpose(0, 2, 3, 1)
        with np.errstate(
            invalid="ignore"
        ):  # NaN becomes something else, which is what is looked for
            whole = frames.astype(np.uint8)
        bad = np.flatnonzero((whole != frames).reshape(rows, -1).any(1))
        if len(bad):
            what = "holds other numbers than 0, 1 ... 255"
            refuse(path, "image", what, episode=episode, row=int(bad[0]))
        return np.ascontiguousarray(whole)

    def _side_columns(self) -> dict[str, np.ndarray]:
        """Other tensors with one value a row, by the name of their file."""
        found: dict[str, np.ndarray] = {}
        for file in sorted(self.path.glob("*.pth")):
            if file.name in (STATES, ACTIONS, *LENGTHS):
                continue
            values = _tensor(file)
            if values.shape[:2] == self._states.shape[:2]:
                found[file.stem] = values
            else:
                self._note(file.stem, f"has shape {values.shape}, not one value a row: left out")
        return found

    def _episode_lengths(self) -> list[int]:
        """Rows of every episode."""
        count, longest = self._states.shape[:2]
        files = [self.path / name for name in LENGTHS if (self.path / name).exists()]
        if not files:
            return [longest] * count
        values = load_plain(files[0]) if files[0].suffix == ".pkl" else _tensor(files[0]).tolist()
        if not isinstance(values, (list, tuple)) or len(values) != count:
            refuse(files[0], "", f"holds {_short(values)}, expected {count} lengths")
        for i, value in enumerate(values):
            if not isinstance(value, (int, float)) or value % 1 or not 2 <= value <= longest:
                refuse(files[0], "", f"is {value!r}, expected 2 to {longest} rows", episode=i)
        return [int(value) for value in values]

    def _told_spaces(self) -> Spaces:
        taken = [self._actions[i, : rows - 1] for i, rows in enumerate(self._lengths)]
        image, actions = self._frames(0, self._lengths[0]), np.concatenate(taken)
        with reading(self.path, "actions"):
            action = action_space(*action_range(actions), actions.shape[1:], actions.dtype)
        observed = {"image": image, "proprio": self._states[0]}
        return Spaces(
            {n: observation_space(v.shape[1:], v.dtype) for n, v in observed.items()}, action
        )


def _tensor(path: Path, episode: int | None = None) -> np.ndarray:
    """A tensor that was saved by torch, and nothing else."""
    with reading(path, episode=episode):
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError
        ) as error:  # torch's own message advises to run the file's code
            name = re.search(r"GLOBAL (\S+)", str(error))
            wants = f"wants to use {name[1]}, which is refused" if name else "cannot be unpickled"
            raise ValueError(f"{wants}; expected a tensor saved by torch.save") from error
        if not isinstance(values, torch.Tensor):
            raise ValueError(f"holds a {type(values).__name__}, expected a tensor")
        return values.detach().numpy()


def _short(values: object) -> str:
    return f"{len(values)} values" if isinstance(values, (list, tuple)) else type(values).__name__


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    known = (path / FRAMES).is_dir() and (path / STATES).is_file()
    return path if known and any((path / n).exists() for n in (ACTIONS, *PUSHT)) else None


FORMATS.register("dino_wm", read_only("dino_wm", _find, DinoWmReader))
