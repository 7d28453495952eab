"""Data sets that the toolkit makes itself: made once, kept as a native file, and recognised again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym

from wm_toolkit import catalog
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.envs.make import make
from wm_toolkit.envs.push_t import PushT
from wm_toolkit.envs.pushes import explorations
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

PUSH_T = "wm_toolkit/PushT-v0"
Progress = Callable[[int, int], None]


def prepare_push_t(
    path: str | Path | None = None,
    *,
    episodes: int = 1000,
    steps: int = 100,
    seed: int = 0,
    size: int = 64,
    progress: Progress | None = None,
) -> TrajectoryDataset:
    """Exploring pushes in Push-T as a native file, made once and then reused.

    No demonstrations: a scripted behaviour pushes the block in random directions
    (`wm_toolkit.envs.pushes`). A file that was made with other settings is not touched.

    Args:
        path: the file; by default "pusht-explored.h5" among the prepared data sets.
        episodes: how many; episode i depends on (seed, i) alone.
        steps: actions in each.
        seed: of all of them.
        size: side of the images, px.
        progress: told how many episodes are done.

    Raises:
        DataError: if the file there holds something else.
        MissingPackageError: if gym-pusht is not installed.
    """
    env = make(PUSH_T, image_size=size, resampling="smooth")
    board = env.unwrapped
    assert isinstance(board, PushT)
    about = {
        "env": PUSH_T,
        "env_options": board.settings,
        "source": "wm_toolkit.envs.pushes.explorations",
        "licence": "MIT",
        "state_key": "state",
    }
    units = {"obs/state": "px, rad, px/s, rad/s", "obs/proprio": "px, px/s", "action": "100 px"}

    def record(first: int) -> Iterable[Trajectory]:
        for number in range(first, episodes):
            yield from explorations(board, seed, [number], steps)
            if progress is not None:
                progress(number + 1, episodes)

    made = {"episodes": episodes, "steps": steps, "seed": seed, "size": size}
    try:
        return prepared(path or dataset_path("pusht-explored"), made, about, env, units, record)
    finally:
        env.close()


def dataset_path(name: str) -> Path:
    """Where the prepared data set `name` lives."""
    return catalog.home() / "datasets" / f"{name}.h5"


def prepared(
    path: str | Path,
    made: Mapping[str, Any],
    about: Mapping[str, Any],
    env: gym.Env,
    units: Mapping[str, str],
    record: Callable[[int], Iterable[Trajectory]],
) -> TrajectoryDataset:
    """A generated data set, written if there is none yet.

    Args:
        path: the file.
        made: the settings that decide its content, JSON-ready; stored, and compared.
        about: further metadata.
        env: whose spaces the episodes have.
        units: by column name.
        record: the episodes from a given number on. What a killed writer left are finished episodes of
            the same settings: they are kept and continued.

    Raises:
        DataError: if the file there was made with other settings.
    """
    path = Path(path)
    if not path.exists():
        metadata = {"name": path.stem, **about, "made": dict(made)}
        with Hdf5Writer(
            path, Spaces.of(env), metadata=metadata, units=units, append=True
        ) as writer:
            for episode in record(writer.finished):
                writer.add_episode(episode)
    data = TrajectoryDataset.load(path)
    if data.metadata.get("made") != made:
        raise DataError(
            f"{path} was made with {data.metadata.get('made')}, not with {made}; delete it or "
            "choose another file"
        )
    return data
