"""Minari data sets, HDF5 and Arrow storage, both ways.

Minari keeps T + 1 observations and infos and T actions an episode, which is what a `Trajectory` holds, so
nothing is shifted here. Images are written with `jpeg_encoding=False`: Minari's default is lossy. It
cannot do without rewards: where there are none zeros are stored, and the metadata says so.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces as gs

from wm_toolkit.checkpoint import load_json
from wm_toolkit.data.checks import Problem
from wm_toolkit.data.foreign import reading
from wm_toolkit.data.formats import FORMATS, Format, Writer
from wm_toolkit.data.minari_hub import dataset_id, find, place
from wm_toolkit.data.nesting import flatten, nest, nest_spaces
from wm_toolkit.data.partial import partial_folder, plain
from wm_toolkit.data.trajectory import OBS, Trajectory
from wm_toolkit.errors import DataError, require
from wm_toolkit.spaces import Spaces, flat_space

log = logging.getLogger(__name__)

# What Minari writes itself, so it is neither copied nor passed on.
OWN = ("total_episodes", "total_steps", "dataset_size", "data_format", "jpeg_encoding")
OWN_SPACES = ("observation_space", "action_space", "wm_toolkit")
METADATA, FINISHED = "data/metadata.json", "finished.json"
STORED = (gs.Box, gs.Discrete, gs.MultiDiscrete, gs.MultiBinary)
StorageKind = Literal["hdf5", "arrow"]


class MinariReader:
    """A Minari data set, read episode by episode.

    Args:
        path: its `data` folder (with metadata.json).

    Attributes:
        path: that folder.
        spaces: observation spaces, nested keys joined by "/", and the action space.
        metadata: source, env, and everything Minari's own metadata says, under "minari".
        units: by column name, if this toolkit wrote the data set.
        problems: lossy images, and columns that hold text and are left out.

    Raises:
        DataError: if it is damaged, or its spaces cannot be found.
    """

    def __init__(self, path: Path) -> None:
        storages = require("minari.dataset.minari_storage", "minari")
        self.path = path
        self.problems: list[Problem] = []
        with _reading(path):
            self._raw = load_json(path / "metadata.json")
            self._storage = storages.MinariStorage.read(path)
        space = self._storage.observation_space
        flat = flat_space(space)
        self._bare = None if isinstance(space, gs.Dict) else next(iter(flat))
        self.spaces = Spaces(self._readable(flat), self._storage.action_space)
        self.metadata = self._metadata()
        self._rewardless = "reward" in self._raw.get("wm_toolkit", {}).get("absent", ())
        if self._storage.jpeg_encoding:
            self._warn_lossy(flat, storages.is_image_space)

    @property
    def units(self) -> dict[str, str]:
        return dict(self._raw.get("wm_toolkit", {}).get("units", {}))

    def __len__(self) -> int:
        return int(self._raw["total_episodes"])

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming the episode that cannot be read.
        """
        for i in range(start, len(self)):
            with _reading(self.path, i):
                data = next(iter(self._storage.get_episodes([i])))
                about = dict(next(iter(self._storage.get_episode_metadata([i]))))
                steps = int(about.pop("total_steps", len(data["rewards"])))
                about.pop("id", None)
                if len(data["rewards"]) != steps:
                    raise ValueError(f"has {len(data['rewards'])} rewards, expected {steps}")
                episode = self._trajectory(data, steps, about)
            yield episode

    def _trajectory(self, data: dict[str, Any], steps: int, about: dict[str, Any]) -> Trajectory:
        values = data["observations"]
        obs = flatten(values) if self._bare is None else {self._bare: values}
        return Trajectory(
            {key: np.asarray(obs[key]) for key in self.spaces.observation if key in obs},
            np.asarray(data["actions"]),
            None if self._rewardless else np.asarray(data["rewards"]),
            np.asarray(data["terminations"]).astype(bool),
            np.asarray(data["truncations"]).astype(bool),
            dict(self._extras(data["infos"] or {}, steps)),
            json.loads(json.dumps(about, default=plain)),
        )

    def _extras(self, infos: dict[str, Any], steps: int) -> Iterator[tuple[str, np.ndarray]]:
        for name, values in flatten(infos).items():
            array = np.asarray(values)
            if (
                array.dtype.kind not in "fiub"
                or array.ndim == 0
                or not 0 <= steps + 1 - len(array) <= 1
            ):
                self._note(
                    name, f"is {array.dtype} of shape {array.shape}, not one number a row: left out"
                )
                continue
            if len(array) == steps:
                self._note(name, "has no value for the final observation: zeros are put there")
                array = np.concatenate([array, np.zeros_like(array[:1])])
            yield name, array

    def _readable(self, flat: Mapping[str, gym.Space]) -> dict[str, gym.Space]:
        for key, space in flat.items():
            if not isinstance(space, STORED):
                self._note(OBS + key, f"is {space}, which holds no numbers: left out")
        return {key: space for key, space in flat.items() if isinstance(space, STORED)}

    def _warn_lossy(
        self, flat: Mapping[str, gym.Space], is_image: Callable[[gym.Space], bool]
    ) -> None:
        for key in (key for key, space in flat.items() if is_image(space)):
            self._note(OBS + key, "was compressed with JPEG when recorded: pixels are not exact")
            self.metadata.setdefault("lossy", []).append(OBS + key)

    def _note(self, column: str, message: str) -> None:
        if all(problem.column != column for problem in self.problems):
            problem = Problem(message, str(self.path), column, severity="note")
            self.problems.append(problem)
            log.warning("%s", problem)

    def _metadata(self) -> dict[str, Any]:
        minari = {k: v for k, v in self._raw.items() if k not in OWN + OWN_SPACES}
        spec = json.loads(minari.get("env_spec") or "{}")
        about = {"source": f"minari:{minari.get('dataset_id', self.path.parent.name)}"}
        about |= {"env": spec["id"]} if "id" in spec else {}
        ours = self._raw.get("wm_toolkit", {}).get("metadata", {})
        layout = "dict" if self._bare is None else "bare"
        return {**about, **ours, "observation_layout": layout, "minari": minari}


