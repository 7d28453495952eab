"""Released DINO-WM folders whose frames are tensors: `point_maze` and `wall_single` (read only).

    states.pth                    [N, T, S] float
    actions.pth                   [N, T, A] float; actions[i, t] was taken in states[i, t]
    seq_lengths.pth or .pkl       [N] rows of every episode; without it all have T
    obses/episode_{i:03d}.pth     [>= rows, H, W, 3] or [>= rows, 3, H, W], 0..255
    door_locations.pth, ...       [N, T, ...] extras, if there are any

There are as many actions as observations, so where the last action of an episode led to is not known: it
is dropped, and an episode of n rows has n - 1 steps. Nothing is said about how episodes ended, so all are
`truncated`. The state is the observation "proprio", as published for both; there are no rewards.

One folder holds all episodes; the published runs drew theirs with `torch.randperm` and seed 42. To which
side an episode went is the "split" of its info: "train" or "val".

Only tensors are loaded (`weights_only=True`; what would build a numpy array can be made to read any
memory), and pickled lengths may hold numbers only.

Zhou et al. 2025, "DINO-WM: World Models on Pre-trained Visual Features enable Zero-shot Planning".
"""

from __future__ import annotations

import pickle
import re
import zipfile
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
    without_outcome,
)
from wm_toolkit.data.formats import FORMATS, read_only
from wm_toolkit.data.pickled import load_plain
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.spaces import Spaces

