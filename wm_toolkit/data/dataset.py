"""Offline data: episodes of trajectories in one file, read through memory maps."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_toolkit import catalog
from wm_toolkit.checkpoint import load_json, save_json
from wm_toolkit.data.checks import action_problems, raise_problems
from wm_toolkit.data.columns import Column, feature_columns
from wm_toolkit.data.formats import FORMATS, Format, find_format
from wm_toolkit.data.native import content_checksum, open_native
from wm_toolkit.data.statistics import Statistics, chunk_rows, stream
from wm_toolkit.data.trajectory import OBS, Trajectory
from wm_toolkit.errors import CheckpointError, DataError, UnknownNameError, did_you_mean
from wm_toolkit.spaces import Spaces, is_image

if TYPE_CHECKING:
    from wm_toolkit.data.windows import Windows

log = logging.getLogger(__name__)


class TrajectoryDataset:
    """Episodes of trajectories: named columns over rows, and where each episode begins.

    Args:
        columns: by name; see `wm_toolkit.data.trajectory` for what a row holds.
        spaces: observation spaces and the raw action space of the environment (block 1).
        episode_starts: int64 [n] first row of every episode.
        episode_lengths: int64 [n] rows of every episode: its steps + 1.
        name: for people.
        path: the file it came from.
        metadata: source, licence, env, action_repeat, render settings ...
        checksum: of the file's whole content.
        info: one dict for every episode (seed, options ...), or empty.

    Example:
        >>> data = TrajectoryDataset.load("tworooms")
        >>> train, held_out = data.split(0.9, seed=0)
        >>> train.windows(length=4, frame_skip=5).gather([0, 1, 2]).action.shape
        torch.Size([3, 4, 10])
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        spaces: Spaces,
        episode_starts: np.ndarray,
        episode_lengths: np.ndarray,
        *,
        name: str = "",
        path: Path | None = None,
        metadata: Mapping[str, Any] | None = None,
        checksum: str = "",
        info: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.columns = dict(columns)
        self.spaces = spaces
        self.episode_starts = np.asarray(episode_starts, np.int64)
        self.episode_lengths = np.asarray(episode_lengths, np.int64)
        self.name, self.path = name, path
        self.metadata = dict(metadata or {})
        self.checksum = checksum
        self.info = info

    @classmethod
    def load(cls, name_or_path: str | Path, *, check: bool = True) -> TrajectoryDataset:
        """Open a data set.

        Args:
            name_or_path: a native .h5 file, a Minari folder or id ("ns/name-v0", converted once into
                the cache), or a name of the catalog that was prepared on this machine.
            check: compare columns, lengths and spaces with one another (cheap; the full scan is
                `wm inspect`).

        Raises:
            UnknownNameError: listing the places that were tried.
            DataError: if the file is damaged.
        """
        path = _native_file(name_or_path)
        data = open_native(path, check=check)
        return cls(
            data.columns,
            data.spaces,
            np.cumsum(data.episode_lengths) - data.episode_lengths,
            data.episode_lengths,
            name=str(data.metadata.get("name", path.stem)),
            path=path,
            metadata=data.metadata,
            checksum=data.checksum,
            info=data.info,
        )

    @classmethod
    def from_trajectories(
        cls, trajectories: Iterable[Trajectory], spaces: Spaces, *, name: str = "", **metadata: Any
    ) -> TrajectoryDataset:
        """A data set in memory.

        Raises:
            DataError: if an episode does not fit the spaces, or there is none.
        """
        episodes = list(trajectories)
        for i, episode in enumerate(episodes):
            episode.validate(spaces, file=name, episode=i)
        if not episodes:
            raise DataError("no episode was given, so there is no data set")
        rows = [episode.to_rows(spaces.action) for episode in episodes]
        columns = {n: Column(n, np.concatenate([r[n] for r in rows])) for n in rows[0]}
        lengths = np.array([len(episode) + 1 for episode in episodes], np.int64)
        checksum, info = content_checksum(columns, lengths), [dict(e.info) for e in episodes]
        starts = np.cumsum(lengths) - lengths
        about = {"name": name, "metadata": metadata, "checksum": checksum, "info": info}
        return cls(columns, spaces, starts, lengths, **about)

    # -- what is inside --------------------------------------------------------------------------
    @property
    def num_episodes(self) -> int:
        """How many episodes there are."""
        return len(self.episode_lengths)

    @property
    def num_rows(self) -> int:
        """How many rows the episodes have together: steps + episodes."""
        return int(self.episode_lengths.sum())

    def __len__(self) -> int:
        return self.num_episodes

    def __repr__(self) -> str:
        return (
            f"TrajectoryDataset({self.name!r}, {self.num_episodes} episodes, {self.num_rows} rows)"
        )

    def rows(self, i: int) -> dict[str, np.ndarray]:
        """Every column of episode i, [rows, ...]; views of the file.

        Raises:
            DataError: if there is no such episode.
        """
        if not -len(self) <= i < len(self):
            raise DataError(f"{self!r} has no episode {i}")
        start = int(self.episode_starts[i])
        stop = start + int(self.episode_lengths[i])
        return {name: column.array[start:stop] for name, column in self.columns.items()}

    def episode(self, i: int) -> Trajectory:
        """Episode i as T + 1 observations and T actions; arrays are views of the file."""
        return Trajectory.from_rows(self.rows(i), self.info[i] if self.info else {})

    def __iter__(self) -> Iterator[Trajectory]:
        return (self.episode(i) for i in range(len(self)))

    def check_actions(self) -> None:
        """Read every action once; the other columns are left to `wm inspect`.

        Raises:
            DataError: naming file, episode and row of the first NaN, infinite or impossible action.
        """
        array, file = self.columns["action"].array, str(self.path or self.name)
        spans = zip(self.episode_starts, self.episode_lengths, strict=True)
        for i, (start, length) in enumerate(spans):
            found = action_problems(array[start : start + length - 1], self.spaces.action)
            raise_problems(dataclasses.replace(p, file=file, episode=i) for p in found)

    # -- parts -----------------------------------------------------------------------------------
    def select(self, episodes: Sequence[int] | np.ndarray) -> TrajectoryDataset:
        """The episodes of these numbers [N], in this order; shares the memory maps."""
        chosen = np.asarray(episodes, np.int64)
        return TrajectoryDataset(
            self.columns,
            self.spaces,
            self.episode_starts[chosen],
            self.episode_lengths[chosen],
            name=self.name,
            path=self.path,
            metadata=self.metadata,
            checksum=self.checksum,
            info=[self.info[i] for i in chosen] if self.info else [],
        )

    def split(
        self, fraction: float = 0.9, seed: int = 0
    ) -> tuple[TrajectoryDataset, TrajectoryDataset]:
        """Part the episodes at random: (training, held out). The same seed gives the same parts.

        Args:
            fraction: share of the episodes in the first part; both parts get at least one.
            seed: of the permutation.

        Raises:
            DataError: if fraction is not between 0 and 1, or there are fewer than two episodes.
        """
        if not 0 < fraction < 1:
            raise DataError(f"fraction is {fraction}, expected a number between 0 and 1")
        if len(self) < 2:
            raise DataError(f"{self!r} cannot be split; record at least two episodes")
        order = np.random.default_rng(seed).permutation(len(self))
        first = min(max(round(fraction * len(self)), 1), len(self) - 1)
        return self.select(np.sort(order[:first])), self.select(np.sort(order[first:]))

    def released_split(self) -> tuple[TrajectoryDataset, TrajectoryDataset]:
        """The parts that the data set was released with: (training, held out).

        Raises:
            DataError: if its episodes do not say to which part they belong.
        """
        sides = [about.get("split") for about in self.info]
        parts = [[i for i, side in enumerate(sides) if side == name] for name in ("train", "val")]
        if not all(parts):
            raise DataError(
                f"{self!r} does not say which episodes its release holds out; use a random split"
            )
        return self.select(parts[0]), self.select(parts[1])

    def windows(
        self, length: int, *, stride: int = 1, frame_skip: int = 1, **options: Any
    ) -> Windows:
        """Every window of `length` frames; see `Windows` for the options."""
        from wm_toolkit.data.windows import Windows

        return Windows(self, length, stride=stride, frame_skip=frame_skip, **options)

    # -- statistics ------------------------------------------------------------------------------
    @functools.cached_property
    def fingerprint(self) -> str:
        """Names content and choice of episodes; two data sets with the same one hold the same rows."""
        choice = self.episode_starts.tobytes() + self.episode_lengths.tobytes()
        return hashlib.sha256(self.checksum.encode() + choice).hexdigest()[:16]

    def statistics(self, names: Collection[str] | None = None) -> dict[str, Statistics]:
        """Statistics of numeric columns over these episodes, images per channel.

        Filler actions and the first rows' rewards are left out. Computed once in chunks and kept in
        `<file>.statistics.json`.

        Args:
            names: of the columns; by default all but those of stored features, which nothing scales and
                which are the size of the frames.

        Raises:
            DataError: for a column that is not there or holds no numbers.
        """
        wanted = self._scaled() if names is None else list(names)
        for name in wanted:
            if name not in self.columns or not self._numeric(name):
                known = did_you_mean(name, filter(self._numeric, self.columns))
                raise DataError(f"{self!r} has no column {name!r} of numbers.{known}")
        saved = _load_statistics(self.path).get(self.fingerprint, {}) if self.checksum else {}
        found = {n: Statistics.from_dict(saved[n]) for n in wanted if n in saved}
        missing = {n: self._column_statistics(n) for n in wanted if n not in found}
        if missing:
            new = {name: values.to_dict() for name, values in missing.items()}
            _save_statistics(self.path, self.fingerprint, {**saved, **new})
        return {name: (found | missing)[name] for name in wanted}

    def _scaled(self) -> list[str]:
        features = feature_columns(self.metadata)
        return [name for name in self.columns if self._numeric(name) and name not in features]

    def _numeric(self, name: str) -> bool:
        return self.columns[name].dtype.kind in "fiub"

    def _column_statistics(self, name: str) -> Statistics:
        space = self.spaces.observation.get(name.removeprefix(OBS))
        image = name.startswith(OBS) and space is not None and is_image(space)
        return stream(self._chunks(name), image=image)

    def _chunks(self, name: str) -> Iterator[np.ndarray]:
        """The rows of a column that mean something, in runs of neighbouring episodes."""
        skip_first = int(name in ("reward", "terminated", "truncated"))
        skip_last = int(name == "action")
        array = self.columns[name].array
        step = chunk_rows(self.columns[name].nbytes // max(1, len(array)))
        batch: list[np.ndarray] = []
        held = 0
        for start, length in zip(self.episode_starts, self.episode_lengths, strict=True):
            stop = start + length - skip_last
            for row in range(start + skip_first, stop, step):
                batch.append(array[row : min(row + step, stop)])
                held += len(batch[-1])
                if held >= step:
                    yield np.concatenate(batch)
                    batch, held = [], 0
        yield np.concatenate([array[:0], *batch])


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".statistics.json")


