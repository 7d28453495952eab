"""CarRacing as World Models sees it: without the bar of instruments, 64 x 64 px."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.make import make
from wm_toolkit.envs.wrappers import ResizedImages
from wm_toolkit.errors import SpaceError

ROAD = 84  # px, rows of a frame above the instruments


class CroppedImages(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """The upper rows of every picture.

    Args:
        env: observes one picture, uint8 [h, w, C].
        rows: how many are kept.

    Raises:
        SpaceError: if it observes something else, or fewer rows.
    """

    def __init__(self, env: gym.Env, rows: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, rows=rows)
        super().__init__(env)
        shape = env.observation_space.shape or ()
        if len(shape) != 3 or shape[0] < rows or env.observation_space.dtype != np.uint8:
            raise SpaceError(
                f"{env} observes {env.observation_space}; expected a picture of at least {rows} rows"
            )
        self.rows = rows
        self.observation_space = gym.spaces.Box(0, 255, (rows, *shape[1:]), np.uint8)

    def observation(self, observation: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[rows, w, C] of [h, w, C]."""
        return observation[: self.rows]


def car_racing(**options: Any) -> gym.Env:
    """CarRacing-v3, cut above its instruments and squeezed to 64 x 64 px (Ha and Schmidhuber 2018).

    Args:
        options: of CarRacing-v3.

    Raises:
        MissingPackageError: without gymnasium's extra box2d.
    """
    return ResizedImages(CroppedImages(make("CarRacing-v3", **options), ROAD), 64)
