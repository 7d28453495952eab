"""An environment's own dynamics as a world model: what planning could reach with nothing left to learn."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.models.base import WorldModel
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Place(Struct):
    """Where the simulator is: position [..., S], its true state."""

    position: Tensor


class TrueModel(WorldModel[Place]):
    """Observes the true state and moves it by the environment's own physics.

    Planned in with the same search as a trained model, it is the oracle row of a result table: what is
    missing to 100 % there is the search's or the objective's fault, not the model's.

    Args:
        spaces: with the observation `key`; actions may be blocked and scaled in any way.
        key: the observation that holds the state.
    """

    def __init__(self, spaces: Spaces, key: str) -> None:
        super().__init__(spaces)
        self.key = key
        self.width = int(np.prod(spaces.observation[key].shape or ()))

    @abstractmethod
    def move(self, state: NDArray, action: NDArray) -> NDArray:
        """States [B, S] after one raw action [B, ...] each."""

    def initial(self, batch_size: int) -> Place:
        """The origin; the first observation says where the simulator is."""
        return Place(torch.zeros(batch_size, self.width))

    def observe(
        self,
        state: Place,
        action: Tensor,
        obs: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Place:
        """The state [B, S] that was seen."""
        return Place(obs[self.key].float())

    def imagine(
        self, state: Place, action: Tensor, *, generator: torch.Generator | None = None
    ) -> Place:
        """Execute every raw action of the block [B, A]."""
        raw = self.spaces.decode_action(action)
        raw = raw.reshape(*raw.shape[:-1], self.spaces.block, -1)
        position = state.position.numpy()
        for t in range(self.spaces.block):
            position = self.move(position, raw[..., t, :])
        return Place(torch.from_numpy(np.ascontiguousarray(position, np.float32)))

    def features(self, state: Place) -> Tensor:
        """[..., S] the state, so that a `Goal` is a straight-line distance."""
        return state.position

    def loss(self, batch: Batch) -> Losses:
        """Nothing is left to learn: no term for a batch [B, T]."""
        return {}
