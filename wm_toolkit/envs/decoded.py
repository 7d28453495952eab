"""What a dreaming environment shows: the model's features, or observations as the real one would give."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.envs.rows import feature_space
from wm_toolkit.errors import ConfigError, MissingHeadError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.spaces import flat_space

View = Literal["features", "decoded"]


class Features:
    """Shows a model's features, float32 [N, F], with those of a goal behind them.

    Attributes:
        space: of one row.
    """

    def __init__(self, model: WorldModel, state: Any, goal: Tensor | None) -> None:
        self.model = model
        self.space: gym.Space = feature_space(self(state, goal).shape[-1])

    def __call__(self, state: Any, goal: Tensor | None) -> NDArray[np.float32]:
        """[N, F] of states [N], followed by the goal's [N, G]."""
        features = self.model.features(state)
        if goal is not None:
            features = torch.cat([features, goal], -1)
        return features.float().cpu().numpy()


class Decoded:
    """Shows what the model's decoder draws, as the environment it learnt from would.

    A policy made for that environment acts in the dream unchanged: an observation that stood alone there
    stands alone here, several make a Dict.

    Attributes:
        space: of one row.

    Raises:
        MissingHeadError: if the model has no decoder.
        ConfigError: if goals are drawn per episode, which no decoder shows.
    """

    def __init__(self, model: WorldModel, state: Any, goal: Tensor | None) -> None:
        if goal is not None:
            raise ConfigError(
                "goals that are drawn per episode stand behind features; take observation='features', "
                "or give the goal: Goal(features=...)"
            )
        try:
            keys = sorted(model.decode(state))
        except MissingHeadError as error:
            raise MissingHeadError(
                f"observation='decoded' needs a decoder. {error}; or take observation='features'"
            ) from error
        self.model = model
        self.spaces = {key: model.spaces.observation[key] for key in keys}
        (alone, *others) = self.spaces.items()
        self.bare = not others and flat_space(alone[1]) == dict([alone])
        self.space = alone[1] if self.bare else gym.spaces.Dict(self.spaces)

    def __call__(self, state: Any, goal: Tensor | None) -> Any:
        """[N, *shape] of states [N], clipped into the space; a dict of them if there are several."""
        drawn = {key: x.cpu().numpy() for key, x in self.model.decode(state).items()}
        seen = {key: _within(self.spaces[key], drawn[key]) for key in self.spaces}
        return next(iter(seen.values())) if self.bare else seen


VIEWS = {"features": Features, "decoded": Decoded}


def row(obs: Any, index: int) -> Any:
    """One row of observations [N, ...], single or a dict of them."""
    if isinstance(obs, dict):
        return {key: value[index] for key, value in obs.items()}
    return obs[index]


def _within(space: gym.Space, values: NDArray) -> NDArray:
    if isinstance(space, gym.spaces.Box):
        values = np.clip(values, space.low, space.high)
    return values.astype(space.dtype)
