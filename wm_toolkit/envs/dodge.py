"""Dodge: balls fall from the sky, one moves left, stays or moves right (TakeCover in miniature).

`Dodge` and `DodgeVector` share every line of physics and rendering (`Court`); row i of the vector seeded
with s behaves as a single environment seeded with s + i.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from wm_toolkit.envs.rows import check_options, over, pop_reset_mask, row_generators
from wm_toolkit.errors import ConfigError

SKY, GROUND, PLAYER, BALL = (24, 26, 44), (70, 62, 52), (90, 210, 120), (240, 110, 50)
FLOOR = 60  # px, first row of the ground
HEIGHT = 6  # px of the player


@dataclasses.dataclass(frozen=True)
class Rules:
    """How hard it is; lengths in px, times in steps.

    Attributes:
        size: side of the image.
        width: of the player and of a ball.
        stride: that the player moves in a step.
        fall: that a ball falls in a step.
        every: steps from one ball to the next.
        aim: share of the balls that are thrown at where the player stands; the others fall anywhere.

    Raises:
        ConfigError: for a number out of range.
    """

    size: int = 64
    width: int = 10
    stride: int = 3
    fall: int = 2
    every: int = 15
    aim: float = 0.5

    def __post_init__(self) -> None:
        if min(self.size - FLOOR, self.width, self.stride, self.fall, self.every) < 1:
            raise ConfigError(f"{self}: size must exceed {FLOOR}, the others be at least 1")
        if not 0 <= self.aim <= 1:
            raise ConfigError(f"aim is {self.aim}, expected a share between 0 and 1")

    @property
    def balls(self) -> int:
        """The most balls in the air at once."""
        return -(-(FLOOR + self.width) // (self.fall * self.every)) + 1


class Court:
    """The state of N games, and what happens to it in a step.

    Attributes:
        player: [N] left edge of the player, px.
        balls: [N, K, 2] left and upper edge of every ball, px; a ball at or below the floor is gone.
        clock: [N] steps until the next ball is thrown.
    """

    def __init__(self, rows: int, rules: Rules) -> None:
        self.rules = rules
        self.player = np.zeros(rows, np.int64)
        self.balls = np.full((rows, rules.balls, 2), FLOOR, np.int64)
        self.clock = np.zeros(rows, np.int64)
        side = rules.size
        self._empty = np.full((side, side, 3), SKY, np.uint8)
        self._empty[FLOOR:] = GROUND

    def restart(self, rows: NDArray[np.int64], generators: Sequence[np.random.Generator]) -> None:
        """Games `rows` [n] begin: an empty sky, the player anywhere."""
        span = self.rules.size - self.rules.width + 1
        self.player[rows] = [int(generators[row].integers(span)) for row in rows.tolist()]
        self.balls[rows] = FLOOR
        self.clock[rows] = 1

    def step(self, move: NDArray, generators: Sequence[np.random.Generator]) -> NDArray[np.bool_]:
        """Move the players by -1, 0 or 1 strides [N], let the balls fall; [N] who is hit."""
        rules = self.rules
        self.player = np.clip(self.player + rules.stride * move, 0, rules.size - rules.width)
        self.balls[..., 1] = np.minimum(self.balls[..., 1] + rules.fall, FLOOR)
        self.clock -= 1
        for row in np.flatnonzero(self.clock <= 0).tolist():
            self._throw(row, generators[row])
        return self._hit()

    def _throw(self, row: int, generator: np.random.Generator) -> None:
        aimed, where = generator.random(2)
        span = self.rules.size - self.rules.width
        column = self.player[row] if aimed < self.rules.aim else round(where * span)
        slot = int(self.balls[row, :, 1].argmax())  # the lowest one is gone
        self.balls[row, slot] = column, -self.rules.width
        self.clock[row] = self.rules.every

    def _hit(self) -> NDArray[np.bool_]:
        width, top = self.rules.width, self.balls[..., 1]
        near = np.abs(self.balls[..., 0] - self.player[:, None]) < width
        level = (top > FLOOR - HEIGHT - width) & (top < FLOOR)
        return np.asarray((near & level).any(-1))

    def image(self, row: int) -> NDArray[np.uint8]:
        """[size, size, 3] one game."""
        width, image = self.rules.width, self._empty.copy()
        left = self.player[row]
        image[FLOOR - HEIGHT : FLOOR, left : left + width] = PLAYER
        for x, y in self.balls[row].tolist():
            image[max(y, 0) : min(y + width, FLOOR), x : x + width] = BALL
        return image

    def images(self) -> NDArray[np.uint8]:
        """[N, size, size, 3] every game."""
        return np.stack([self.image(row) for row in range(len(self.player))])


def _begin(
    rules: Rules | None, render_mode: str | None, fields: Mapping[str, Any]
) -> tuple[Rules, gym.spaces.Box]:
    """Rules and the space of one image.

    Raises:
        ConfigError: if rules come twice, or the render mode is unknown.
    """
    if rules is not None and fields:
        raise ConfigError(f"give rules=Rules(...) or its fields {sorted(fields)}, not both")
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
    rules = rules or Rules(**fields)
    return rules, gym.spaces.Box(0, 255, (rules.size, rules.size, 3), np.uint8)


class Dodge(gym.Env):
    """Stay alive under falling balls.

    The observation is an image (uint8 [h, w, 3]); actions are 0 left, 1 stay, 2 right. The reward is 1
    for every step survived. Being hit terminates the episode, `gymnasium.make` cuts it at 300 steps.

    Args:
        rules: how hard it is; or give its fields by name (`every=`, `aim=` ...).
        render_mode: "rgb_array" or None.

    Example:
        >>> env = gym.make("wm_toolkit/Dodge-v0")
        >>> obs, info = env.reset(seed=0)
        >>> obs.shape
        (64, 64, 3)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self, *, rules: Rules | None = None, render_mode: str | None = None, **fields: Any
    ) -> None:
        self.rules, self.observation_space = _begin(rules, render_mode, fields)
        self.action_space = gym.spaces.Discrete(3)
        self.render_mode = render_mode
        self._court = Court(1, self.rules)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """An empty sky, the player anywhere."""
        super().reset(seed=seed)
        check_options(options, ())
        self._court.restart(np.zeros(1, np.int64), [self.np_random])
        return self._court.image(0), {}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """0 moves left, 1 stays, 2 moves right."""
        hit = bool(self._court.step(np.array([int(action) - 1]), [self.np_random])[0])
        return self._court.image(0), float(not hit), hit, False, {}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The image [h, w, 3]."""
        return self._court.image(0) if self.render_mode else None


class DodgeVector(gym.vector.VectorEnv):
    """`num_envs` games of Dodge in one batch; a row that ended starts anew on the next step.

    Args:
        num_envs: how many.
        max_episode_steps: steps after which an episode is cut.
        rules, render_mode: as in `Dodge`.

    Example:
        >>> envs = gym.make_vec("wm_toolkit/Dodge-v0", num_envs=64)
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int = 300,
        rules: Rules | None = None,
        render_mode: str | None = None,
        **fields: Any,
    ) -> None:
        if num_envs < 1 or max_episode_steps < 1:
            raise ConfigError(
                f"num_envs is {num_envs} and max_episode_steps {max_episode_steps}; both must be "
                "at least 1"
            )
        self.rules, self.single_observation_space = _begin(rules, render_mode, fields)
        self.single_action_space = gym.spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.render_mode = render_mode
        self._court = Court(num_envs, self.rules)
        self._generators = row_generators(None, num_envs)
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin every game anew, or those of options["reset_mask"].

        Args:
            seed: row i is seeded with seed + i, or with seed[i]; None goes on with the generators.
            options: "reset_mask" [N] bool.
        """
        options = dict(options or {})
        rows = np.flatnonzero(pop_reset_mask(options, self.num_envs))
        check_options(options, ())
        self._generators = row_generators(seed, self.num_envs, self._generators)
        self._restart(rows)
        return self._court.images(), {}

    def step(
        self, actions: NDArray
    ) -> tuple[NDArray[np.uint8], NDArray, NDArray, NDArray, dict[str, Any]]:
        """One step of every game by its action [N]; games that had ended start anew instead."""
        restart = self._ended.copy()
        self._court.clock[restart] = self.max_episode_steps  # what is over draws no more balls
        hit = self._court.step(np.asarray(actions, np.int64) - 1, self._generators) & ~restart
        self._elapsed += 1
        if restart.any():
            self._restart(np.flatnonzero(restart))
        truncated = (self._elapsed >= self.max_episode_steps) & ~hit
        self._ended = over(hit, truncated)
        reward = np.where(restart | hit, 0.0, 1.0)
        return self._court.images(), reward, hit, truncated, {}

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One image [h, w, 3] per game."""
        return tuple(self._court.images()) if self.render_mode else None

    def _restart(self, rows: NDArray[np.int64]) -> None:
        self._court.restart(rows, self._generators)
        self._elapsed[rows], self._ended[rows] = 0, False
