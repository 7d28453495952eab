"""The exact dynamics of Push-T as a world model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.envs.push_t import aim
from wm_toolkit.envs.push_t_board import NEAR, SIDE, TURNED, Board
from wm_toolkit.envs.true_model import Place, TrueModel
from wm_toolkit.spaces import Spaces

ARM = NEAR / TURNED  # px: at this distance from its centre the allowed turn is the allowed distance


class TruePushT(TrueModel):
    """Moves agent and block by the simulator itself, one candidate after the other (about 10 k steps/s).

    Features are agent x, y, block x, y and the tip of an arm fixed to the block, in sides of the board, so
    that their distance weighs position and angle as success does.

    Args:
        spaces: with the observation "state"; actions may be blocked and scaled in any way.
        relative: whether actions are relative to the agent.
    """

    def __init__(self, spaces: Spaces, *, relative: bool = True) -> None:
        super().__init__(spaces, "state")
        self.relative, self._board = relative, Board()

    def move(self, state: NDArray, action: NDArray) -> NDArray:
        """States [B, 10] after actions [B, 2]."""
        targets = aim(state, action, self.relative)
        return np.stack([self._board.step(one, target) for one, target in zip(state, targets)])

    def features(self, state: Place) -> Tensor:
        """[..., 6] positions and the block's arm."""
        angle = state.position[..., 4:5]
        arm = ARM * torch.cat([angle.cos(), angle.sin()], -1)
        return torch.cat([state.position[..., :4], arm], -1) / SIDE
