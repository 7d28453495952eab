"""Exploring Push-T without demonstrations: strokes through the block in random directions, with smooth noise."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.push_t import REACH, PushT, draw_state
from wm_toolkit.envs.push_t_board import SIDE, Floats
from wm_toolkit.envs.walks import smooth_actions

if TYPE_CHECKING:
    from wm_toolkit.data.trajectory import Trajectory

BAR, STEM = ((-55, 55), (3, 27)), ((-12, 12), (33, 115))  # the block's parts, px, in its own frame
MIDDLE = (0.0, 45.0)  # its centre of mass, likewise
CLEAR = 105.0  # px from the middle at which the agent does not touch the block
CORNER = np.pi / 3  # at most so far around the block in one leg
INSIDE, EDGE = 110.0, 20.0  # px from the board's edge that strokes and the agent keep


@dataclasses.dataclass(frozen=True)
class _Leg:
    """Go towards `target` [2] with the aim at most `ahead` px ahead of the agent, for `steps` at most."""

    target: NDArray
    ahead: float
    steps: int


class Pusher:
    """A behaviour that moves the block: approach, push through it, back off, again.

    A stroke goes through a random point of the block, so that most of them turn it, in a random direction
    that keeps it on the board; a share `wander` are walks to a random place instead. Added to it is smooth
    noise u_t = .8 u_{t-1} + .6 n_t.

    Args:
        rng: source of randomness; one per episode.
        steps: of the episode.
        noise: standard deviation of the noise, in actions.
        wander: share of walks that ignore the block, in [0, 1].

    Example:
        >>> env, pusher = PushT(), Pusher(np.random.default_rng(0), 100)
        >>> obs, info = env.reset(seed=0)
        >>> obs, *_ = env.step(pusher.act(info["state"]))
    """

    def __init__(
        self, rng: np.random.Generator, steps: int, *, noise: float = 0.06, wander: float = 0.15
    ) -> None:
        self.rng, self.wander = rng, wander
        self._noise = smooth_actions(rng, 1, steps, smoothing=0.8, scale=noise)[0]
        self._legs: deque[_Leg] = deque()
        self._spent = self._taken = 0

    def act(self, state: NDArray) -> Floats:
        """The relative action [2] in a state [>= 5]."""
        self._next_leg(state)
        leg = self._legs[0]
        way = leg.target - state[:2]
        length = float(np.linalg.norm(way))
        aim = way * min(1.0, leg.ahead / max(length, 1e-6)) / REACH
        action = np.clip(aim + self._noise[self._taken % len(self._noise)], -1, 1)
        self._spent, self._taken = self._spent + 1, self._taken + 1
        return action.astype(np.float32)

    def _next_leg(self, state: NDArray) -> None:
        if self._legs:
            leg = self._legs[0]
            arrived = np.linalg.norm(leg.target - state[:2]) < 0.6 * leg.ahead
            if not arrived and self._spent < leg.steps:
                return
            self._legs.popleft()
            self._spent = 0
        if not self._legs:
            wandering = self.rng.random() < self.wander
            self._legs.extend(self._walk() if wandering else self._stroke(state))

    def _walk(self) -> list[_Leg]:
        return [_Leg(self.rng.uniform(40, SIDE - 40, 2), self.rng.uniform(25, 60), 8)]

    def _stroke(self, state: NDArray) -> list[_Leg]:
        """Around the block to behind the point, through it, and back."""
        for _ in range(20):
            point = self._point(state)
            angle, length = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(20, 130)
            direction = np.array([np.cos(angle), np.sin(angle)])
            behind, end = point - CLEAR * direction, point + length * direction
            around = self._around(state, behind)
            if around is not None and _within(behind, EDGE) and _within(end, INSIDE):
                return [
                    *around,
                    _Leg(behind, 70, 8),
                    _Leg(end, self.rng.uniform(20, 45), 14),
                    _Leg(end - 60 * direction, 50, 4),
                ]
        return self._walk()

    def _point(self, state: NDArray) -> NDArray:
        """[2] a random point of the block, on the board."""
        area = BAR if self.rng.random() < 0.55 else STEM
        x, y = (self.rng.uniform(*side) for side in area)
        return on_block(state, x, y)

    def _around(self, state: NDArray, behind: NDArray) -> list[_Leg] | None:
        """Legs around the block on the shorter way that stays on the board; None if there is none."""
        centre = on_block(state, *MIDDLE)
        here, there = (np.arctan2(y, x) for x, y in (state[:2] - centre, behind - centre))
        short = (there - here + np.pi) % (2 * np.pi) - np.pi
        for turn in (short, short - 2 * np.pi * np.sign(short)):
            corners = int(np.ceil(abs(turn) / CORNER))
            angles = here + turn * np.arange(1, corners) / max(corners, 1)
            points = centre + CLEAR * np.stack([np.cos(angles), np.sin(angles)], -1)
            if not len(points) or _within(points, EDGE):
                return [_Leg(point, 70, 6) for point in points]
        return None


def _within(point: NDArray, margin: float) -> bool:
    return bool(point.min() >= margin and point.max() <= SIDE - margin)


def on_block(state: NDArray, x: float, y: float) -> NDArray[np.float64]:
    """[2] where the point (x, y) of the block's own frame lies on the board, px."""
    cos, sin = np.cos(state[4]), np.sin(state[4])
    return np.array([state[2] + cos * x - sin * y, state[3] + sin * x + cos * y])


def explore(env: PushT, rng: np.random.Generator, steps: int) -> Trajectory:
    """One episode of `Pusher`, with the observations of `env`."""
    from wm_toolkit.data.trajectory import Trajectory

    start = draw_state(rng)
    while np.linalg.norm(start[:2] - start[2:4]) < CLEAR:
        start = draw_state(rng)
    pusher = Pusher(rng, steps)
    first, info = env.reset(options={"state": start})
    rows, actions = [first], []
    for _ in range(steps):
        actions.append(pusher.act(info["state"]))
        obs, _, _, _, info = env.step(actions[-1])
        rows.append(obs)
    obs = {key: np.stack([row[key] for row in rows]) for key in first}
    never = np.zeros(steps, bool)
    cut = never.copy()
    cut[-1] = True
    return Trajectory(obs, np.stack(actions), None, never, cut)


def explorations(env: PushT, seed: int, numbers: Iterable[int], steps: int) -> Iterator[Trajectory]:
    """Episodes of `explore`; number i depends on (seed, i) alone.

    Args:
        env: relative actions, Dict observations ("both" or "state").
        seed: of all of them.
        numbers: which episodes.
        steps: actions in each.
    """
    for number in numbers:
        yield explore(env, np.random.default_rng([seed, number]), steps)
