"""The released DINO-WM folder `pusht_noise`, whose frames are films (read only).

    train/, val/                  as below; one of them alone can be read, too
      states.pth                  [N, T, 5] float: agent x, y, block x, y, block angle
      velocities.pth              [N, T, 2] float: of the agent
      rel_actions.pth             [N, T, 2] float: where the agent shall go, from where it is, in pixels
      abs_actions.pth             [N, T, 2] float: the same place on the board, in pixels
      seq_lengths.pkl             [N] rows of every episode
      shapes.pkl                  [N] names of blocks, if there are several
      obses/episode_{i:03d}.mp4   frame k is row k

Actions are divided by 100, as published; the relative ones are taken where both are there. The
observation "proprio" is x, y of the agent and its velocity; the extra column "state" holds all seven
numbers (states, then velocities), from which the simulator can be set up. Episodes are those of `train`,
then those of `val`, and say so as "split" in their info. There are as many actions as observations: the
last one of every episode is dropped. Nothing is said about how episodes ended, so all are `truncated`.

Zhou et al. 2025, "DINO-WM: World Models on Pre-trained Visual Features enable Zero-shot Planning".
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wm_toolkit.data.film import Film
from wm_toolkit.data.foreign import ForeignReader, refuse, without_outcome
from wm_toolkit.data.formats import FORMATS, read_only
from wm_toolkit.data.formats.dino_wm import (
    FRAMES,
    SOURCE,
    STATES,
    episode_lengths,
    load_tensor,
    told_spaces,
)
from wm_toolkit.data.pickled import load_plain
from wm_toolkit.data.trajectory import OBS, Trajectory

Actions = Literal["relative", "absolute"]
ACTION_FILES: dict[Actions, str] = {"relative": "rel_actions.pth", "absolute": "abs_actions.pth"}
VELOCITIES, SHAPES = "velocities.pth", "shapes.pkl"
SPLITS = ("train", "val")
STATE = "state"  # the column from which the simulator can be set up
ACTION_SCALE = 100.0
PROPRIO = (0, 1, 5, 6)  # of the state
ENV = "wm_toolkit/PushT-v0"  # a relative action of 1 aims 100 px ahead there, too

# Of the published training runs, for actions divided by 100.
STATISTICS = {
    "action": {"mean": [-0.0087, 0.0068], "std": [0.2019, 0.2002]},
    "state": {
        "mean": [236.6155, 264.5674, 255.1307, 266.3721, 1.9584, -2.93032027, 2.54307914],
        "std": [101.1202, 87.0112, 52.7054, 57.4971, 1.7556, 74.84556075, 74.14009094],
    },
}


class PushTReader(ForeignReader):
    """The released folder, or its `train` or `val` alone; a film is decoded when it is its turn.

    Args:
        path: the folder.
        actions: which actions to take; by default the relative ones, if they are there.

    Raises:
        DataError: naming the file that is missing, damaged or does not fit the others.
        MissingPackageError: if PyAV is not installed.

    Example:
        >>> reader = PushTReader(Path("pusht_noise"))
        >>> len(reader), next(reader.episodes()).info
        (18706, {'split': 'train'})
    """

    def __init__(self, path: Path, *, actions: Actions | None = None) -> None:
        super().__init__(path, **SOURCE, split="as released: the folders train and val")
        folders = _folders(path)
        if folders == [path]:
            self.metadata["name"] = f"{path.parent.name}_{path.name}"
        kind = actions or ("relative" if _has(folders, "relative") else "absolute")
        self._parts = [_Part(folder, ACTION_FILES[kind]) for folder in folders]
        self._kind = kind
        self.metadata |= {
            "actions": {"meaning": kind, "divided_by": ACTION_SCALE},
            "published_statistics": _published(kind),
            "state_key": STATE,
        }
        first = next(self.episodes()).obs
        self.metadata |= _simulator(kind, first["image"])
        steps = np.concatenate([part.steps for part in self._parts])
        self.spaces = told_spaces(path, dict(first), steps)

    @property
    def units(self) -> dict[str, str]:
        """Distances are pixels of the board, which has 512 x 512 of them."""
        place = "from the agent" if self._kind == "relative" else "on the board"
        return {
            "action": f"100 px {place}",
            OBS + "proprio": "px, px, px/s, px/s",
            STATE: "px, px, px, px, rad, px/s, px/s",
        }

    def __len__(self) -> int:
        return sum(len(part.lengths) for part in self._parts)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming the film that is missing, too short or damaged, episode and frame.
        """
        first = 0
        for part in self._parts:
            for i in range(max(0, start - first), len(part.lengths)):
                yield part.episode(i, first + i)
            first += len(part.lengths)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One of the folders `train` and `val`."""

    folder: Path
    action_file: str

    @functools.cached_property
    def actions(self) -> np.ndarray:
        """[N, T, 2] in hundreds of pixels."""
        values = load_tensor(self.folder / self.action_file)
        self._check(values, self.action_file, 2)
        return values / np.asarray(ACTION_SCALE, values.dtype)

    @functools.cached_property
    def states(self) -> np.ndarray:
        """[N, T, 7] agent x, y, block x, y, angle, agent velocity."""
        parts = [load_tensor(self.folder / name) for name in (STATES, VELOCITIES)]
        for values, name, size in zip(parts, (STATES, VELOCITIES), (5, 2), strict=True):
            self._check(values, name, size)
        states, speeds = (values.shape[:2] for values in parts)
        if speeds != states:
            refuse(self.folder / VELOCITIES, "", f"has N, T = {speeds}, the states have {states}")
        return np.concatenate(parts, -1)

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Rows of every episode."""
        count, longest = self.actions.shape[:2]
        if self.states.shape[:2] != (count, longest):
            found, expected = self.states.shape[:2], (count, longest)
            refuse(self.folder / STATES, "", f"has N, T = {found}, the actions have {expected}")
        return episode_lengths(self.folder, count, longest)

    @functools.cached_property
    def shapes(self) -> list[Any]:
        """Names of the blocks; empty if there is but one."""
        path = self.folder / SHAPES
        if not path.exists():
            return []
        found = load_plain(path)
        if not isinstance(found, (list, tuple)) or len(found) != len(self.lengths):
            refuse(path, "", f"holds {found!r:.60}, expected {len(self.lengths)} names")
        return list(found)

    @property
    def steps(self) -> np.ndarray:
        """[n, 2] every action that is kept."""
        kept = [self.actions[i, : rows - 1] for i, rows in enumerate(self.lengths)]
        return np.concatenate(kept)

    def episode(self, i: int, number: int) -> Trajectory:
        """Episode `i` of this folder, which is `number` of the data set."""
        rows = self.lengths[i]
        path = self.folder / FRAMES / f"episode_{i:03d}.mp4"
        with Film(path, column="image", episode=number) as film:
            frames = film.frames(range(rows), episode=number)
        state = self.states[i, :rows]
        info = {"split": self.folder.name} if self.folder.name in SPLITS else {}
        info |= {"shape": self.shapes[i]} if self.shapes else {}
        obs = {"image": frames, "proprio": state[:, PROPRIO]}
        return without_outcome(obs, self.actions[i, :rows], {STATE: state}, info)

    def _check(self, values: np.ndarray, name: str, size: int) -> None:
        if values.ndim != 3 or values.shape[-1] != size:
            refuse(self.folder / name, "", f"has shape {values.shape}, expected (N, T, {size})")


