"""The exact dynamics of TwoRooms as a world model: what planning could reach with nothing left to learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.envs.rooms import Rooms
from wm_toolkit.models.base import WorldModel
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Place(Struct):
    """Where the dot is: position [..., 2], units."""

    position: Tensor


class TrueRooms(WorldModel[Place]):
    """Observes the true position and moves it by the environment's own physics.

    Planned in with the same search as a trained model, it is the oracle row of a result table: what is
    missing to 100 % there is the search's or the objective's fault, not the model's.

    Args:
        spaces: with the observation "position"; actions may be blocked and scaled in any way.
        rooms: the layout; by default the standard one.
    """

    def __init__(self, spaces: Spaces, rooms: Rooms | None = None) -> None:
        super().__init__(spaces)
        self.rooms = rooms or Rooms()

    def initial(self, batch_size: int) -> Place:
        """The origin; the first observation says where the dot is."""
        return Place(torch.zeros(batch_size, 2))

    def observe(
        self,
        state: Place,
        action: Tensor,
        obs: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Place:
        """The position [B, 2] that was seen."""
        return Place(obs["position"].float())

    def imagine(
        self, state: Place, action: Tensor, *, generator: torch.Generator | None = None
    ) -> Place:
        """Execute every raw action of the block [B, A]."""
        raw = self.spaces.decode_action(action)
        raw = raw.reshape(*raw.shape[:-1], self.spaces.block, 2)
        position = state.position.numpy()
        for t in range(self.spaces.block):
            position = self.rooms.move(position, raw[..., t, :])
        return Place(torch.from_numpy(np.ascontiguousarray(position, np.float32)))

    def features(self, state: Place) -> Tensor:
        """[..., 2] the position, so that a `Goal` is a straight-line distance."""
        return state.position

    def loss(self, batch: Batch) -> Losses:
        """Nothing is left to learn: no term for a batch [B, T]."""
        return {}
