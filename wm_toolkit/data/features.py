"""Features of a frozen encoder, computed once and stored beside the frames they belong to.

A native file may hold, beside `obs/image` (uint8 [h, w, C] a row), a column `features/image` (float16
[P, E] a row): the patch tokens of that frame. `metadata["features"]["features/image"]` says what they are:
the encoder's identity, the observation's `key` and the numbers' `dtype`. They are no observation: the
spaces stay as they are, and acting encodes frames as ever.

The frames may be dropped, which halves such a file. Training goes on, and so does evaluation, whose goals
the environment draws or replays. What shows recorded frames does not: a decoder, film strips, `wm plan`
from an episode. The observation's space is then kept in `metadata["dropped"]`.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.data.checks import Problem
from wm_toolkit.data.columns import Column, feature_columns
from wm_toolkit.data.convert import Progress, copy, open_source
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats import Reader
from wm_toolkit.data.partial import partial_folder
from wm_toolkit.data.trajectory import OBS, Trajectory
from wm_toolkit.encoders.named import FrameEncoder
from wm_toolkit.errors import ConfigError, DataError, did_you_mean
from wm_toolkit.spaces import is_image, space_from_dict, space_to_dict

log = logging.getLogger(__name__)

FEATURES = "features/"
PASS_BYTES = 2**28  # frames and tokens of the rows that are encoded at once

FeatureType = Literal["float16", "float32"]
TYPES = {"float16": torch.float16, "float32": torch.float32}


def encode_features(
    source: str | Path | Reader | TrajectoryDataset,
    encoder: FrameEncoder,
    target: str | Path,
    *,
    key: str = "image",
    dtype: FeatureType = "float16",
    drop_frames: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Copy a data set and store the features of its frames beside them.

    Run again after an interruption, it continues after the finished episodes and encodes none twice.

    Args:
        source: a data set of any format by path or name, an opened one, or some episodes of one.
        encoder: frozen, on the device that shall do the work.
        target: "data.h5", what training reads; or a Minari id, whose infos then hold the features.
        key: the observation with the frames, uint8 [h, w, 3].
        dtype: of the stored numbers; published DINO-WM computes in float32.
        drop_frames: leave the frames out; this module's text says what is lost.
        format: as for `convert`.
        progress: called after every episode.

    Returns:
        The file or folder that was written.

    Raises:
        DataError: if there are no such frames, the target exists or is unfinished work of another kind,
            the disk is too small, or a feature is too large for `dtype`.

    Example:
        >>> encoder = make_encoder("dinov2_small", image_size=196, normalisation="half").to(device)
        >>> encode_features("pusht.h5", encoder, "pusht-features.h5")
    """
    reader = EncodedReader(source, encoder, key=key, dtype=dtype, drop_frames=drop_frames)
    log.info(reader.describe())
    _require_space(reader, Path(target))
    return copy(reader, target, format=format, progress=progress)