def _published(kind: Actions) -> dict[str, Any]:
    """What the published runs normalised with; the actions' numbers are those of the relative ones."""
    state = STATISTICS["state"]
    proprio = {name: [values[i] for i in PROPRIO] for name, values in state.items()}
    found = {"state": state, "proprio": proprio}
    return found | ({"action": STATISTICS["action"]} if kind == "relative" else {})


def _simulator(kind: Actions, frames: np.ndarray) -> dict[str, Any]:
    """The environment that takes these actions as they are, for frames [T, H, W, 3]."""
    height, width = frames.shape[1:3]
    if kind != "relative" or height != width:
        return {}
    return {"env": ENV, "env_options": {"action_mode": "relative", "image_size": height}}


def _folders(path: Path) -> list[Path]:
    found = [path / split for split in SPLITS if (path / split).is_dir()]
    # One that is not all there counts as well: reading it says what is missing.
    return found if any(map(_known, found)) else [path]


def _has(folders: list[Path], kind: Actions) -> bool:
    return any((folder / ACTION_FILES[kind]).is_file() for folder in folders)


def _known(path: Path) -> bool:
    actions = any((path / name).is_file() for name in ACTION_FILES.values())
    return actions and (path / STATES).is_file() and (path / FRAMES).is_dir()


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    return path if any(map(_known, _folders(path))) else None


FORMATS.register("dino_wm_pusht", read_only("dino_wm_pusht", _find, PushTReader))
