"""The default data of TwoRooms: smooth random walks, about one in eight of them through the door."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.rooms import Floats, Rooms
from wm_toolkit.errors import ConfigError

if TYPE_CHECKING:
    from wm_toolkit.data.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Walks:
    """Random walks in two rooms.

    Attributes:
        rooms: where; `rooms.render(position[i])` makes the images of walk i.
        position: [N, T + 1, 2] float32, units.
        action: [N, T, 2] float32, action t leads from position t to t + 1.

    Example:
        >>> walks = smooth_walks(0, episodes=1000, steps=60)
        >>> walks.position.shape, round(float(walks.crossed().mean()), 2)
        ((1000, 61, 2), 0.14)
    """

    rooms: Rooms
    position: Floats
    action: Floats

    def crossed(self) -> NDArray[np.bool_]:
        """[N] whether a walk went from one room to the other."""
        room = self.rooms.room(self.position)
        return np.asarray(room.any(1) & ~room.all(1))

    def trajectories(self) -> Iterator[Trajectory]:
        """Every walk as an episode with "image" and "position" observations, rendered when asked for."""
        from wm_toolkit.data.trajectory import Trajectory

        for position, action in zip(self.position, self.action):
            obs = {"image": self.rooms.render(position), "position": position}
            never = np.zeros(len(action), bool)
            cut = never.copy()
            cut[-1] = True
            yield Trajectory(obs, action, None, never, cut)


def smooth_actions(
    rng: np.random.Generator,
    episodes: int,
    steps: int,
    *,
    smoothing: float = 0.85,
    scale: float = 0.55,
) -> Floats:
    """Actions of smooth random walks, [episodes, steps, 2] in [-1, 1].

    u_t = smoothing u_{t-1} + sqrt(1 - smoothing^2) n_t with u, n ~ N(0, 1); action = clip(scale u_t).

    Args:
        rng: source of randomness.
        episodes: how many walks.
        steps: actions in each.
        smoothing: correlation of successive actions, in [0, 1).
        scale: standard deviation of an action before clipping.
    """
    if not 0 <= smoothing < 1:
        raise ConfigError(f"smoothing is {smoothing}, expected it in [0, 1)")
    noise = rng.standard_normal((steps + 1, episodes, 2), np.float32)
    fresh = np.float32(np.sqrt(1 - smoothing**2))
    for t in range(1, steps + 1):
        noise[t] = np.float32(smoothing) * noise[t - 1] + fresh * noise[t]
    return np.ascontiguousarray(np.clip(scale * noise[1:], -1, 1).swapaxes(0, 1), np.float32)


def smooth_walks(
    seed: int | np.random.Generator = 0,
    *,
    episodes: int = 1000,
    steps: int = 60,
    smoothing: float = 0.85,
    scale: float = 0.55,
    rooms: Rooms | None = None,
) -> Walks:
    """The default data of TwoRooms: about one walk in eight goes through the door.

    Args:
        seed: an int, or a generator.
        episodes: N, how many walks, from starts uniform over both rooms.
        steps: T, actions in each.
        smoothing, scale: of the actions, see `smooth_actions`.
        rooms: the layout; by default the standard one.
    """
    rooms = rooms or Rooms()
    rng = np.random.default_rng(seed)
    position = np.empty((episodes, steps + 1, 2), np.float32)
    position[:, 0] = rooms.sample(rng, episodes)
    action = smooth_actions(rng, episodes, steps, smoothing=smoothing, scale=scale)
    for t in range(steps):
        position[:, t + 1] = rooms.move(position[:, t], action[:, t])
    return Walks(rooms, position, action)
