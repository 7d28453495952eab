"""Physics and rendering of two rooms joined by a door, as pure functions over any number of rows.

A board is measured in units; at the default size one unit is one pixel. Coordinates are (x, y), x to the
right, y down, and the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wm_toolkit.errors import ConfigError, SpaceError

Floats = NDArray[np.float32]
GoalRoom = Literal["any", "same", "opposite"]

_EDGE = 1e-6  # a centre exactly one radius away from the wall counts as touching it
_CHUNK = 2048  # frames rendered at once: patches of this many stay in the processor's cache


@dataclasses.dataclass(frozen=True)
class Rooms:
    """Two rooms, a wall between them, doors in the wall, and a dot that moves.

    Args:
        size: side of the square board, in units.
        border: thickness of the outer walls.
        wall_x: centre of the wall between the rooms.
        wall_thickness: its thickness; 5 covers wall_x - 2 to wall_x + 2.
        doors: centre y of every door.
        door_half_height: a door reaches this far up and down from its centre.
        radius: of the agent, which keeps this far from every wall.
        sigma: width of the Gaussian dot that shows the agent.
        step: units that an action of 1 moves the agent.
        success_distance: closer than this to the goal is a success.
        resolution: side of the image in pixels; by default one pixel per unit.

    Raises:
        ConfigError: for a layout in which a dot could jump through a wall or no position is free.

    Example:
        >>> rooms = Rooms()
        >>> rooms.move(np.array([[10.0, 10.0]]), np.array([[1.0, -0.5]]))
        array([[12.,  9.]], dtype=float32)
    """

    size: int = 64
    border: int = 4
    wall_x: int = 32
    wall_thickness: int = 5
    doors: tuple[float, ...] = (22.0,)
    door_half_height: float = 6.0
    radius: float = 2.0
    sigma: float = 2.2
    step: float = 2.0
    success_distance: float = 4.5
    resolution: int | None = None

    def __post_init__(self) -> None:
        reach = self.wall_thickness + 2 * self.radius
        if self.step >= reach:
            raise ConfigError(
                f"step {self.step} jumps over a wall that keeps the agent {reach} units wide away; "
                "make the step shorter or the wall thicker"
            )
        if self.left_room[1] <= self.low or self.high <= self.right_room[0]:
            raise ConfigError(
                f"a wall at x = {self.wall_x}, {self.wall_thickness} thick, leaves no free position "
                f"in one of the rooms of a board of size {self.size} with border {self.border}"
            )
        if self.sigma <= 0 or self.pixels < 1:
            raise ConfigError(
                f"sigma {self.sigma} and resolution {self.resolution} must be positive"
            )

    # -- geometry --------------------------------------------------------------------------------
    @property
    def pixels(self) -> int:
        """Side of the image in pixels."""
        return self.size if self.resolution is None else self.resolution

    @property
    def low(self) -> float:
        """Smallest coordinate that the agent's centre can have."""
        return self.border + self.radius

    @property
    def high(self) -> float:
        """Largest coordinate that the agent's centre can have."""
        return self.size - 1 - self.border - self.radius

    @property
    def wall(self) -> tuple[float, float]:
        """First and last x that the wall covers."""
        half = (self.wall_thickness - 1) / 2
        return self.wall_x - half, self.wall_x + half

    @property
    def left_room(self) -> tuple[float, float]:
        """Range of x of centres in the left room."""
        return self.low, self.wall[0] - self.radius

    @property
    def right_room(self) -> tuple[float, float]:
        """Range of x of centres in the right room."""
        return self.wall[1] + self.radius, self.high

    def free(self, x: NDArray, y: NDArray) -> NDArray[np.bool_]:
        """[...] whether the agent's centre may be at x [...], y [...]."""
        inside = (x >= self.low) & (x <= self.high) & (y >= self.low) & (y <= self.high)
        at_wall = (x > self.left_room[1] - _EDGE) & (x < self.right_room[0] + _EDGE)
        gap = self.door_half_height - self.radius
        at_door = np.zeros_like(at_wall)
        for door in self.doors:
            at_door |= (y >= door - gap) & (y <= door + gap)
        return inside & (~at_wall | at_door)

    def room(self, position: Floats) -> NDArray[np.int64]:
        """[...] 0 left of the wall's centre, 1 right of it, for position [..., 2]."""
        return (np.asarray(position)[..., 0] >= self.wall_x).astype(np.int64)

    # -- dynamics --------------------------------------------------------------------------------
    def move(self, position: Floats, action: Floats) -> Floats:
        """One step: [..., 2] positions and actions in [-1, 1] to the next positions.

        Each axis moves by itself, first x, then y, and stays where it is if its move is blocked.
        Everything is float32, so positions read back from a file replay exactly.
        """
        position = np.asarray(position, np.float32)
        shift = np.clip(np.asarray(action, np.float32), -1, 1) * np.float32(self.step)
        x, y = position[..., 0], position[..., 1]
        new_x = x + shift[..., 0]
        new_x = np.where(self.free(new_x, y), new_x, x)
        new_y = y + shift[..., 1]
        new_y = np.where(self.free(new_x, new_y), new_y, y)
        return np.stack([new_x, new_y], -1)

    def distance(self, position: Floats, goal: Floats) -> Floats:
        """[...] Euclidean distance in units between [..., 2] positions."""
        return np.linalg.norm(np.asarray(position) - np.asarray(goal), axis=-1).astype(np.float32)

    def is_success(self, position: Floats, goal: Floats) -> NDArray[np.bool_]:
        """[...] whether [..., 2] positions are closer to their goals than `success_distance`."""
        return self.distance(position, goal) < self.success_distance

    # -- sampling --------------------------------------------------------------------------------
    def place(self, uniform: NDArray, room: NDArray | None = None) -> Floats:
        """Map uniform numbers [..., 2] in [0, 1) to positions, uniform over both rooms.

        Doorways are left out. With `room` [...] (0 left, 1 right) positions lie in that room.
        """
        left, right = self.left_room, self.right_room
        widths = left[1] - left[0], right[1] - right[0]
        u = np.asarray(uniform, np.float64)
        if room is None:
            along = u[..., 0] * sum(widths)
            x = np.where(along < widths[0], left[0] + along, right[0] + along - widths[0])
        else:
            x = np.where(
                room == 0, left[0] + u[..., 0] * widths[0], right[0] + u[..., 0] * widths[1]
            )
        # The wall's own edges are blocked, so stay a hair away from them.
        x = np.where(x < self.wall_x, np.minimum(x, left[1] - 1e-3), np.maximum(x, right[0] + 1e-3))
        y = self.low + u[..., 1] * (self.high - self.low)
        return np.stack([x, y], -1).astype(np.float32)

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """[count, 2] positions, uniform over both rooms."""
        return self.place(rng.random((count, 2)))

    def place_goal(self, uniform: NDArray, start: Floats, where: GoalRoom = "any") -> Floats:
        """Map uniform numbers [..., 2] to goals for starts [..., 2]: anywhere, or in a given room."""
        if where == "any":
            return self.place(uniform)
        if where not in ("same", "opposite"):
            raise ConfigError(f"goal_room is {where!r}; use 'any', 'same' or 'opposite'")
        room = self.room(start)
        return self.place(uniform, room if where == "same" else 1 - room)

    def check(self, position: NDArray, what: str = "position") -> Floats:
        """Positions [..., 2] as float32, refused if one of them lies in a wall.

        Raises:
            SpaceError: naming the first such position.
        """
        position = np.asarray(position, np.float32)
        if position.shape[-1:] != (2,):
            raise SpaceError(f"{what} has shape {position.shape}, expected (..., 2)")
        blocked = ~self.free(position[..., 0], position[..., 1])
        if blocked.any():
            raise SpaceError(
                f"{what} {position[blocked][0].tolist()} lies in a wall; centres range from "
                f"{self.low} to {self.high}, the wall keeps x in ({self.left_room[1]}, "
                f"{self.right_room[0]}) blocked outside doors at y = {list(self.doors)}"
            )
        return position

    # -- rendering -------------------------------------------------------------------------------
    @cached_property
    def background(self) -> NDArray[np.uint8]:
        """[h, w] white floor (255) and black walls (0)."""
        at = self._pixel_centres
        image = np.full((self.pixels, self.pixels), 255, np.uint8)
        outside = (at < self.border - 0.5) | (at >= self.size - self.border - 0.5)
        image[outside] = 0
        image[:, outside] = 0
        wall = (at >= self.wall[0] - 0.5) & (at < self.wall[1] + 0.5)
        door = np.zeros_like(wall)
        for centre in self.doors:
            door |= np.abs(at - centre) <= self.door_half_height + 0.5 - _EDGE
        image[np.ix_(~door, wall)] = 0
        return image

    def render(self, position: Floats) -> NDArray[np.uint8]:
        """Images [..., h, w, 3] of the agent at positions [..., 2], a red dot over the board."""
        position = np.asarray(position, np.float32)
        flat = position.reshape(-1, 2)
        images = np.empty((len(flat), self.pixels, self.pixels, 3), np.uint8)
        floor = np.repeat(self.background[..., None], 3, -1)
        for first in range(0, len(flat), _CHUNK):
            chunk = images[first : first + _CHUNK]
            chunk.reshape(len(chunk), -1)[:] = floor.reshape(-1)
            self._draw(chunk, flat[first : first + _CHUNK])
        return images.reshape(*position.shape[:-1], *images.shape[1:])

    def _draw(self, images: NDArray[np.uint8], position: Floats) -> None:
        """Blend red over the patch around each position; elsewhere the dot changes no pixel."""
        scale = self.pixels / self.size
        centre = (position + 0.5) * np.float32(scale) - np.float32(0.5)
        sigma = self.sigma * scale
        # 255 exp(-r^2 / 2 sigma^2) rounds to zero beyond this radius.
        reach = int(np.ceil(sigma * np.sqrt(2 * np.log(2 * 255))))
        width = min(2 * reach + 1, self.pixels)
        corner = np.clip(np.rint(centre).astype(np.int64) - reach, 0, self.pixels - width)
        offset = (corner - centre)[:, :, None].astype(np.float32) + np.arange(
            width, dtype=np.float32
        )
        bell = np.exp(np.square(offset) * np.float32(-0.5 / sigma**2))
        red = bell[:, 1, :, None] * bell[:, 0, None, :]
        x, y = corner[:, 0], corner[:, 1]
        # Windows are views: one indexed assignment writes every row's patch.
        floor = sliding_window_view(self.background, (width, width))[y, x]
        faded = floor * (1 - red)
        windows = sliding_window_view(images, (width, width), (1, 2), writeable=True)
        patch = np.empty((len(images), 3, width, width), np.uint8)
        np.add(faded + 255 * red, 0.5, out=patch[:, 0], casting="unsafe")
        np.add(faded, 0.5, out=patch[:, 1], casting="unsafe")
        patch[:, 2] = patch[:, 1]
        windows[np.arange(len(images)), y, x] = patch

    @cached_property
    def _pixel_centres(self) -> NDArray[np.float64]:
        return (np.arange(self.pixels) + 0.5) * self.size / self.pixels - 0.5
