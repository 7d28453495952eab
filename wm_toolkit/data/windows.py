"""Fixed-length windows of episodes, found by arithmetic and gathered a batch at a time.

A window of `length` frames holds every `frame_skip`-th row of one episode, beginning at row s:

    frame t        row s + t k,  k = frame_skip
    action[t]      the k raw actions of the rows s + t k ... s + (t + 1) k - 1, concatenated
    reward[t]      the sum of the rewards that arrived after the frame before, rows s + (t - 1) k + 1 ...
                   s + t k, cut off at the episode's first row; terminated and truncated: any of them

A window never leaves its episode. By default its last frame may be the episode's final observation, so
all data is used: `length` frames need (length - 1) k actions between them. Actions of the last frame's
block that were never taken are zeros after encoding; predicting the next frame never uses them. With
`last_action="real"` every block is complete, and a window needs length x k actions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.data.buffers import Buffers
from wm_toolkit.data.columns import Rows, feature_columns
from wm_toolkit.data.trajectory import OBS, RESERVED
from wm_toolkit.errors import DataError, did_you_mean
from wm_toolkit.spaces import Spaces

if TYPE_CHECKING:
    from wm_toolkit.data.dataset import TrajectoryDataset

log = logging.getLogger(__name__)

LastAction = Literal["filler", "real"]


class Windows:
    """Every window of a data set, numbered from 0, without a list of them.

    Args:
        dataset: where the rows are.
        length: frames of a window.
        stride: rows from the start of one window to the start of the next one in an episode.
        frame_skip: rows from one frame to the next; an action is a block of that many raw actions.
        spaces: how actions are encoded; by default the data set's, blocked. Pass
            `dataset.spaces.blocked(k).standardised(mean, std)` to standardise.
        last_action: "filler" lets a window end on an episode's final observation, "real" asks for a
            complete action block at its last frame too.

    Attributes:
        skipped: episodes that are shorter than a window (also logged).

    Raises:
        DataError: if no episode is long enough, or the spaces' block is not frame_skip.

    Example:
        >>> windows = TrajectoryDataset.load("two_rooms").windows(length=4, frame_skip=5)
        >>> windows.gather(np.arange(64)).obs["image"].shape
        torch.Size([64, 4, 64, 64, 3])
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        length: int,
        *,
        stride: int = 1,
        frame_skip: int = 1,
        spaces: Spaces | None = None,
        last_action: LastAction = "filler",
    ) -> None:
        for name, value in (("length", length), ("stride", stride), ("frame_skip", frame_skip)):
            if value < 1:
                raise DataError(f"{name} is {value}, expected at least 1")
        if last_action not in ("filler", "real"):
            raise DataError(f"last_action is {last_action!r}; use 'filler' or 'real'")
        self.dataset, self.length = dataset, length
        self.stride, self.frame_skip, self.last_action = stride, frame_skip, last_action
        self.spaces = spaces or _blocked(dataset.spaces, frame_skip)
        if self.spaces.block != frame_skip:
            raise DataError(
                f"the spaces hold blocks of {self.spaces.block} actions, but frame_skip is {frame_skip}; "
                f"pass spaces=dataset.spaces.blocked({frame_skip})"
            )
        steps = (length if last_action == "real" else length - 1) * frame_skip
        counts = np.maximum(0, (dataset.episode_lengths - 1 - steps) // stride + 1)
        self._ends = np.cumsum(counts)
        self.skipped = int((counts == 0).sum())
        self._report(steps)

    def _report(self, steps: int) -> None:
        longest = int(self.dataset.episode_lengths.max(initial=1)) - 1
        what = (
            f"a window of {self.length} frames, frame_skip {self.frame_skip}, needs {steps} steps"
        )
        if not len(self):
            raise DataError(f"{self.dataset!r}: {what}, but the longest episode has {longest}")
        if self.skipped:
            log.warning(
                "%r: %d of %d episodes are skipped: %s",
                self.dataset,
                self.skipped,
                len(self.dataset),
                what,
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Episode and first row inside that episode of windows [B]: two int64 arrays [B].

        Raises:
            DataError: if an index is not in 0 .. len - 1.
        """
        index = np.asarray(indices, np.int64).reshape(-1)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise DataError(
                f"there are windows 0 to {len(self) - 1}, not {index.min()}..{index.max()}"
            )
        episode = np.searchsorted(self._ends, index, side="right")
        before = np.where(episode > 0, self._ends[episode - 1], 0)
        return episode, (index - before) * self.stride

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Row numbers of the frames of windows [B] in the data set's columns: int64 [B, length]."""
        episode, offset = self.locate(indices)
        first = self.dataset.episode_starts[episode] + offset
        return first[:, None] + np.arange(self.length) * self.frame_skip

    def gather(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        keys: Sequence[str] | None = None,
        buffers: Buffers | None = None,
    ) -> Batch:
        """Read windows [B] in one go.

        Args:
            indices: numbers of windows; repetitions are fine.
            keys: observation and extra columns to read ("obs/image", "success"). None reads all but
                stored features: those are as large as frames, and right for one encoder only.
            buffers: memory to read into; None allocates.

        Returns:
            Batch of [B, length, ...], with `index` [B].

        Raises:
            DataError: for an unknown window or column.
        """
        index = np.asarray(indices, np.int64).reshape(-1)
        episode, offset = self.locate(index)
        start = self.dataset.episode_starts[episode]
        frames = (start + offset)[:, None] + np.arange(self.length) * self.frame_skip
        return Batch(
            obs={
                k.removeprefix(OBS): self._read(k, frames, buffers)
                for k in self._keys(keys, obs=True)
            },
            action=self._actions(frames, start + self.dataset.episode_lengths[episode] - 1),
            is_first=torch.from_numpy(frames == start[:, None]),
            **self._signals(frames, start),
            index=torch.from_numpy(index.copy()),
            extras={k: self._read(k, frames, buffers) for k in self._keys(keys, obs=False)},
        )

    def _keys(self, keys: Sequence[str] | None, *, obs: bool) -> list[str]:
        columns = self.dataset.columns
        known = [name for name in columns if name not in RESERVED]
        for key in keys or ():
            if key not in known:
                raise DataError(f"no column {key!r} to read.{did_you_mean(key, known)}")
        if keys is None:
            features = feature_columns(self.dataset.metadata)
            keys = [name for name in known if name not in features]
        return [name for name in keys if name.startswith(OBS) == obs]

    def _read(self, name: str, rows: np.ndarray, buffers: Buffers | None) -> Tensor:
        return _tensor(self.dataset.columns[name].array, rows, buffers)

    def _actions(self, frames: np.ndarray, final: np.ndarray) -> Tensor:
        """[B, T, A] encoded blocks; `final` [B] is the row of the episode's last observation."""
        rows = _blocks(frames, np.arange(self.frame_skip))  # [B, T, k]
        taken = rows < final[:, None, None]
        raw = self.dataset.columns["action"].array[np.minimum(rows, final[:, None, None])]
        shape = () if not self.spaces.action.shape else self.spaces.action.shape
        encoded = self.spaces.encode_action(raw.reshape(*frames.shape, *shape))
        if taken.all():
            return encoded
        blocks = encoded.reshape(*rows.shape, -1) * torch.from_numpy(taken).unsqueeze(-1)
        return blocks.reshape(encoded.shape)

    def _signals(self, frames: np.ndarray, start: np.ndarray) -> dict[str, Tensor]:
        """reward, terminated and truncated [B, T] of what arrived since the frame before."""
        rows = _blocks(frames, np.arange(1 - self.frame_skip, 1))
        # The first row of an episode holds no reward and no ending, so reading it again adds nothing.
        rows = np.maximum(rows, start[:, None, None])
        columns, found = self.dataset.columns, {}
        if "reward" in columns:
            reward = np.asarray(columns["reward"].array[rows], np.float64).sum(-1)
            found["reward"] = torch.from_numpy(reward.astype(np.float32))
        for name in ("terminated", "truncated"):
            found[name] = torch.from_numpy(columns[name].array[rows].any(-1))
        return found

    def describe(self) -> dict[str, int | str]:
        """What identifies these windows, JSON-ready (for run records and resuming)."""
        own = {n: getattr(self, n) for n in ("length", "stride", "frame_skip", "last_action")}
        return {**own, "windows": len(self), "data": self.dataset.fingerprint}


def _blocks(frames: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return frames[:, :, None] + offsets


def _tensor(array: Rows, rows: np.ndarray, buffers: Buffers | None) -> Tensor:
    """One copy from the page cache into a tensor; float64 becomes float32."""
    if buffers is not None and isinstance(array, np.ndarray):
        values = buffers.gather(array, rows)
    else:
        values = array[rows]
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    return torch.from_numpy(values)


def _blocked(spaces: Spaces, frame_skip: int) -> Spaces:
    return spaces if frame_skip == 1 else spaces.blocked(frame_skip)