class MinariWriter(Writer):
    """Write episodes one by one; the data set appears when the writer is closed.

    Until then it lies in a hidden folder beside, and a writer opened again goes on after the episodes
    that are finished there.

    Args:
        target: a Minari id ("ns/name-v0"), or the path of a folder named "...-v0".
        spaces: observation spaces and the raw action space.
        metadata: JSON-ready; what an earlier reading put under "minari" is restored.
        units: by column name.
        storage: Minari's "hdf5" or "arrow".

    Raises:
        DataError: if the name is no Minari id, or a data set is there already.
    """

    def __init__(
        self,
        target: str | Path,
        spaces: Spaces,
        *,
        metadata: Mapping[str, Any] | None = None,
        units: Mapping[str, str] | None = None,
        storage: StorageKind = "hdf5",
    ) -> None:
        self._storages = require("minari.dataset.minari_storage", "minari")
        self.path, self.spaces, self.metadata = place(target), spaces, dict(metadata or {})
        self._units, self._kind = dict(units or {}), storage
        if self.path.exists():
            raise DataError(f"{self.path} exists; delete it or choose another name")
        layout = self.metadata.get("observation_layout")
        names = list(spaces.observation)
        bare = layout == "bare" or (layout is None and names in (["image"], ["vector"]))
        self._bare = names[0] if bare else None
        self._folder = partial_folder(self.path)
        self.unfinished_metadata: dict[str, Any] = {}
        self._rewardless = False
        self._storage: Any = self._resume() or self._create()
        # Minari measures the folder after every episode, which is quadratic; once is enough.
        self._storage.get_size = lambda: 0.0

    @property
    def finished(self) -> int:
        return int(self._storage.total_episodes)

    def add_episode(self, trajectory: Trajectory) -> None:
        """Check one episode and put it on disk.

        Raises:
            DataError: naming column, episode and row, if it does not fit the spaces or the episodes
                before it.
        """
        number = self.finished
        trajectory.validate(self.spaces, file=str(self.path), episode=number)
        reward = self._reward(trajectory, number)
        buffers = require("minari.data_collector.episode_buffer", "minari")
        about = json.loads(json.dumps(dict(trajectory.info), default=plain))
        observations = trajectory.obs[self._bare] if self._bare else nest(trajectory.obs)
        buffer = buffers.EpisodeBuffer(
            None,
            about.pop("seed", None),
            about.pop("options", None),
            observations,
            trajectory.action,
            reward,
            trajectory.terminated,
            trajectory.truncated,
            {name: _info(values) for name, values in trajectory.extras.items()},
        )
        self._storage.update_episodes([buffer])
        if about:
            self._storage.update_episode_metadata([about], [number])
        # Minari rewrites its metadata in place; what a killed writer goes on from is this copy.
        shutil.copy(self._folder / METADATA, self._folder / f"{FINISHED}.tmp")
        os.replace(self._folder / f"{FINISHED}.tmp", self._folder / FINISHED)

    def _reward(self, trajectory: Trajectory, number: int) -> np.ndarray:
        """[T] what Minari stores; zeros stand for rewards that are absent in every episode."""
        absent = trajectory.reward is None
        if not number and absent != self._rewardless:
            self._rewardless = absent
            self._storage.update_metadata({"wm_toolkit": self._ours()})
        if absent != self._rewardless:
            raise DataError(
                f"{self.path}, column 'reward', episode {number}: is "
                f"{'missing, the episodes before have it' if absent else 'new, the episodes before lack it'}"
            )
        return np.zeros(len(trajectory), np.float32) if absent else np.asarray(trajectory.reward)

    def close(self) -> None:
        """Give the finished data set its name.

        Raises:
            DataError: if there is not a single episode.
        """
        if not self.finished:
            shutil.rmtree(self._folder)
            raise DataError(f"{self.path}: no episode was written, so there is no data set")
        size = float(type(self._storage).get_size(self._storage))
        self._storage.update_metadata({"dataset_size": size})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._folder, self.path)
        (self.path / FINISHED).unlink()

    def abandon(self) -> None:
        """Stop without completing; the finished episodes stay recoverable."""
        if not self.finished:
            shutil.rmtree(self._folder)

    def _create(self) -> Any:
        data = self._folder / "data"
        data.mkdir(parents=True)
        observation = nest_spaces(self.spaces.observation)
        storage = self._storages.MinariStorage.new(
            data,
            self.spaces.observation[self._bare] if self._bare else observation,
            self.spaces.action,
            data_format=self._kind,
            jpeg_encoding=False,
        )
        told = {
            k: v for k, v in self.metadata.get("minari", {}).items() if k not in OWN + OWN_SPACES
        }
        told |= {k: set(told[k]) for k in ("author", "author_email") if k in told}
        told["dataset_id"] = dataset_id(self.path)
        told["minari_version"] = require("minari", "minari").__version__
        storage.update_metadata({**told, "wm_toolkit": self._ours()})
        return storage

    def _ours(self) -> dict[str, Any]:
        """What this toolkit adds to Minari's metadata."""
        own = {k: v for k, v in self.metadata.items() if k != "minari"}
        absent = ["reward"] if self._rewardless else []
        ours = {"metadata": own, "units": self._units, "absent": absent}
        return json.loads(json.dumps(ours, default=plain))

    def _resume(self) -> Any | None:
        data = self._folder / "data"
        if not (self._folder / FINISHED).exists():  # killed before the first episode was finished
            shutil.rmtree(self._folder, ignore_errors=True)
            return None
        try:
            shutil.copy(self._folder / FINISHED, self._folder / METADATA)
            storage = self._storages.MinariStorage.read(data)
            _drop_torn(data, int(storage.total_episodes))
            ours = load_json(self._folder / METADATA)["wm_toolkit"]
            self._rewardless = "reward" in ours["absent"]
        except (OSError, ValueError, KeyError) as error:
            log.warning("%s cannot be continued (%s); starting over", self._folder, error)
            shutil.rmtree(self._folder)
            return None
        self.unfinished_metadata = ours["metadata"]
        return storage


