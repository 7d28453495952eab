"""Look a data set over: what is inside, and every problem there is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_toolkit.data.checks import Problem, number_problems
from wm_toolkit.data.columns import feature_columns
from wm_toolkit.data.dataset import TrajectoryDataset, find_dataset
from wm_toolkit.data.formats import Reader
from wm_toolkit.data.native import NativeData, content_checksum, file_problems
from wm_toolkit.data.statistics import Moments, chunk_rows, moments
from wm_toolkit.data.trajectory import OBS, Trajectory
from wm_toolkit.errors import DataError, SpaceError
from wm_toolkit.spaces import is_image


@dataclasses.dataclass
class Report:
    """What `inspect` found.

    Attributes:
        path: the file or folder.
        format: "hdf5", "minari".
        bytes: on disk.
        metadata: as stored.
        action: the action space, in words.
        lengths: steps of every sound episode.
        returns: undiscounted sum of rewards of every sound episode; empty without rewards.
        terminated: episodes that ended in a terminal state.
        truncated: episodes that were cut from outside.
        columns: by name: dtype, shape of a row, unit, mean, std, min, max (images: per channel; features
            of frames: over all numbers, with the identity of their encoder).
        problems: everything found, in the order of the data.
    """

    path: str
    format: str
    bytes: int
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    action: str = ""
    lengths: list[int] = dataclasses.field(default_factory=list)
    returns: list[float] = dataclasses.field(default_factory=list)
    terminated: int = 0
    truncated: int = 0
    columns: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    problems: list[Problem] = dataclasses.field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether there is no error; notes may remain."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; lengths and returns as mean, min and max."""
        plain = dataclasses.asdict(self)
        plain["episodes"] = len(self.lengths)
        plain["steps"] = sum(self.lengths)
        for name in ("lengths", "returns"):
            values = plain.pop(name)
            plain[name] = _spread(values)
        return plain | {
            "sound": self.sound,
            "problems": [str(problem) for problem in self.problems],
        }


def inspect(name_or_path: str | Path) -> Report:
    """Read a whole data set and report what is inside and everything that is wrong.

    Damage is reported, never raised, so a broken file still gets a report.

    Args:
        name_or_path: as for `TrajectoryDataset.load`; Minari data sets are read where they are.

    Raises:
        UnknownNameError: if there is no such data set.
    """
    chosen, path = find_dataset(name_or_path)
    report = Report(str(path), chosen.name, _size(path))
    if chosen.name == "hdf5":
        report.problems += file_problems(path)
        if report.problems:
            return report
    try:
        reader = chosen.read(path)
    except (DataError, SpaceError) as error:
        report.problems.append(Problem(str(error)))
        return report
    report.metadata, report.action = reader.metadata, str(reader.spaces.action)
    _scan(reader, report)
    report.problems += reader.problems
    if isinstance(reader, NativeData):
        report.problems += _native_problems(reader)
    return report


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}


def verify(dataset: TrajectoryDataset) -> bool:
    """Whether a data set's rows still are what they were when it was written (reads everything).

    Raises:
        DataError: if the data set is not the whole of a file.
    """
    if dataset.path is None or not dataset.checksum:
        raise DataError(f"{dataset!r} has no file with a checksum to compare with")
    data = dataset.load(dataset.path)
    return content_checksum(data.columns, data.episode_lengths) == dataset.checksum


def _scan(reader: Reader, report: Report) -> None:
    totals: dict[str, Moments] = {}
    for i in range(len(reader)):
        try:
            episode = next(reader.episodes(i))
        except DataError as error:
            report.problems.append(Problem(str(error), str(reader.path), episode=i))
            continue
        found = [
            dataclasses.replace(problem, file=str(reader.path), episode=i)
            for problem in (*episode.problems(reader.spaces), *_feature_problems(reader, episode))
        ]
        report.problems += found
        if not found:
            _add(report, totals, episode, reader)
    for name, total in totals.items():
        statistics = total.statistics().to_dict()
        report.columns[name] |= statistics | {"unit": reader.units.get(name, "")}


def _feature_problems(reader: Reader, episode: Trajectory) -> Iterator[Problem]:
    """What is wrong with the columns of encoded frames that the metadata speaks of."""
    for name, identity in feature_columns(reader.metadata).items():
        if name not in episode.extras:
            yield Problem("is missing, but the metadata says what it holds", column=name)
            continue
        values = episode.extras[name]
        if str(values.dtype) != identity.get("dtype") or values.ndim != 3:
            have = f"is {values.dtype} {values.shape[1:]} a row"
            yield Problem(f"{have}, expected {identity.get('dtype')} (P, E)", column=name)
        yield from number_problems(name, values, infinity=False)


def _add(report: Report, totals: dict[str, Moments], episode: Trajectory, reader: Reader) -> None:
    """Count one sound episode in."""
    report.lengths.append(len(episode))
    report.terminated += int(episode.terminated.any())
    report.truncated += int(episode.truncated.any())
    if episode.reward is not None:
        report.returns.append(float(episode.reward.sum(dtype=np.float64)))
    features = feature_columns(reader.metadata)
    for name, values in _arrays(episode):
        about = {"dtype": str(values.dtype), "shape": list(values.shape[1:])}
        about |= {"identity": features[name]} if name in features else {}
        report.columns.setdefault(name, about)
        if len(values):
            space = reader.spaces.observation.get(name.removeprefix(OBS))
            image = name.startswith(OBS) and space is not None and is_image(space)
            part = _overall(values) if name in features else moments(values, image=image)
            totals[name] = totals[name].merge(part) if name in totals else part


def _overall(values: np.ndarray) -> Moments:
    """Moments of all numbers together: of a row's 75,000 tokens' components none means much alone."""
    step = chunk_rows(4 * values[0].nbytes)
    parts = (values[row : row + step].reshape(-1) for row in range(0, len(values), step))
    return functools.reduce(Moments.merge, map(moments, parts))


def _arrays(episode: Trajectory) -> Iterator[tuple[str, np.ndarray]]:
    yield from ((OBS + key, values) for key, values in episode.obs.items())
    yield "action", episode.action
    if episode.reward is not None:
        yield "reward", episode.reward
    yield from ((name, values) for name, values in episode.extras.items())


def _native_problems(data: NativeData) -> Iterator[Problem]:
    first = np.cumsum(data.episode_lengths) - data.episode_lengths
    for name in ("reward", "terminated", "truncated"):
        if name in data.columns:
            values = data.columns[name].array[first]
            for episode in np.flatnonzero(values)[:1]:
                yield Problem(
                    f"is {values[episode]} on the first row, where nothing can have arrived yet",
                    str(data.path),
                    name,
                    int(episode),
                    0,
                )
    if data.checksum and content_checksum(data.columns, data.episode_lengths) != data.checksum:
        yield Problem("the content does not match its checksum: it changed on disk", str(data.path))


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