SOURCE = {
    "source": "DINO-WM release",
    "citation": "Zhou et al. 2025, DINO-WM: World Models on Pre-trained Visual Features enable "
    "Zero-shot Planning",
}
STATES, ACTIONS, FRAMES = "states.pth", "actions.pth", "obses"
LENGTHS = ("seq_lengths.pth", "seq_lengths.pkl")
SPLIT_SEED, TRAIN_SHARE = 42, 0.9  # of the published runs


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
        super().__init__(path, **SOURCE, split="torch.randperm, seed 42, first 90 % train")
        self._actions = load_tensor(path / ACTIONS)
        if self._actions.ndim != 3:
            refuse(path, "actions", f"has shape {self._actions.shape}, expected (N, T, size)")
        self._proprio, self._extras = self._columns(load_tensor(path / STATES))
        self._lengths = episode_lengths(path, *self._actions.shape[:2])
        self._splits = published_split(len(self._lengths))
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
            yield without_outcome(
                {"image": self._frames(i, rows), "proprio": self._proprio[i, :rows]},
                self._actions[i, :rows],
                {name: values[i, :rows] for name, values in self._extras.items()},
                {"split": self._splits[i]},
            )

    def _columns(self, states: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Proprioception [N, T, S], and other tensors with one value a row, by the name of their file."""
        self._check(states, 3, "(N, T, size)")
        found: dict[str, np.ndarray] = {}
        for file in sorted(self.path.glob("*.pth")):
            if file.name in (STATES, ACTIONS, *LENGTHS):
                continue
            values = load_tensor(file)
            if values.shape[:2] == states.shape[:2]:
                found[file.stem] = values
            else:
                self._note(file.stem, f"has shape {values.shape}, not one value a row: left out")
        return states, found

    def _check(self, states: np.ndarray, axes: int, form: str) -> None:
        lead = self._actions.shape[:2]
        if states.ndim != axes or states.shape[:2] != lead:
            expected = f"expected {form} with the N, T = {lead} of actions"
            refuse(self.path, "states", f"has shape {states.shape}, {expected}")

    def _frame_file(self, episode: int) -> Path:
        return self.path / FRAMES / f"episode_{episode:03d}.pth"

    def _frames(self, episode: int, rows: int) -> np.ndarray:
        """[rows, H, W, 3] uint8."""
        path = self._frame_file(episode)
        return as_frames(load_tensor(path, episode), rows, path, episode)

    def _told_spaces(self) -> Spaces:
        image = self._frames(0, self._lengths[0])
        taken = [self._actions[i, : rows - 1] for i, rows in enumerate(self._lengths)]
        observed = {"image": image, "proprio": self._proprio[0]}
        return told_spaces(self.path, observed, np.concatenate(taken))


def told_spaces(path: Path, observed: dict[str, np.ndarray], actions: np.ndarray) -> Spaces:
    """Spaces of observations [n, ...] by key and actions [n, A].

    Raises:
        DataError: if they do not hold numbers.
    """
    with reading(path, "actions"):
        action = action_space(*action_range(actions), actions.shape[1:], actions.dtype)
        return Spaces(
            {n: observation_space(v.shape[1:], v.dtype) for n, v in observed.items()}, action
        )


def published_split(count: int) -> list[str]:
    """On which side of the published runs every one of `count` episodes was: "train" or "val"."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    train = set(order[: int(TRAIN_SHARE * count)])
    return ["train" if i in train else "val" for i in range(count)]


def as_frames(values: np.ndarray, rows: int, path: Path, episode: int) -> np.ndarray:
    """The first `rows` frames of `values` [T, H, W, 3] or [T, 3, H, W], any type: uint8 [rows, H, W, 3].

    Raises:
        DataError: naming file and episode, if there are fewer, or they hold other numbers than 0 ... 255.
    """
    if values.ndim != 4 or 3 not in (values.shape[-1], values.shape[1]):
        what = f"has shape {values.shape}, expected [T, H, W, 3] or [T, 3, H, W]"
        refuse(path, "image", what, episode=episode)
    if len(values) < rows:
        refuse(path, "image", f"has {len(values)} frames, expected {rows}", episode=episode)
    frames = values[:rows] if values.shape[-1] == 3 else values[:rows].transpose(0, 2, 3, 1)
    with np.errstate(invalid="ignore"):  # NaN becomes something else, which is what is looked for
        whole = frames.astype(np.uint8)
    bad = np.flatnonzero((whole != frames).reshape(rows, -1).any(1))
    if len(bad):
        what = "holds other numbers than 0, 1 ... 255"
        refuse(path, "image", what, episode=episode, row=int(bad[0]))
    return np.ascontiguousarray(whole)


def episode_lengths(folder: Path, count: int, longest: int) -> list[int]:
    """Rows of every one of `count` episodes; all have `longest` where no file says so.

    Raises:
        DataError: naming the file, and the episode whose length is none.
    """
    if not count:
        refuse(folder / STATES, "", "holds no episode")
    files = [folder / name for name in LENGTHS if (folder / name).exists()]
    if not files:
        return [longest] * count
    values = load_plain(files[0]) if files[0].suffix == ".pkl" else load_tensor(files[0]).tolist()
    if not isinstance(values, (list, tuple)) or len(values) != count:
        refuse(files[0], "", f"holds {_short(values)}, expected {count} lengths")
    for i, value in enumerate(values):
        whole = type(value) in (int, float) and not value % 1
        if not whole or not 2 <= value <= longest:
            refuse(files[0], "", f"is {value!r}, expected 2 to {longest} rows", episode=i)
    return [int(value) for value in values]


def load_tensor(path: Path, episode: int | None = None) -> np.ndarray:
    """A tensor that was saved by torch, and nothing else.

    Raises:
        DataError: naming the file, and what it wants to use.
    """
    with reading(path, episode=episode):
        _refuse_changed(path)
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
        try:
            return values.detach().numpy()
        except TypeError as error:  # numpy has no such numbers, or they are not all stored
            raise ValueError(f"cannot be an array: {error}") from error


def _refuse_changed(path: Path) -> None:
    """Compare the checksums that torch writes into its files and does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (changed := archive.testzip()) is not None:
                raise ValueError(f"{changed} inside it is not what was written")


def _short(values: object) -> str:
    return f"{len(values)} values" if isinstance(values, (list, tuple)) else type(values).__name__


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    tensors = all((path / name).is_file() for name in (STATES, ACTIONS))
    return path if tensors and (path / FRAMES).is_dir() else None


FORMATS.register("dino_wm", read_only("dino_wm", _find, DinoWmReader))
