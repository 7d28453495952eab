"""How fast windows of frames come off the disk's cache."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from wm_toolkit.cli.benchmarks import Case, benchmark, seconds
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.windows import Windows
from wm_toolkit.errors import MissingPackageError, require
from wm_toolkit.nn.timm_import import import_timm
from wm_toolkit.training.jobs import prepare_two_rooms

EPISODES, BATCH = 100, 64
CASES = ((4, 5), (16, 1))
"""(frames in a window, frame skip)"""
RIVAL = "stable-worldmodel"


@benchmark("data")
def run(quick: bool) -> Iterator[Case]:
    """Random windows of 64x64 frames a second, gathered as batches of 64."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "walks.h5"
        data = prepare_two_rooms(path, episodes=EPISODES // 4 if quick else EPISODES)
        rival = rival_file(data, Path(folder) / "rival.h5")
        for length, skip in CASES:
            windows = data.windows(length, frame_skip=skip)
            yield from measure(path, windows, rival, repeats=5 if quick else 40)


def measure(path: Path, windows: Windows, rival: Path | None, repeats: int) -> Iterator[Case]:
    """Our gather, a plain copy of the same bytes, and two other ways to the same windows."""
    draws = np.random.default_rng(0).integers(len(windows), size=(repeats + 1, BATCH))
    ours = BATCH / seconds(_each(windows.gather, draws), repeats)
    frames = np.zeros((BATCH, windows.length, 64, 64, 3), np.uint8)
    copy = frames.copy()
    floor = BATCH / seconds(lambda: np.copyto(copy, frames), repeats)
    what = f"{windows.length} frames, skip {windows.frame_skip}, batch {BATCH}"
    with h5py.File(path) as file:
        through = _each(lambda chosen: _through_h5py(file, windows, chosen), draws)
        peer = BATCH / seconds(through, repeats)
    yield Case(what, "windows/s", ours, floor, f"h5py {h5py.__version__}", peer)
    if rival is None:
        yield Case(what, "windows/s", ours, floor, RIVAL)
        return
    theirs = BATCH / seconds(_rival_loader(rival, windows), repeats)
    yield Case(what, "windows/s", ours, floor, f"{RIVAL} {version(RIVAL)}", theirs)


def rival_file(data: TrajectoryDataset, path: Path) -> Path | None:
    """The same rows as that package's own HDF5 file; None where it is not installed."""
    try:
        package = _rival()
    except MissingPackageError:
        return None
    with package.HDF5Writer(path) as writer:
        for i in range(len(data)):
            rows = data.rows(i)
            writer.write_episode({"pixels": rows["obs/image"], "action": rows["action"]})
    return path


def _rival() -> Any:
    import_timm()  # it imports torchvision too, which needs the same help beside a CPU-only torch
    return require("stable_worldmodel.data", "bench")


def _rival_loader(path: Path, windows: Windows) -> Callable[[], object]:
    package: Any = require("stable_worldmodel.data", "bench")
    theirs = package.HDF5Dataset(path=path, frameskip=windows.frame_skip, num_steps=windows.length)
    order = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(theirs, BATCH, shuffle=True, generator=order)

    def batches() -> Iterator[object]:
        while True:
            yield from loader

    stream = batches()
    return lambda: next(stream)


def _each(read: Callable[[np.ndarray], object], draws: np.ndarray) -> Callable[[], object]:
    remaining = iter(draws)
    return lambda: read(next(remaining))


def _through_h5py(file: h5py.File, windows: Windows, chosen: np.ndarray) -> np.ndarray:
    """The images of the windows [B, T, h, w, 3], one slice each."""
    images = file["columns/obs/image"]
    assert isinstance(images, h5py.Dataset)
    rows, skip = windows.rows(chosen), windows.frame_skip
    return np.stack([images[row[0] : row[-1] + 1 : skip] for row in rows])
