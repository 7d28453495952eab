"""Crafter as a Gymnasium environment: the ids `crafter/reward` and `crafter/no_reward`."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.views import check_render_mode
from wm_toolkit.errors import ConfigError, require

LENGTH = 10_000  # Hafner 2021, "Benchmarking the Spectrum of Agent Capabilities"
SMALLEST = 18  # px: two for each of 9 cells, or the package has nothing to draw digits on


class Crafter(gym.Env):
    """Survive and unlock 22 achievements, in a world that every episode draws anew.

    The observation is the picture, the action one of 17. Death is `terminated`, the length limit `truncated`.
    `info` holds "achievements" and "inventory" (counts by name), "semantic" (uint8 [area, area], what lies where),
    "player_pos", and "discount" (0 at death). The package keeps objects in sets, whose order changes from one
    process to the next; here they are kept in order, so a seed repeats a whole episode everywhere.

    Args:
        image_size: side of the picture, px.
        length: steps after which an episode is cut.
        area: side of the world, cells.
        reward: pay 1 for an achievement and 0.1 for a health point, or nothing.
        render_mode: "rgb_array" or None.

    Raises:
        MissingPackageError: if crafter is not installed.

    Example:
        >>> env = gym.make("crafter/reward")
        >>> env.reset(seed=0)[0].shape
        (64, 64, 3)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        *,
        image_size: int = 64,
        length: int = LENGTH,
        area: int = 64,
        reward: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if length < 1 or image_size < SMALLEST:
            raise ConfigError(
                f"length is {length} (at least 1), image_size {image_size} (at least {SMALLEST} px)"
            )
        self.render_mode, self.length = check_render_mode(render_mode), length
        size = (image_size, image_size)
        self._base: Any = require("crafter", "crafter").Env(
            area=(area, area), size=size, reward=reward, length=0, seed=0
        )
        self.settings = {
            "image_size": image_size,
            "length": length,
            "area": area,
            "reward": reward,
        }
        self.observation_space = gym.spaces.Box(0, 255, (*size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(int(self._base.action_space.n))
        self._steps = 0
        self._picture = np.zeros((*size, 3), np.uint8)

    @property
    def action_names(self) -> list[str]:
        """What the actions do, in order."""
        return list(self._base.action_names)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start in a new world."""
        super().reset(seed=seed)
        self._base._seed, self._base._episode = int(self.np_random.integers(2**31 - 1)), 0
        self._steps = 0
        self._base._world.reset = self._reset_world
        self._picture = self._base.reset()
        return self._picture, self._facts()

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Take one action."""
        self._picture, reward, dead, info = self._base.step(int(action))
        self._steps += 1
        truncated = self._steps >= self.length and not dead
        return self._picture, float(reward), bool(dead), truncated, self._facts(info)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The picture [h, w, 3] that was handed over: drawing again would draw from the world's chance."""
        return self._picture.copy() if self.render_mode else None

    def _reset_world(self, seed: int | None = None) -> None:
        world = self._base._world
        type(world).reset(world, seed)
        world._chunks = _Chunks()

    def _facts(self, info: dict[str, Any] | None = None) -> dict[str, Any]:
        player = self._base._player
        return {
            "achievements": dict(player.achievements),
            "inventory": dict(player.inventory),
            "semantic": np.asarray(
                self._base._sem_view() if info is None else info["semantic"], np.uint8
            ),
            "player_pos": np.array(player.pos, np.int32),
            "discount": float(player.health > 0),
        }


class _InOrder(dict[Any, None]):
    """A set that is gone through in the order of insertion."""

    def add(self, item: Any) -> None:
        """As of a set."""
        self[item] = None

    def remove(self, item: Any) -> None:
        """As of a set."""
        del self[item]


class _Chunks(dict[Any, _InOrder]):
    """The objects in each part of the world."""

    def __missing__(self, key: Any) -> _InOrder:
        return self.setdefault(key, _InOrder())

    def copy(self) -> _Chunks:
        """Another dict of the same sets."""
        return _Chunks(self)
