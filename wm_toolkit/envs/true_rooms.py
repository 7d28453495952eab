"""The exact dynamics of TwoRooms as a world model."""

from __future__ import annotations

from numpy.typing import NDArray

from wm_toolkit.envs.rooms import Rooms
from wm_toolkit.envs.true_model import Place, TrueModel
from wm_toolkit.spaces import Spaces

__all__ = ["Place", "TrueRooms"]


class TrueRooms(TrueModel):
    """Moves the dot as the rooms do.

    Args:
        spaces: with the observation "position"; actions may be blocked and scaled in any way.
        rooms: the layout; by default the standard one.
    """

    def __init__(self, spaces: Spaces, rooms: Rooms | None = None) -> None:
        super().__init__(spaces, "position")
        self.rooms = rooms or Rooms()

    def move(self, state: NDArray, action: NDArray) -> NDArray:
        """Positions [B, 2] after actions [B, 2]."""
        return self.rooms.move(state, action)
