"""Make the samples again, from a checkout: python datasets/samples/make.py [FOLDER].

A sample holds either two short walks of `wm_toolkit.envs.walks`, seed 0, with their frames halved, or the
moving square and random numbers of `tests/film_layouts.py`, in the layout of a release. Nothing of the
releases themselves is in them. Films are lossless, so all values are the same everywhere, but their bytes
may differ with the FFmpeg that is at hand.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wm_toolkit.data.formats import FORMATS
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.envs.make import make
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.spaces import Spaces

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import film_layouts

LENGTHS = (5, 4)  # rows: steps + 1
SIDE = 32
# Long enough for a goal 25 steps ahead, and square as the simulator's frames are.
PUSHES: dict[str, Any] = {
    "train": [20, 17],
    "val": [27],
    "size": (SIDE, SIDE),
    "film": {"gop": 100},
}
ABOUT = {
    "name": "walks",
    "source": "datasets/samples/make.py of wm_toolkit: random walks in TwoRooms, seed 0",
    "licence": "MIT",
}


@dataclasses.dataclass(frozen=True)
class Walk:
    """One walk of T steps: frames uint8 [T + 1, h, w, 3], position [T + 1, 2], action [T, 2]."""

    frames: np.ndarray
    position: np.ndarray
    action: np.ndarray

    def padded_action(self, filler: float = 0.0) -> np.ndarray:
        """[T + 1, 2] actions, with a row for the final observation."""
        return np.concatenate([self.action, np.full_like(self.action[:1], filler)])


def walks() -> list[Walk]:
    """The walks that samples hold."""
    made = smooth_walks(0, episodes=len(LENGTHS), steps=max(LENGTHS) - 1)
    found = []
    for position, action, rows in zip(made.position, made.action, LENGTHS, strict=True):
        frames = made.rooms.render(position[:rows])[:, ::2, ::2]
        found.append(Walk(np.ascontiguousarray(frames), position[:rows], action[: rows - 1]))
    return found


def own(folder: Path, format: str, target: str, keys: tuple[str, ...]) -> None:
    """Through one of our own writers, with the observations `keys`."""
    whole = Spaces.of(make("wm_toolkit/TwoRooms-v0", obs_mode="both"))
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    box = type(whole.observation["image"])(0, 255, image.shape, np.uint8)
    known = {**whole.observation, "image": box}
    spaces = Spaces({key: known[key] for key in keys}, whole.action)
    units = {"obs/position": "px", "action": "2 px"}
    with FORMATS[format].write(
        (folder / target).resolve(), spaces, metadata=ABOUT, units=units
    ) as writer:
        for walk in walks():
            writer.add_episode(as_trajectory(walk, keys))


def as_trajectory(walk: Walk, keys: tuple[str, ...]) -> Trajectory:
    """The walk as an episode that was cut."""
    steps = len(walk.action)
    obs = {"image": walk.frames, "position": walk.position}
    last = np.arange(steps) == steps - 1
    chosen = {key: obs[key] for key in keys}
    return Trajectory(chosen, walk.action, None, np.zeros(steps, bool), last)


def native(folder: Path) -> None:
    """One file."""
    own(folder, "hdf5", "walks.h5", ("image", "position"))


def minari(folder: Path) -> None:
    """A Minari folder in HDF5 storage; without frames, which would take ten times the room."""
    own(folder, "minari", "walks-v0", ("position",))


def stable_worldmodel(folder: Path) -> None:
    """One HDF5 file of flat columns, frames in Blosc, the last action of an episode NaN."""
    import hdf5plugin

    lengths = [len(walk.position) for walk in walks()]
    rows = {
        "pixels": np.concatenate([walk.frames for walk in walks()]),
        "action": np.concatenate([walk.padded_action(np.nan) for walk in walks()]),
        "proprio": np.concatenate([walk.position for walk in walks()]),
        "step_idx": np.concatenate([np.arange(n) for n in lengths]),
        "ep_idx": np.repeat(np.arange(len(lengths)), lengths),
    }
    folder.mkdir(parents=True)
    with h5py.File(folder / "walks.h5", "w", libver="latest") as file:
        for name, values in rows.items():
            packed = {"chunks": (1, *values.shape[1:]), **hdf5plugin.Blosc(cname="zstd")}
            file.create_dataset(name, data=values, **(packed if name == "pixels" else {}))
        file["ep_len"] = np.array(lengths, np.int32)
        file["ep_offset"] = (np.cumsum(lengths) - lengths).astype(np.int64)


def d4rl(folder: Path) -> None:
    """One HDF5 file of flat rows with the next observations; the first walk ended by itself."""
    steps = [len(walk.action) for walk in walks()]
    last = np.cumsum(steps) - 1
    ends = np.isin(np.arange(sum(steps)), last)
    columns = {
        "observations": np.concatenate([walk.position[:-1] for walk in walks()]),
        "next_observations": np.concatenate([walk.position[1:] for walk in walks()]),
        "actions": np.concatenate([walk.action for walk in walks()]),
        "rewards": np.arange(sum(steps), dtype=np.float32) / 8,
        "terminals": ends & (np.arange(sum(steps)) == last[0]),
        "timeouts": ends & (np.arange(sum(steps)) != last[0]),
        "infos/goal": np.tile(np.float32([48, 16]), (sum(steps), 1)),
    }
    folder.mkdir(parents=True)
    with h5py.File(folder / "walks.hdf5", "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, compression="gzip")
        file["metadata/algorithm"] = "random walk"


def ogbench(folder: Path) -> None:
    """One NPZ file of flat rows; the row of the final observation holds an action never taken."""
    ends = [np.arange(len(walk.position)) == len(walk.action) for walk in walks()]
    folder.mkdir(parents=True)
    np.savez_compressed(
        folder / "visual-walks-v0.npz",
        observations=np.concatenate([walk.frames for walk in walks()]),
        actions=np.concatenate([walk.padded_action(0.5) for walk in walks()]),
        terminals=np.concatenate(ends),
        qpos=np.concatenate([walk.position for walk in walks()]).astype(np.float64),
    )


def dreamer(folder: Path) -> None:
    """A file for every episode; the action in row t led to it."""
    folder.mkdir(parents=True)
    for i, walk in enumerate(walks()):
        rows = len(walk.position)
        np.savez_compressed(
            folder / f"20200101T00000{i}-{i:032x}-{rows}.npz",
            image=walk.frames,
            position=walk.position,
            action=np.concatenate([np.zeros_like(walk.action[:1]), walk.action]),
            reward=np.arange(rows, dtype=np.float32) / 8,
            discount=(np.arange(rows) < rows - (i == 0)).astype(np.float32),
        )


def point_maze(folder: Path) -> None:
    """DINO-WM tensors: lengths, frames channel last."""
    film_layouts.write_point_maze(folder, lengths=LENGTHS, rows=max(LENGTHS), size=(SIDE, SIDE))


def wall_single(folder: Path) -> None:
    """DINO-WM tensors: no lengths, frames channel first, where wall and door are."""
    film_layouts.write_point_maze(
        folder, lengths=[4, 4], rows=4, stored_lengths=None, channels="first", size=(SIDE, SIDE)
    )
    for name in ("door_locations", "wall_locations"):
        film_layouts.save_tensor(folder / f"{name}.pth", np.full((2, 4), 32.0))


def deformable(folder: Path) -> None:
    """DINO-WM tensors: particles as states, and a folder of frames for every episode."""
    film_layouts.write_deformable(folder, episodes=2, rows=3)


def pusht_noise(folder: Path) -> None:
    """DINO-WM tensors and films, in folders for training and validation."""
    film_layouts.write_pusht(folder, **PUSHES)


def lerobot_v2(folder: Path) -> None:
    """A table and a film for every episode."""
    film_layouts.write_lerobot_v2(folder, lengths=LENGTHS)
    state_licence(folder)


def lerobot_v3(folder: Path) -> None:
    """Two episodes in one table and one film, the third in another."""
    film_layouts.write_lerobot_v3(folder, lengths=[*LENGTHS, 3])
    state_licence(folder)


def state_licence(folder: Path) -> None:
    """The card at the top of a LeRobot folder, where its licence is read from."""
    (folder / "README.md").write_text(
        "---\nlicense: mit\ntags:\n- LeRobot\n---\n\nA moving square.\n"
    )


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "native": native,
    "minari": minari,
    "stable_worldmodel": stable_worldmodel,
    "d4rl": d4rl,
    "ogbench": ogbench,
    "dreamer": dreamer,
    "pusht_noise": pusht_noise,
    "point_maze": point_maze,
    "wall_single": wall_single,
    "rope": deformable,
    "granular": deformable,
    "lerobot_v2": lerobot_v2,
    "lerobot_v3": lerobot_v3,
}


def make_samples(folder: Path) -> None:
    """Write every sample below `folder`; older ones are replaced."""
    for name, write in LAYOUTS.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        write(folder / name)


if __name__ == "__main__":
    make_samples(Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent))
