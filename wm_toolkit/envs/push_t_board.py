"""The physics and the picture of Push-T: gym-pusht's bodies, stepped as a function of a state.

A state is ten float32 numbers: agent x, y, block x, y, block angle in [0, 2 pi], agent velocity x, y (these
seven are the published layout), block velocity x, y, block angular velocity. Positions are in pixels of
the 512 board, velocities in pixels (radians) a second.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.errors import ConfigError, SpaceError, require

Floats = NDArray[np.float32]
Resampling = Literal["linear", "smooth"]

SIDE = 512
STATE = 10
GOAL_POSE = (256.0, 256.0, np.pi / 4)  # of the green T that is drawn: x, y, angle
CONTROL_SECONDS, DT = 0.1, 0.01
K_P, K_V = 100.0, 20.0  # PD control of the agent
AGENT_RADIUS = 15
NEAR, TURNED = 20.0, np.pi / 9  # px, radians: what counts as the goal

_WHITE, _WALL = (255, 255, 255), (211, 211, 211)
_GOAL, _BLOCK, _AGENT = (144, 238, 144), (119, 136, 153), (65, 105, 225)
_WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))


def is_success(state: NDArray, goal: NDArray) -> NDArray[np.bool_]:
    """[...] whether states [..., >= 5] are at goals [..., >= 5].

    The distance of [agent x, y, block x, y] is below 20 px and the block's angle within pi / 9, the
    shorter way round.
    """
    state, goal = np.asarray(state, np.float64), np.asarray(goal, np.float64)
    distance = np.linalg.norm(state[..., :4] - goal[..., :4], axis=-1)
    return np.asarray((distance < NEAR) & (angle_between(state[..., 4], goal[..., 4]) < TURNED))


def angle_between(one: Any, other: Any) -> NDArray:
    """The smaller angle between two directions in radians, in [0, pi]."""
    turned = np.abs(np.asarray(one, np.float64) - other) % (2 * np.pi)
    return np.minimum(turned, 2 * np.pi - turned)


def full_state(state: Any, name: str = "state") -> Floats:
    """[..., 10] from five numbers (at rest), seven (the block at rest) or all ten.

    Raises:
        SpaceError: for another width, or a number that is not finite.
    """
    given = np.asarray(state, np.float32)
    if given.ndim < 1 or given.shape[-1] not in (5, 7, STATE) or not np.isfinite(given).all():
        raise SpaceError(
            f"{name} is {given.tolist() if given.size <= STATE else given.shape}; expected 5, 7 or "
            f"{STATE} finite numbers: agent x, y, block x, y, angle, velocities"
        )
    full = np.zeros((*given.shape[:-1], STATE), np.float32)
    full[..., : given.shape[-1]] = given
    full[..., 4] = np.mod(full[..., 4].astype(np.float64), 2 * np.pi)
    return full


class Board:
    """gym-pusht's walls, agent and block in one pymunk space.

    `step` is a function of its arguments alone. The simulator remembers contacts between steps, which no
    recorded state could restore; so before every control step it is put into the given state afresh.

    Raises:
        MissingPackageError: if gym-pusht is not installed.

    Example:
        >>> board = Board()
        >>> state = full_state([100, 100, 256, 256, 0])
        >>> board.step(state, np.array([120.0, 100.0]))[:2]
        array([105.91344, 100.     ], dtype=float32)
    """

    def __init__(self) -> None:
        prepare_headless()
        package = require("gym_pusht.envs.pusht", "pusht").PushTEnv
        self._space: Any = require("pymunk", "pusht").Space()
        self._space.gravity, self._space.damping = (0, 0), 0.0
        walls = [package.add_segment(self._space, *ends, 2) for ends in _WALLS]
        self._space.add(*walls)
        self._agent: Any = package.add_circle(self._space, (256, 400), AGENT_RADIUS)
        self._block, shapes = package.add_tee(self._space, (256, 300), 0)
        self._shapes: list[Any] = [*self._agent.shapes, *shapes]
        self.outline = [np.array(shape.get_vertices()) for shape in shapes]
        self.centre = np.array(self._block.center_of_gravity)

    def step(self, state: NDArray, target: NDArray) -> Floats:
        """The state [10] after 0.1 s of control of the agent towards `target` [2], px."""
        self._put(state)
        agent, (x, y) = self._agent, (float(target[0]), float(target[1]))
        for _ in range(round(CONTROL_SECONDS / DT)):
            (px, py), (vx, vy) = agent.position, agent.velocity
            ax, ay = K_P * (x - px) - K_V * vx, K_P * (y - py) - K_V * vy
            agent.velocity = vx + ax * DT, vy + ay * DT
            self._space.step(DT)
        return self._read()

    def _put(self, state: NDArray) -> None:
        """Forget every contact, then place both bodies."""
        ax, ay, bx, by, angle, avx, avy, bvx, bvy, spin = map(float, state)
        self._space.remove(*self._shapes)
        self._space.step(1e-9)  # with nothing to collide: uses up what was left to correct
        # The angle turns the block about its centre of mass, so it goes first.
        self._block.angle, self._block.position = angle, (bx, by)
        self._block.velocity, self._block.angular_velocity = (bvx, bvy), spin
        self._agent.position, self._agent.velocity = (ax, ay), (avx, avy)
        self._space.add(*self._shapes)

    def _read(self) -> Floats:
        agent, block = self._agent, self._block
        return np.array(
            [
                *agent.position,
                *block.position,
                block.angle % (2 * np.pi),
                *agent.velocity,
                *block.velocity,
                block.angular_velocity,
            ],
            np.float32,
        )


class Painter:
    """Draws states as gym-pusht does, about ten times faster.

    Args:
        size: side of the image, px.
        draw_goal: whether the green T (a fixed pose, no matter where the goal is) lies on the board.
        resampling: from the 512 board to `size`: "linear" is the package's and jagged in small images,
            "smooth" halves the board by averaging first, so that small images show small movements.
        outline: the block's polygons, `Board.outline`.

    Raises:
        ConfigError: for a size out of range or an unknown resampling.
        MissingPackageError: if gym-pusht is not installed.
    """

    def __init__(
        self, outline: list[NDArray], *, size: int, draw_goal: bool, resampling: Resampling
    ) -> None:
        if not 8 <= size <= SIDE:
            raise ConfigError(f"image_size is {size}, expected 8 to {SIDE} px")
        if resampling not in get_args(Resampling):
            raise ConfigError(
                f"resampling is {resampling!r}, expected one of {get_args(Resampling)}"
            )
        self._cv2: Any = require("cv2", "pusht")
        self.size, self._outline = size, outline
        self._halves = int(np.log2(SIDE / size)) if resampling == "smooth" else 0
        self._empty = self._background(draw_goal)
        self._board = np.empty_like(self._empty)

    def draw(self, state: NDArray) -> NDArray[np.uint8]:
        """The image [size, size, 3] of a state [>= 5]."""
        np.copyto(self._board, self._empty)
        for polygon in self._placed(*map(float, state[2:5])):
            self._cv2.fillPoly(self._board, [polygon], _light(_BLOCK))
            self._cv2.polylines(self._board, [polygon], True, _BLOCK, 4)
        centre = (round(float(state[0])), round(float(state[1])))
        self._cv2.circle(self._board, centre, AGENT_RADIUS, _AGENT, -1)
        self._cv2.circle(self._board, centre, AGENT_RADIUS - 4, _light(_AGENT), -1)
        return self._resized(self._board)

    def _resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        for _ in range(self._halves):
            half = (image.shape[1] // 2, image.shape[0] // 2)
            image = self._cv2.resize(image, half, interpolation=self._cv2.INTER_AREA)
        return self._cv2.resize(image, (self.size, self.size))

    def _background(self, draw_goal: bool) -> NDArray[np.uint8]:
        board = np.full((SIDE, SIDE, 3), _WHITE, np.uint8)
        if draw_goal:
            self._cv2.fillPoly(board, self._placed(*GOAL_POSE), _GOAL)
        for start, end in _WALLS:
            self._cv2.line(board, start, end, _WALL, 4)
        return board

    def _placed(self, x: float, y: float, angle: float) -> list[NDArray[np.int32]]:
        """The block's polygons at a pose, rounded to pixels of the board."""
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        return [np.rint(part @ turn + (x, y)).astype(np.int32) for part in self._outline]


def _light(colour: tuple[int, int, int]) -> tuple[int, ...]:
    """The inside of a body is a fifth brighter than its rim."""
    return tuple(int(min(1.2 * part, 255)) for part in colour)