class EncodedReader:
    """A data set as another reader gives it, with the features of its frames beside them.

    Args:
        source, encoder, key, dtype, drop_frames: see `encode_features`.

    Attributes:
        path, units, problems: the source's.
        spaces: the source's; without the frames if they are dropped.
        metadata: the source's, with "features" and "dropped".
        column: the name of the new column.

    Raises:
        ConfigError: for an unknown dtype.
        DataError: if there are no such frames.
    """

    def __init__(
        self,
        source: str | Path | Reader | TrajectoryDataset,
        encoder: FrameEncoder,
        *,
        key: str = "image",
        dtype: FeatureType = "float16",
        drop_frames: bool = False,
    ) -> None:
        if dtype not in TYPES:
            raise ConfigError(f"dtype is {dtype!r}, features are stored as {' or '.join(TYPES)}")
        self._source = _reader(source)
        self._encoder, self._key, self._drop = encoder, key, drop_frames
        self._dtype, self.column = np.dtype(dtype), FEATURES + key
        space = _frame_space(self._source, key)
        self.path, self.units = self._source.path, self._source.units
        self.problems, self.spaces = self._source.problems, self._source.spaces
        self.checksum = getattr(self._source, "checksum", "")
        identity = {**encoder.identity, "key": key, "dtype": dtype}
        known = {**feature_columns(self._source.metadata), self.column: identity}
        self.metadata = {**self._source.metadata, "features": known}
        if drop_frames:
            kept = {k: s for k, s in self.spaces.observation.items() if k != key}
            self.spaces = dataclasses.replace(self.spaces, observation=kept)
            dropped = {**self.metadata.get("dropped", {}), key: space_to_dict(space)}
            self.metadata["dropped"] = dropped

    def __len__(self) -> int:
        return len(self._source)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on, encoded when it is its turn.

        Raises:
            DataError: naming episode and row of a feature that is not finite.
        """
        for i, episode in enumerate(self._source.episodes(start), start):
            obs = dict(episode.obs)
            features = self._encode(obs[self._key])
            self._check(features, i)
            if self._drop:
                del obs[self._key]
            extras = {**episode.extras, self.column: features}
            yield dataclasses.replace(episode, obs=obs, extras=extras)

    def describe(self) -> str:
        """How much the features will take, in words."""
        rows, exact = self._rows()
        encoder, size = self._encoder, rows * self._row_bytes / 1e6
        return (
            f"{self.column}: {'' if exact else 'about '}{rows:,} rows x {encoder.patches} patches x "
            f"{encoder.width} {self._dtype} numbers = {size:,.1f} MB"
        )

    def nbytes(self) -> int:
        """Bytes of the features, and of what is copied beside them as far as that is known."""
        columns: Mapping[str, Column] = getattr(self._source, "columns", {})
        left = {self.column, *([OBS + self._key] if self._drop else [])}
        copied = sum(column.nbytes for name, column in columns.items() if name not in left)
        return copied + self._rows()[0] * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return self._encoder.patches * self._encoder.width * self._dtype.itemsize

    def _rows(self) -> tuple[int, bool]:
        """Rows of all episodes, and whether that is known or told from the first one."""
        lengths = getattr(self._source, "episode_lengths", None)
        if lengths is not None:
            return int(lengths.sum()), True
        first = next(self._source.episodes())
        return (len(first) + 1) * len(self), False

    def _encode(self, frames: np.ndarray) -> np.ndarray:
        """[n, h, w, 3] uint8 frames to features [n, P, E], as many rows at a time as fit PASS_BYTES."""
        shape = (len(frames), self._encoder.patches, self._encoder.width)
        features = np.empty(shape, self._dtype)
        step = max(1, PASS_BYTES // (frames[0].nbytes + 4 * shape[1] * shape[2]))
        for row in range(0, len(frames), step):
            images = torch.from_numpy(np.array(frames[row : row + step]))
            tokens = self._encoder(images.to(self._encoder.device)).patches
            features[row : row + step] = tokens.to(TYPES[self._dtype.name]).cpu().numpy()
        return features

    def _check(self, features: np.ndarray, episode: int) -> None:
        bad = np.flatnonzero(~np.isfinite(features).all((1, 2)))
        if len(bad):
            ways = "; store dtype=float32" if self._dtype == np.float16 else ""
            what = f"the encoder's tokens are not finite numbers of {self._dtype}{ways}"
            raise DataError(str(Problem(what, str(self.path), self.column, episode, int(bad[0]))))


class _Episodes:
    """Some episodes of an opened data set, behind the interface of a reader."""

    def __init__(self, data: TrajectoryDataset) -> None:
        self._data, self.columns = data, dict[str, Column]()
        self.path, self.checksum = data.path or Path(data.name), data.fingerprint
        self.spaces, self.metadata = data.spaces, data.metadata
        self.problems: list[Problem] = []
        self.units = {name: column.unit for name, column in data.columns.items() if column.unit}
        self.episode_lengths = data.episode_lengths

    def __len__(self) -> int:
        return len(self._data)

    def episodes(self, start: int = 0) -> Iterator[Trajectory]:
        """Every episode from number `start` on."""
        return (self._data.episode(i) for i in range(start, len(self)))


def dropped_spaces(metadata: Mapping[str, Any]) -> dict[str, gym.Space]:
    """The spaces of observations that were dropped when their features were stored."""
    dropped = metadata.get("dropped") or {}
    return {key: space_from_dict(space) for key, space in dropped.items()}


def _reader(source: str | Path | Reader | TrajectoryDataset) -> Reader:
    if isinstance(source, TrajectoryDataset):
        return _Episodes(source)
    return open_source(source) if isinstance(source, (str, Path)) else source


def _frame_space(reader: Reader, key: str) -> gym.Space:
    """The space of the frames.

    Raises:
        DataError: if there are none.
    """
    have = reader.spaces.observation
    if key in dropped_spaces(reader.metadata):
        raise DataError(
            f"{reader.path}: its frames {key!r} were dropped; encode the data set before"
        )
    if key not in have:
        raise DataError(
            f"{reader.path} has no observation {key!r} to encode.{did_you_mean(key, have)}"
        )
    space = have[key]
    if not is_image(space) or (space.shape or (0,))[-1] != 3:
        raise DataError(
            f"{reader.path}, observation {key!r} is {space}; frames are uint8 [h, w, 3]"
        )
    return space


def _require_space(reader: EncodedReader, target: Path) -> None:
    """Refuse before hours of work what cannot end well.

    Raises:
        DataError: if the disk is too small.
    """
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    begun = sum(file.stat().st_size for file in partial_folder(target).glob("*"))
    # The finished episodes lie beside the file while it is put together from them.
    need, free = 2 * reader.nbytes() - begun, shutil.disk_usage(folder).free
    if free < need:
        raise DataError(
            f"{target} needs {need / 1e9:,.2f} GB of disk while it is written (half of that in the end), "
            f"and {folder} has {free / 1e9:,.2f} GB left. Free some, write to another disk, drop the "
            "frames, or encode smaller images"
        )
