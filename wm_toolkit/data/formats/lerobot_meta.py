"""What the `meta` folder of a LeRobot data set says: features, episodes, tasks, and where they lie."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from wm_toolkit.data.foreign import reading, refuse

INFO = "meta/info.json"
VERSIONS = ("v2.", "v3.")
STATE, OBSERVED, PICTURED = "observation.state", "observation.", "observation.images."
ACTION, REWARD, INDEX = "action", "next.reward", "index"
PICTURES = ("image", "video")


@dataclasses.dataclass(frozen=True)
class Features:
    """Which feature of the release becomes what; the values are names of features.

    Attributes:
        pictures: films and images, by observation key.
        vectors: other observations, by observation key.
        extras: numbers that no agent saw.
        left_out: why, by feature.
        shapes: of one row, by feature.
        types: of one number, or "image" or "video", by feature.
    """

    pictures: dict[str, str]
    vectors: dict[str, str]
    extras: list[str]
    left_out: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]

    @property
    def films(self) -> list[str]:
        """The features that are films."""
        return [name for name in self.pictures.values() if self.types[name] == "video"]

    @property
    def table(self) -> list[str]:
        """The features that are columns of the tables."""
        used = [*self.pictures.values(), *self.vectors.values(), *self.extras]
        found = [name for name in used if self.types[name] != "video"]
        return [*found, ACTION, *([REWARD] if REWARD in self.types else [])]


@dataclasses.dataclass(frozen=True)
class Episode:
    """One episode of the release.

    Attributes:
        index: its number there.
        rows: how many there are.
        tasks: what was to be done.
        table: the file with its rows.
        films: the file, and the second in it at which the episode begins, by feature.
    """

    index: int
    rows: int
    tasks: list[str]
    table: Path
    films: dict[str, tuple[Path, float]]


def read_info(root: Path) -> dict[str, Any]:
    """`meta/info.json`.

    Raises:
        DataError: if it is damaged, or of a version that is not read.
    """
    path = root / INFO
    with reading(path):
        info = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError(f"holds {info!r:.60}, expected a dictionary")
        version = str(info["codebase_version"])
        if not version.startswith(VERSIONS):
            raise ValueError(f"has version {version!r}, expected v2.0, v2.1 or v3.0")
        for name in ("features", "fps", "data_path"):
            if name not in info:
                raise ValueError(f"has no {name!r}; there are {sorted(info)}")
        if not isinstance(info["features"], dict):
            raise ValueError(f"has features {info['features']!r:.60}, expected a dictionary")
        for name, feature in info["features"].items():
            if not isinstance(feature, dict) or not {"dtype", "shape"} <= feature.keys():
                raise ValueError(f"feature {name!r} is {feature!r:.60}, expected dtype and shape")
    return info


def sort_features(info: Mapping[str, Any], path: Path) -> Features:
    """What becomes of every feature.

    Raises:
        DataError: if there is no action, or no observation.
    """
    types = {name: str(feature["dtype"]) for name, feature in info["features"].items()}
    shapes = {name: tuple(feature["shape"]) for name, feature in info["features"].items()}
    left_out = dict(_left_out(info["features"]))
    kept = [name for name in types if name not in left_out]
    if ACTION not in kept:
        refuse(path, ACTION, f"is missing; there are {sorted(types)}")
    seen = [name for name in kept if types[name] in PICTURES]
    others = [name for name in kept if name not in (*seen, ACTION, REWARD, INDEX)]
    vectors = [name for name in others if name.startswith(OBSERVED)]
    if not seen and not vectors:
        refuse(path, OBSERVED[:-1], f"is missing; there are {sorted(types)}")
    keys = _keys(seen, vectors)
    return Features(
        {keys[name]: name for name in seen},
        {keys[name]: name for name in vectors},
        [name for name in others if name not in vectors],
        left_out,
        shapes,
        types,
    )


def _left_out(features: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, feature in features.items():
        about = {**(feature.get("info") or {}), **(feature.get("video_info") or {})}
        if about.get("is_depth_map") or about.get("video.is_depth_map"):
            yield name, "is a map of depths"
        elif feature["dtype"] in PICTURES:
            if len(feature["shape"]) != 3 or 3 not in feature["shape"]:
                yield name, f"has shape {feature['shape']}, which is no colour picture"
        elif feature["dtype"] not in np.sctypeDict or np.dtype(feature["dtype"]).kind not in "fiub":
            yield name, f"holds {feature['dtype']}, not numbers"


def _keys(pictures: list[str], vectors: list[str]) -> dict[str, str]:
    """Observation keys by feature: short ones, as long as they are different."""
    found = {name: name.removeprefix(PICTURED).removeprefix(OBSERVED) for name in pictures}
    if len(pictures) == 1:
        found[pictures[0]] = "image"
    found |= {n: "proprio" if n == STATE else n.removeprefix(OBSERVED) for n in vectors}
    short = list(found.values())
    return {name: key if short.count(key) == 1 else name for name, key in found.items()}


def read_episodes(root: Path, info: Mapping[str, Any], films: list[str]) -> list[Episode]:
    """All episodes in the order of their numbers.

    Raises:
        DataError: naming the file that is missing or damaged.
    """
    modern = str(info["codebase_version"]).startswith("v3.")
    files = sorted((root / "meta/episodes").glob("*/*.parquet")) if modern else []
    files = files or [root / "meta" / ("episodes" if modern else "episodes.jsonl")]
    found: list[Episode] = []
    for file in files:
        with reading(file):
            rows = _table_rows(file) if modern else _json_lines(file)
            place = _modern if modern else _older
            try:
                found += [place(root, info, films, row) for row in rows]
            except (AttributeError, TypeError) as error:
                raise ValueError(f"does not say where episodes lie: {error}") from error
    if not found:
        refuse(files[0], "", "names no episode")
    found.sort(key=lambda episode: episode.index)
    said = info.get("total_episodes", len(found))
    if said != len(found):
        what = f"names {len(found)} episodes, {INFO} says {said!r}; a part of it is missing"
        refuse(files[0].parent if modern else files[0], "", what)
    for i, episode in enumerate(found):
        if episode.rows < 2:
            refuse(files[0], "length", f"is {episode.rows}, expected 2 or more", episode=i)
    return found


def _older(root: Path, info: Mapping[str, Any], films: list[str], row: Mapping) -> Episode:
    number = int(row["episode_index"])
    place = {
        "episode_index": number,
        "episode_chunk": number // int(info.get("chunks_size", 1000)),
        "total_episodes": info.get("total_episodes"),
    }
    return Episode(
        number,
        int(row["length"]),
        list(row.get("tasks", [])),
        root / info["data_path"].format(**place),
        {n: (root / info["video_path"].format(video_key=n, **place), 0.0) for n in films},
    )


def _modern(root: Path, info: Mapping[str, Any], films: list[str], row: Mapping) -> Episode:
    def place(prefix: str) -> dict[str, int]:
        return {n: int(row[f"{prefix}/{n}"]) for n in ("chunk_index", "file_index")}

    return Episode(
        int(row["episode_index"]),
        int(row["length"]),
        list(row.get("tasks") or []),
        root / info["data_path"].format(**place("data")),
        {
            n: (
                root / info["video_path"].format(video_key=n, **place(f"videos/{n}")),
                float(row[f"videos/{n}/from_timestamp"]),
            )
            for n in films
        },
    )


def _table_rows(file: Path) -> list[dict[str, Any]]:
    names = pq.read_schema(file).names
    # Statistics of every episode lie beside, a hundred columns that are not wanted here.
    wanted = [name for name in names if not name.startswith("stats/")]
    return pq.read_table(file, columns=wanted).to_pylist()


def _json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def read_tasks(root: Path, info: Mapping[str, Any]) -> list[str]:
    """The tasks in the order of their numbers; empty if no file says so.

    Raises:
        DataError: if the file is damaged.
    """
    modern = str(info["codebase_version"]).startswith("v3.")
    file = root / "meta" / ("tasks.parquet" if modern else "tasks.jsonl")
    if not file.exists():
        return []
    with reading(file):
        rows = pq.read_table(file).to_pylist() if modern else _json_lines(file)
        texts = {int(row.pop("task_index")): str(next(iter(row.values()))) for row in rows}
    return [texts[i] for i in sorted(texts)]


def split_names(info: Mapping[str, Any], count: int) -> list[str]:
    """The split that each of `count` episodes belongs to; empty where there is but one."""
    names, splits = [""] * count, info.get("splits") or {}
    for name, span in splits.items() if len(splits) > 1 else ():
        ends = re.fullmatch(r"(\d+):(\d+)", str(span))
        for i in range(int(ends[1]), min(int(ends[2]), count)) if ends else ():
            names[i] = name
    return names


def read_licence(root: Path) -> str:
    """The licence that the head of README.md names, or nothing."""
    card = root / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    named = re.search(r"^license:\s*(\S+)", head[1], re.MULTILINE) if head else None
    return named[1] if named else ""
