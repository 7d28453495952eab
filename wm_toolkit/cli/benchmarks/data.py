"""How fast windows of frames come off the disk's cache."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.cli.benchmarks import Case, benchmark
from wm_toolkit.cli.benchmarks.measure import Spent, compare, median, now
from wm_toolkit.cli.benchmarks.rival import RivalWindows, rival_module, rival_name
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.loader import Loader
from wm_toolkit.data.windows import Windows
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.jobs import prepare_two_rooms

BATCH = 64
EPISODES = {64: 100, 224: 25}
"""By the side of a frame, px: 75 MB and 230 MB of frames."""
WINDOWS = ((4, 1), (4, 5), (16, 1))
"""(frames in a window, frame skip)"""
WORKERS = (0, 2)
OURS, FRAME = "wm_toolkit", 64
SOME, OFTEN = 8_000, 10
"""Frames of 64 px between two looks at the clock; we are fast, so we read several times as many."""
COPIES = 5
AHEAD = 4
"""Batches that are read before the clock starts: what two workers hold ready."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """One way to the same windows.

    Attributes:
        name: of the package, with its version.
        stream: an endless stream of batches, given (workers).
        batches: read between two looks at the clock.
    """

    name: str
    stream: Callable[[int], Iterator[Any]]
    batches: int

    def measure(self, workers: int) -> Spent:
        """What one window takes, once the stream runs steadily."""
        stream = self.stream(workers)
        for _ in range(AHEAD):
            next(stream)
        before = now()
        for _ in range(self.batches):
            next(stream)
        return (now() - before).times(1 / (self.batches * BATCH))


@benchmark("data")
def run(quick: bool) -> Iterator[Case]:
    """Random windows of frames per CPU second, in batches of 64, through loaders with 0 and 2 workers."""
    for size in (64,) if quick else EPISODES:
        with tempfile.TemporaryDirectory() as folder:
            files = Files(Path(folder), size, EPISODES[size] // 2 if quick else EPISODES[size])
            for length, skip in WINDOWS:
                windows = files.data.windows(length, frame_skip=skip)
                for workers in WORKERS[:1] if quick else WORKERS:
                    # Starting workers anew takes seconds, and each of their runs is long.
                    repeats = 1 if quick or workers else 3
                    yield from measure(files, windows, workers, repeats)


def measure(files: Files, windows: Windows, workers: int, repeats: int) -> Iterator[Case]:
    """All readers take turns; one case for each rival, or one without a rival."""
    readers = files.readers(windows)
    found: dict[str, list[Spent]] = {reader.name: [] for reader in readers}
    for _ in range(repeats):
        for reader in readers:
            found[reader.name].append(reader.measure(workers))
    taken = {name: median(values) for name, values in found.items()}
    ours, floor = taken.pop(OURS), _plain_copy(windows, files.size)
    side = f"{files.size}x{files.size}"
    case = f"{windows.length} frames {side}, skip {windows.frame_skip}, {workers} workers"
    for name, theirs in taken.items() or [(rival_name(), None)]:
        yield Case(
            case,
            "windows/CPU-s",
            1 / ours.cpu,
            1 / floor.cpu,
            name,
            1 / theirs.cpu if theirs else None,
            1 / ours.wall,
            1 / theirs.wall if theirs else None,
        )


class Files:
    """The same random walks in our format and, where the rival is installed, in both of its own.

    Args:
        folder: where they are put.
        size: of a frame, px.
        episodes: how many.
    """

    def __init__(self, folder: Path, size: int, episodes: int) -> None:
        self.size = size
        self.data = prepare_two_rooms(folder / "walks.h5", episodes=episodes)
        if size != FRAME:
            self.data = enlarged(self.data, folder / "large.h5", size)
        self.rival: Any = rival_module("data")
        if self.rival is not None:
            self.hdf5, self.lance = folder / "rival.h5", folder / "rival.lance"
            with self.rival.HDF5Writer(self.hdf5) as writer:
                writer.write_episodes(self._episodes())
            with self.rival.LanceWriter(self.lance) as writer:
                writer.write_episodes(self._episodes())

    def _episodes(self) -> Iterator[dict[str, list[np.ndarray]]]:
        for i in range(len(self.data)):
            rows = self.data.rows(i)
            yield {"pixels": list(rows["obs/image"]), "action": list(rows["action"])}

    def readers(self, windows: Windows) -> list[Reader]:
        """Ours first."""
        frames = BATCH * windows.length * (self.size / FRAME) ** 2
        few = max(6, int(SOME / frames))
        ours = Reader(OURS, lambda workers: _our_stream(windows, workers), OFTEN * few)
        if self.rival is None:
            return [ours]
        cut = {"length": windows.length, "frame_skip": windows.frame_skip}
        hdf5 = RivalWindows("HDF5Dataset", self.hdf5, **cut)
        lance = RivalWindows("LanceDataset", self.lance, **cut)
        return [
            ours,
            Reader(f"{rival_name()} HDF5", lambda workers: _their_stream(hdf5, workers), few),
            Reader(f"{rival_name()} Lance", lambda workers: _their_stream(lance, workers), few),
        ]


def enlarged(data: TrajectoryDataset, path: Path, size: int) -> TrajectoryDataset:
    """The same episodes with frames of `size` px."""
    rows = np.arange(size) * FRAME // size
    image = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
    spaces = Spaces({"image": image}, data.spaces.action)
    with Hdf5Writer(path, spaces) as writer:
        for episode in data:
            large = episode.obs["image"][:, rows][:, :, rows]
            writer.add_episode(dataclasses.replace(episode, obs={"image": large}))
    return TrajectoryDataset.load(path)


def _our_stream(windows: Windows, workers: int) -> Iterator[Any]:
    loader = Loader(windows, BATCH, workers=workers, keys=["obs/image"])
    try:
        yield from loader
    finally:
        loader.close()


def _their_stream(dataset: Any, workers: int) -> Iterator[Any]:
    """Through PyTorch's DataLoader, as its training scripts read."""
    order = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, generator=order, num_workers=workers
    )
    while True:
        yield from loader


def _plain_copy(windows: Windows, size: int) -> Spent:
    """Copying the bytes of one window's frames, a batch at a time."""
    frames = np.ones((BATCH, windows.length, size, size, 3), np.uint8)
    copy = frames.copy()

    def copies() -> None:
        for _ in range(COPIES):
            np.copyto(copy, frames)

    return compare({"copies": copies}, 5)["copies"].times(1 / (COPIES * BATCH))
