"""The replay of a run or of a checkpoint: every whole or begun episode that it keeps (read only)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wm_toolkit.checkpoint import load_json
from wm_toolkit.data.foreign import ForeignReader
from wm_toolkit.data.formats import FORMATS, read_only
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.rings import HEAD
from wm_toolkit.data.tables import ColumnSpec, specs_of
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.errors import CheckpointError
from wm_toolkit.spaces import Spaces

RUN = "config.json"
"""Of a run folder; it names the environment."""


class ReplayReader(ForeignReader):
    """Episodes of a saved replay, stream by stream, oldest first.

    The oldest episode of a stream may lack its beginning, the newest its end: it counts as truncated.

    Args:
        path: what `ReplayBuffer.save` wrote.

    Raises:
        CheckpointError: if it is damaged.

    Example:
        >>> TrajectoryDataset.load("runs/dreamer_v3.nano")
        TrajectoryDataset('dreamer_v3.nano', 214 episodes, 32516 rows)
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, source="replay of a run")
        # runs/NAME/checkpoints/update_00002000/source/replay
        run = path.parents[3] if len(path.parents) > 3 else path
        if (run / RUN).exists():
            known = load_json(run / RUN).get("experience") or {}
            self.metadata |= {"name": run.name, "env": known.get("env", "")}
            self.metadata["env_options"] = known.get("env_options") or {}
        self._replay = open_replay(path)
        self.spaces = self._replay.spaces

    def __len__(self) -> int:
        return self._replay.num_episodes

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on."""
        for number, episode in enumerate(self._replay.trajectories()):
            if number >= start:
                yield episode


def open_replay(folder: str | Path) -> ReplayBuffer:
    """What `ReplayBuffer.save` wrote, to read from.

    Raises:
        CheckpointError: if the folder is damaged, or too old to say what it holds.
    """
    head = load_json(Path(folder) / HEAD)
    if "spaces" not in head:
        raise CheckpointError(
            f"{folder} does not say what its spaces are, as replays of the first version did not; go on with "
            "the run that wrote it, which saves it anew"
        )
    spaces, streams = Spaces.from_dict(head["spaces"]), head["streams"]
    own = specs_of(spaces)
    found = ReplayBuffer(
        spaces,
        capacity=streams * head["size"],
        streams=streams,
        length=1,
        extras={
            name: ColumnSpec(tuple(shape), np.dtype(kind))
            for name, (shape, kind) in head["columns"].items()
            if name not in own
        },
        expected=streams * min(head["written"], head["size"]),
    )
    found.load(folder)
    return found


def _find(name_or_path: str | Path) -> Path | None:
    """The folder itself, or the one in the newest checkpoint of a run."""
    path = Path(name_or_path)
    if not path.is_dir():
        return None
    if (path / HEAD).exists():
        return path
    found = sorted(path.glob(f"checkpoints/update_*/source/replay/{HEAD}"))
    return found[-1].parent if found else None


FORMATS.register("replay", read_only("replay", _find, ReplayReader))
