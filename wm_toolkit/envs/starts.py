"""Where dreams begin, which model dreams, and what is rewarded at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import wm_toolkit
from wm_toolkit.batch import Batch
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.errors import ConfigError, SpaceError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.objective import Goal, Objective, Weighted


class Starts(Protocol):
    """Numbered windows of observations [M, T]."""

    def __len__(self) -> int: ...

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """Windows [B, T]."""
        ...


@dataclasses.dataclass(frozen=True)
class BatchStarts:
    """A Batch [M, T] as starts."""

    batch: Batch

    def __len__(self) -> int:
        return len(self.batch)

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """Some rows [B, T] of the batch."""
        return self.batch[torch.from_numpy(indices)]


def as_starts(source: Any, model: WorldModel, context: int) -> Starts:
    """Windows of a data set or its name, a Batch [M, T], or observations {key: [M, ...]}.

    Args:
        source: any of these.
        model: its spaces say which observations are needed and how actions are encoded.
        context: frames per window, for a data set.

    Raises:
        ConfigError: for anything else.
        SpaceError: naming an observation that is missing, or has no leading axis of starts.
    """
    if isinstance(source, (str, Path)):
        source = TrajectoryDataset.load(source)
    if isinstance(source, TrajectoryDataset):
        spaces = model.spaces
        windows = source.windows(context, frame_skip=spaces.block, spaces=spaces)
        return _check_keys(windows, model)
    if isinstance(source, Mapping):
        obs = {key: _several(key, value, model).unsqueeze(1) for key, value in source.items()}
        rows = len(next(iter(obs.values())))
        action = torch.zeros(rows, 1, model.spaces.action_width)
        source = Batch(obs, action, torch.ones(rows, 1, dtype=torch.bool))
    if isinstance(source, Batch):
        return _check_keys(BatchStarts(source), model)
    raise ConfigError(
        f"starts is a {type(source).__name__}; give a data set or its name, a Batch, or observations"
    )


def _several(key: str, value: Any, model: WorldModel) -> Tensor:
    """Observations [M, ...], which one alone is not."""
    found, space = torch.as_tensor(value), model.spaces.observation.get(key)
    shape = None if space is None else space.shape
    if shape is not None and found.ndim <= len(shape):
        raise SpaceError(
            f"starts has {key!r} of shape {tuple(found.shape)}, expected a row for each start: (M, "
            f"{', '.join(map(str, shape))}). Give a single one as value[None]"
        )
    return found


def _check_keys(starts: Starts, model: WorldModel) -> Starts:
    known = starts.gather(np.zeros(1, np.int64)).obs
    missing = [key for key in model.spaces.observation if key not in known]
    if missing:
        raise SpaceError(f"starts lack the observations {missing}; they have {sorted(known)}")
    return starts


def load_model(model: Any) -> WorldModel:
    """A world model as it is, an agent's, or the one saved under a name or path."""
    if isinstance(model, (str, Path)):
        model = wm_toolkit.Agent.from_pretrained(model)
    model = model if isinstance(model, WorldModel) else getattr(model, "model", model)
    if not isinstance(model, WorldModel):
        raise ConfigError(
            f"model is a {type(model).__name__}; give a WorldModel, Agent, name or path"
        )
    return model


def find_goal(objective: Objective) -> Goal | None:
    """The first Goal in an objective, or None."""
    if isinstance(objective, Goal):
        return objective
    if isinstance(objective, Weighted):
        found = (find_goal(part) for _, part in objective.parts)
        return next((goal for goal in found if goal is not None), None)
    return None


def dense_reward(objective: Objective, model: WorldModel, action: Tensor, state: Any) -> Tensor:
    """[B] reward of arriving in `state` [B] by `action` [B, A], meaningful at every single step.

    A `Goal` scores whole plans in most of its modes; step by step it is minus the distance in all of
    them. Every other objective has a reward per step already.
    """
    if isinstance(objective, Goal):
        return -objective.distance(model, state)
    if isinstance(objective, Weighted):
        parts = [w * dense_reward(part, model, action, state) for w, part in objective.parts]
        return torch.stack(parts).sum(0)
    return objective.reward(model, action, state)
