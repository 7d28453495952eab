"""LeRobot data set folders, versions 2.0, 2.1 and 3.0 (read only).

    meta/info.json       version, frames per second, robot, features, where files lie
    data/...             parquet tables, a row a frame: one file an episode (v2), several in one (v3)
    videos/...           films of the features of type "video", likewise
    meta/episodes...     which episodes there are; in v3 in which files, and from when on in films
    meta/tasks...        what was to be done
    README.md            licence

Row t holds the observation, the action taken in it and what that earned (`next.reward`), so the outcome
of an episode's last action is not known: it is dropped, and n rows are n - 1 steps. `next.done` does not
tell an end of the task from a cut, so every end is `truncated`; the flag is kept as an extra column, and
the dropped reward as "last_reward" in the episode's info.

    observation.state              observation "proprio" (joints, grippers: the robot itself)
    the only film or image         observation "image"
    observation.images.top         observation "top", where there are several
    observation.anything           observation "anything"
    action, next.reward            action, reward
    next.done, next.success, timestamp, frame_index, episode_index, task_index, others: extras

Frames are found by their time, which has to be right to half a frame. Text, depth and sound are left out,
and `index`, which counts all rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wm_toolkit.data.film import Film
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
from wm_toolkit.data.formats.lerobot_meta import (
    ACTION,
    INFO,
    REWARD,
    read_episodes,
    read_info,
    read_licence,
    read_tasks,
    sort_features,
    split_names,
)
from wm_toolkit.data.trajectory import OBS, Trajectory
from wm_toolkit.spaces import Spaces

NUMBER, TIME, ROW = "episode_index", "timestamp", "frame_index"


class LeRobotReader(ForeignReader):
    """A folder, read episode by episode; the table and the films in use stay open.

    Args:
        path: the folder that holds `meta`, `data` and `videos`.

    Raises:
        DataError: naming the file that is missing, damaged, or of another version.
        MissingPackageError: if there are films and PyAV is not installed.

    Example:
        >>> reader = LeRobotReader(Path("lerobot/pusht"))
        >>> sorted(reader.spaces.observation), reader.metadata["fps"]
        (['image', 'proprio'], 10)
    """

    def __init__(self, path: Path) -> None:
        info = read_info(path)
        super().__init__(path, source=f"LeRobot {info['codebase_version']}")
        self._fps = float(info["fps"])
        self._features = sort_features(info, path / INFO)
        self._episodes = read_episodes(path, info, self._features.films)
        self._splits = split_names(info, len(self._episodes))
        self._about(info)
        self._table: tuple[Path, pa.Table] | None = None
        self._films: dict[str, Film] = {}
        self.spaces = Spaces(self._observation_spaces(), self._action_space())

    def __len__(self) -> int:
        return len(self._episodes)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on.

        Raises:
            DataError: naming file, column, episode and row that cannot be read.
        """
        for i in range(start, len(self)):
            yield self._trajectory(i)

    def _trajectory(self, i: int) -> Trajectory:
        episode, features = self._episodes[i], self._features
        rows = self._rows(i)
        extras = {name: self._numbers(rows, name, i) for name in features.extras}
        obs = {key: self._numbers(rows, name, i) for key, name in features.vectors.items()}
        for key, name in features.pictures.items():
            if name in features.films:
                obs[key] = self._film_frames(name, rows, i)
            else:
                obs[key] = self._pictures(rows, name, i)
        reward = self._numbers(rows, REWARD, i) if REWARD in features.types else None
        said = {"tasks": episode.tasks, "split": self._splits[i]}
        info: dict[str, Any] = {name: value for name, value in said.items() if value}
        if reward is not None:
            info["last_reward"] = float(reward[-1])
        action = self._numbers(rows, ACTION, i)
        return without_outcome(obs, action, extras, info, reward=reward)

    # -- tables ----------------------------------------------------------------------------------
    def _rows(self, i: int) -> pa.Table:
        """The rows of an episode, all columns."""
        episode = self._episodes[i]
        with reading(episode.table, episode=i):
            if self._table is None or self._table[0] != episode.table:
                columns = list(dict.fromkeys([*self._features.table, NUMBER, TIME, ROW]))
                self._table = episode.table, pq.read_table(episode.table, columns=columns)
            table = self._table[1]
            own = np.flatnonzero(table[NUMBER].to_numpy() == episode.index)
            rows = table.slice(int(own[0]) if len(own) else 0, len(own))
            order = rows[ROW].to_numpy()
        if len(own) != episode.rows or not np.array_equal(order, np.arange(len(own))):
            what = f"does not count 0 ... {episode.rows - 1} in the {len(own)} rows of the episode"
            refuse(episode.table, ROW, what, episode=i)
        return rows

    def _numbers(self, rows: pa.Table, name: str, i: int) -> np.ndarray:
        """A column [n, *shape]."""
        with reading(self._episodes[i].table, name, i):
            return _as_array(rows[name], self._row_shape(name))

    def _row_shape(self, name: str) -> tuple[int, ...]:
        """The shape of one row; single numbers that are no vector of an agent have none."""
        shape, dtype = self._features.shapes[name], np.dtype(self._features.types[name])
        vector = name in self._features.vectors.values() or (name == ACTION and dtype.kind == "f")
        return () if shape == (1,) and not vector else shape

    # -- pictures --------------------------------------------------------------------------------
    def _pictures(self, rows: pa.Table, name: str, i: int) -> np.ndarray:
        """uint8 [n, H, W, 3] of pictures inside the table, or in files that it names."""
        path, found = self._episodes[i].table, []
        for row, cell in enumerate(rows[name].to_pylist()):
            try:
                found.append(_picture(cell, self.path))
            except (OSError, ValueError, TypeError, SyntaxError) as error:  # as Pillow raises them
                refuse(path, name, f"cannot be read: {error}", episode=i, row=row)
        with reading(path, name, i):
            return np.stack(found)

    def _film_frames(self, name: str, rows: pa.Table, i: int) -> np.ndarray:
        """uint8 [n, H, W, 3] of a film, by the time of every row."""
        path, begin = self._episodes[i].films[name]
        film = self._film(name, i)
        wanted = begin + self._numbers(rows, TIME, i).astype(np.float64)
        after = np.searchsorted(film.times, wanted).clip(1, max(1, len(film) - 1))
        near = np.stack([after - 1, after.clip(max=len(film) - 1)])
        gaps = np.abs(film.times[near] - wanted)
        numbers = np.where(gaps[0] <= gaps[1], near[0], near[1])
        late = np.flatnonzero(gaps.min(0) > 0.5 / self._fps)
        if len(late):
            row = int(late[0])
            what = f"has no frame at {wanted[row]:.4f} s, of {len(film)} the last is at"
            refuse(path, name, f"{what} {film.times[-1]:.4f} s", episode=i, row=row)
        return film.frames(numbers, episode=i)

    def _film(self, name: str, i: int) -> Film:
        """The film of an episode; the next episode may lie in the same one."""
        path, known = self._episodes[i].films[name][0], self._films.get(name)
        if known is None or known.path != path:
            if known is not None:
                known.close()
            self._films[name] = known = Film(path, column=name, episode=i)
        return known

    # -- about the whole -------------------------------------------------------------------------
    def _observation_spaces(self) -> dict[str, gym.Space]:
        features = self._features
        shapes = {key: ((*self._size(name), 3), "uint8") for key, name in features.pictures.items()}
        shapes |= {k: (self._row_shape(n), features.types[n]) for k, n in features.vectors.items()}
        return {key: observation_space(shape, np.dtype(t)) for key, (shape, t) in shapes.items()}

    def _size(self, name: str) -> tuple[int, int]:
        """Height and width of the first picture; what the features say may be in any order."""
        if name in self._features.films:
            return self._film(name, 0).size
        height, width, _ = self._pictures(self._rows(0).slice(0, 1), name, 0)[0].shape
        return height, width

    def _action_space(self) -> gym.Space:
        """From all actions; the other columns are not read."""
        shape, ends = self._row_shape(ACTION), []
        for table in dict.fromkeys(episode.table for episode in self._episodes):
            with reading(table, ACTION):
                actions = _as_array(pq.read_table(table, columns=[ACTION])[ACTION], shape)
                ends += action_range(actions)
        with reading(self.path, ACTION):
            dtype = np.dtype(self._features.types[ACTION])
            return action_space(np.min(ends, 0), np.max(ends, 0), shape, dtype)

    def _about(self, info: dict[str, Any]) -> None:
        features = self._features
        observed = {**features.pictures, **features.vectors}
        said = {
            "fps": info["fps"],
            "robot": info.get("robot_type"),
            "licence": read_licence(self.path),
            "tasks": read_tasks(self.path, info),
            "renamed": {OBS + key: name for key, name in observed.items()},
        }
        self.metadata |= {name: value for name, value in said.items() if value}
        for name, why in features.left_out.items():
            self._note(name, f"{why}: left out")


def _as_array(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    """A column of numbers, or of lists of them, as an array [n, *shape]."""
    values = column.combine_chunks()
    while True:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if values.null_count:
            raise ValueError(f"has {values.null_count} empty values")
        if not isinstance(values, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
            return values.to_numpy(zero_copy_only=False).reshape(len(column), *shape)
        values = values.flatten()


def _picture(cell: Any, root: Path) -> np.ndarray:
    """uint8 [H, W, 3] of the bytes of a picture, or of the file inside the data set that is named."""
    data = cell["bytes"]
    if data is None:
        file = (root / cell["path"]).resolve()
        if not file.is_relative_to(root.resolve()):
            raise ValueError(f"{file} is not inside the data set")
        data = file.read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    return path if (path / INFO).is_file() and (path / "data").is_dir() else None


FORMATS.register("lerobot", read_only("lerobot", _find, LeRobotReader))
