"""MiniGrid and BabyAI for agents that see numbers or pictures: `MiniGrid-DoorKey-8x8-v0` and the like."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.views import ObsMode, Views
from wm_toolkit.envs.wrappers import resized

VIEW, DIRECTION = "view", "direction"
KINDS = (11, 6, 3)  # objects, colours, states of a door


class GridView(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """What the agent of a grid world sees, as one-hot symbols, as a picture, or both.

    The package's "image" holds numbers of objects, colours and door states, which no image encoder can use;
    here they are "view", one-hot [7 * 7 * 20]. "direction" is one of four, one-hot [4]. The mission is text and
    stands in `info["mission"]`. Reaching the goal (or lava) is `terminated`, the package's step limit
    `truncated`; the reward of the goal shrinks with the steps taken.

    Args:
        env: of MiniGrid or BabyAI.
        obs_mode: "state" (symbols; nothing is drawn, and that is fast), "image" or "both".
        image_size: side of the picture of the same view, px.

    Example:
        >>> env = make("MiniGrid-Empty-5x5-v0")
        >>> {key: space.shape for key, space in env.observation_space.items()}
        {'direction': (4,), 'view': (980,)}
    """

    def __init__(self, env: gym.Env, *, obs_mode: ObsMode = "state", image_size: int = 64) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, obs_mode=obs_mode, image_size=image_size)
        super().__init__(env)
        assert isinstance(env.observation_space, gym.spaces.Dict)
        self._cells = (env.observation_space["image"].shape or ())[:2]
        widths = {VIEW: math.prod(self._cells) * sum(KINDS), DIRECTION: 4}
        self.views = Views(obs_mode, image_size, widths)
        self.observation_space = self.views.space()
        self._tile = -(-image_size // min(self._cells))
        self.settings = {"obs_mode": obs_mode, "image_size": image_size}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a new episode; `info["mission"]` says what to do."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self.observation(obs), {**info, "mission": obs["mission"]}

    def observation(self, observation: Any) -> Any:
        """The view as `obs_mode` says."""
        hot = [
            np.eye(n, dtype=np.float32)[observation["image"][..., i]] for i, n in enumerate(KINDS)
        ]
        vectors = {
            VIEW: np.concatenate(hot, -1).ravel(),
            DIRECTION: np.eye(4, dtype=np.float32)[int(observation["direction"])],
        }
        return self.views.obs(vectors, self._draw)

    def _draw(self) -> NDArray[np.uint8]:
        base: Any = self.env.unwrapped
        picture = base.get_frame(tile_size=self._tile, agent_pov=True)
        return resized(np.asarray(picture, np.uint8), self.views.image_size)
