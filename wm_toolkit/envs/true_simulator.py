"""The exact dynamics of any environment that can be put into a state, as a world model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.envs.true_model import Place, TrueModel
from wm_toolkit.spaces import Spaces


class TrueSimulator(TrueModel):
    """Moves states by the simulator itself, one candidate after the other.

    A step costs what the package's own does, 0.1 to 2 milliseconds on MuJoCo, and a search takes many.

    Args:
        spaces: with the observation `key`; actions may be blocked and scaled in any way.
        env: a `Stateful` environment of its own, which need not show any picture.
        place: states [..., S] to features [..., F] that are near a goal's where success is near.
        key: the observation that tells the state.
        told: what that observation [..., S] says of the state [..., S]; by default it is the state.
    """

    def __init__(
        self,
        spaces: Spaces,
        env: Any,
        place: Callable[[Tensor], Tensor],
        *,
        key: str = "state",
        told: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(spaces, key)
        self.env, self.place, self.told = env, place, told
        env.reset(seed=0)

    def move(self, state: NDArray, action: NDArray) -> NDArray:
        """States [B, S] after actions [B, ...]."""
        return np.stack(
            [self._step(one, chosen) for one, chosen in zip(state, action, strict=True)]
        )

    def _step(self, state: NDArray, action: NDArray) -> NDArray:
        self.env.set_state(state)
        self.env.step(action)
        return self.env.get_state()

    def observe(self, state: Place, action: Tensor, obs: dict[str, Tensor], **drawn: Any) -> Place:
        """The state [B, S] that was told."""
        seen = obs[self.key].float()
        return Place(seen if self.told is None else self.told(seen))

    def features(self, state: Place) -> Tensor:
        """[..., F] what a goal is about."""
        return self.place(state.position)