def _load_statistics(path: Path | None) -> dict[str, Any]:
    if path is None or not _sidecar(path).exists():
        return {}
    try:
        return load_json(_sidecar(path))
    except CheckpointError as error:
        log.warning("%s; computing the statistics again", error)
        return {}


def _save_statistics(path: Path | None, key: str, found: Mapping[str, Any]) -> None:
    if path is None:
        return
    everything = _load_statistics(path)
    everything[key] = dict(found)
    try:
        save_json(_sidecar(path), everything)
    except OSError as error:
        log.warning("%s cannot be written (%s); statistics are not kept", _sidecar(path), error)


def find_dataset(name_or_path: str | Path) -> tuple[Format, Path]:
    """The format and place of a data set: a path, a prepared catalog name, or a local Minari id.

    Raises:
        UnknownNameError: listing the places that were tried.
    """
    name = str(name_or_path)
    prepared = catalog.home() / "datasets" / f"{name}.h5"
    entry = catalog.entries("datasets").get(name)
    candidates = [Path(name_or_path), prepared, *([entry.path] if entry and entry.path else [])]
    for candidate in [*candidates, name]:
        found = find_format(candidate)
        if found is not None:
            return found
    if Path(name_or_path).is_file():
        return FORMATS["hdf5"], Path(name_or_path)  # opening it says what is wrong with it
    raise UnknownNameError(_not_found(name, candidates, entry))


def _native_file(name_or_path: str | Path) -> Path:
    """The native file that a name or path means; other formats are converted once, into the cache."""
    found, path = find_dataset(name_or_path)
    if found.name == "hdf5":
        return path
    from wm_toolkit.data.convert import cached

    return cached(found, path)


def _not_found(name: str, candidates: Sequence[Path], entry: catalog.Entry | None) -> str:
    tried = ", ".join(map(str, candidates))
    if entry is not None:
        how = entry.extra.get("prepare", "see its card in datasets/cards")
        return f"the data set {name!r} is not prepared on this machine (looked at {tried}); {how}"
    folder = catalog.home() / "datasets"
    known = {file.stem for file in folder.glob("*.h5")} | catalog.entries("datasets").keys()
    return (
        f"no data set {name!r}; looked at {tried} and at local Minari ids.{did_you_mean(name, known)} "
        "A data set on a hub is fetched with `wm convert ns/name-v0 name.h5`"
    )