@contextlib.contextmanager
def _reading(path: Path, episode: int | None = None) -> Iterator[None]:
    """Turn what Minari and its storages raise on damaged data into an error that says where."""
    with reading(path, episode=episode):
        try:
            yield
        except (AssertionError, gym.error.Error) as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _drop_torn(data: Path, finished: int) -> None:
    """Remove an episode that a killed writer left half written in a storage."""
    for folder in data.iterdir():  # one for every episode of an Arrow storage
        if folder.name.isdigit() and int(folder.name) >= finished:
            shutil.rmtree(folder)
    main = data / "main_data.hdf5"
    if not main.exists():
        return
    import h5py

    with h5py.File(main, "a") as file:
        for name in [name for name in file if int(str(name).rsplit("_", 1)[-1]) >= finished]:
            del file[name]
        if len(file) != finished:
            raise ValueError(f"{len(file)} of {finished} episodes are readable")


def _info(values: np.ndarray) -> Any:
    # Minari's Arrow reader cannot decode a one-dimensional array, but a list of numbers it can.
    return list(values) if values.ndim == 1 else values


def _find_none(name_or_path: str | Path) -> Path | None:
    """Reading needs no second name: `minari` reads both storages."""
    return None


FORMATS.register(
    "minari",
    Format(
        "minari",
        find,
        place,
        MinariReader,
        MinariWriter,
        "Minari data sets; both storages are read, HDF5 storage is written.",
    ),
)
FORMATS.register(
    "minari-arrow",
    Format(
        "minari-arrow",
        _find_none,
        place,
        MinariReader,
        functools.partial(MinariWriter, storage="arrow"),
        "Minari data sets written in Arrow storage; `minari` reads them.",
    ),
)
