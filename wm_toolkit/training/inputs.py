"""What a model learns from: frames, or features of them that were stored; and how inputs are scaled."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch
from wm_toolkit.data.columns import feature_columns
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.features import dropped_spaces
from wm_toolkit.data.trajectory import OBS, RESERVED
from wm_toolkit.encoders.named import encode_options
from wm_toolkit.errors import ConfigError, DataError
from wm_toolkit.spaces import is_image
from wm_toolkit.training.hooks import Hook

if TYPE_CHECKING:
    from wm_toolkit.training.trainer import Trainer


def observation_spaces(data: TrajectoryDataset) -> dict[str, gym.Space]:
    """The observations a model may read: those in the data, and frames that were dropped from it."""
    return {**dropped_spaces(data.metadata), **data.spaces.observation}


def learning_columns(agent: Agent, data: TrajectoryDataset) -> list[str]:
    """The observation and feature columns that an agent's model learns from.

    As the config's `features` says, a stored column stands for the frames where it holds just what the
    model's own encoder would make of them. A decoder learns to draw frames, so it needs them all the same.

    Raises:
        ConfigError: if stored features are insisted on and the model reads none.
        DataError: if they are another encoder's, or there are neither features nor frames.
    """
    config = agent.config
    columns = [OBS + key for key in config.observations or agent.spaces.observation]
    usable = agent.model.stored_features() if config.features != "frames" else {}
    if config.features == "stored" and not usable:
        raise ConfigError(
            f"features is 'stored', but {type(agent.model).__name__} encodes frames itself; use 'frames'"
        )
    for column, needs in usable.items():
        if column not in data.columns:
            if config.features == "stored":
                raise DataError(f"{data!r} has no column {column!r}. {_ways_out(data, needs)}")
            continue
        _require_same(data, column, needs)
        frames = OBS + needs["key"]
        columns.insert(columns.index(frames), column)
        if "decoder" not in agent.model.heads:
            columns.remove(frames)
    _require_frames(data, columns)
    return columns


def telling_columns(agent: Agent | None, data: TrajectoryDataset) -> list[str]:
    """What is worth reading of a few windows: what the model learns from, and every other quantity.

    Frames that the model does not read are left out, and so are features that it does not read. Without
    an agent from a recipe every observation is read.
    """
    known = agent is not None and agent.config is not None
    reads = learning_columns(agent, data) if agent is not None and known else []
    images = {OBS + k for k, s in data.spaces.observation.items() if known and is_image(s)}
    leave = {*RESERVED, *feature_columns(data.metadata), *images, *reads}
    return reads + [name for name in data.columns if name not in leave]


def _require_same(data: TrajectoryDataset, column: str, needs: dict[str, Any]) -> None:
    """Refuse features of another identity.

    Raises:
        DataError: naming every field that differs, and the ways out.
    """
    have = feature_columns(data.metadata).get(column, {})
    compared = {*needs, *(have.keys() - {"key", "dtype"})}
    differ = [
        name for name in (*needs, *have) if name in compared and have.get(name) != needs.get(name)
    ]
    fields = [f"{n} is {have.get(n)!r}, needed {needs.get(n)!r}" for n in dict.fromkeys(differ)]
    if fields:
        raise DataError(
            f"{data!r}, column {column!r}: not the features of this model's encoder: {'; '.join(fields)}. "
            f"{_ways_out(data, needs)}"
        )


def _ways_out(data: TrajectoryDataset, needs: dict[str, Any]) -> str:
    path = shlex.quote(str(data.path or "DATA.h5"))
    key = f" --encode-key {needs['key']}" if needs["key"] != "image" else ""
    return (
        f"Store the right ones with `wm convert {path} NEW.h5 {encode_options(needs)}{key}` (weights: "
        f"{needs.get('weights')}), give the recipe the options of the stored ones, or learn from frames "
        "with features='frames'"
    )


def _require_frames(data: TrajectoryDataset, columns: Iterable[str]) -> None:
    for key in dropped_spaces(data.metadata):
        if OBS + key in columns:
            raise DataError(
                f"{data!r} holds no frames {key!r} any more, they were dropped when their features were "
                "stored; learn from those with features='stored' and without a decoder, or use the data "
                "set they were made from"
            )


class FitInputs(Hook):
    """Lets a model fix how it standardises what it reads, before its first update.

    Args:
        train: the episodes whose statistics count.
        columns: what the model reads.
        batches: some training batches [B, T], read only if the model asks for them.
    """

    def __init__(
        self, train: TrajectoryDataset, columns: Iterable[str], batches: Iterable[Batch]
    ) -> None:
        self.train, self.columns, self.batches = train, list(columns), batches

    def before_training(self, trainer: Trainer) -> None:
        """Call `model.fit_inputs`; a run that goes on has its numbers from the checkpoint."""
        if trainer.update == 0:
            trainer.agent.model.fit_inputs(self.statistics(), self.batches)

    def statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and deviation of every vector of real numbers among the columns."""
        spaces = {OBS + key: space for key, space in self.train.spaces.observation.items()}
        vectors = [n for n in self.columns if n in spaces and np.dtype(spaces[n].dtype).kind == "f"]
        found = self.train.statistics(vectors)
        return {n: (torch.from_numpy(s.mean), torch.from_numpy(s.std)) for n, s in found.items()}
