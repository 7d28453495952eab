"""Push-T on gym-pusht: push a T-shaped block, and the agent itself, to a goal pose."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.push_t_board import (
    SIDE,
    STATE,
    Board,
    Floats,
    Painter,
    Resampling,
    full_state,
    is_success,
)
from wm_toolkit.envs.rows import check_options, feature_space
from wm_toolkit.envs.views import ObsMode, Views, check_render_mode
from wm_toolkit.errors import ConfigError

if TYPE_CHECKING:
    from wm_toolkit.envs.true_push_t import TruePushT
    from wm_toolkit.spaces import Spaces

ActionMode = Literal["relative", "absolute"]
REACH = 100.0  # px that a relative action of 1 aims ahead
PROPRIO = (0, 1, 5, 6)  # agent x, y and velocity
_OPTIONS = ("state", "goal")


class PushT(gym.Env):
    """The block is pushed by a round agent under PD control, 10 decisions a second.

    The goal is a state: agent and block within 20 px of theirs and the block turned by less than pi / 9.
    The reward is 1 where that holds, else 0; an episode never terminates. `info` holds "state", "goal" and
    "success".

    A state is ten numbers, see `wm_toolkit.envs.push_t_board`; the first seven are the published ones, and
    resets and `set_state` also take five or seven. Recorded states restore the simulator exactly.

    Reset options: "state" and "goal".

    Args:
        obs_mode: "both" is {"image", "proprio" (agent position and velocity), "state"}, "image" and
            "state" a part of it.
        action_mode: "relative" actions in [-1, 1] aim 100 px ahead of the agent, "absolute" ones are
            targets in [0, 512] px. A target off the board is moved to its edge.
        image_size: side of the image, px; published data has 224.
        draw_goal: draw the package's green T, always in the same place, as published data does.
        resampling: "linear" as the package, "smooth" for small images that show small movements.
        render_mode: "rgb_array" or None.

    Example:
        >>> env = gym.make("wm_toolkit/PushT-v0", image_size=64)
        >>> obs, info = env.reset(seed=0)
        >>> {key: value.shape for key, value in obs.items()}
        {'image': (64, 64, 3), 'proprio': (4,), 'state': (10,)}
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        *,
        obs_mode: ObsMode = "both",
        action_mode: ActionMode = "relative",
        image_size: int = 224,
        draw_goal: bool = True,
        resampling: Resampling = "linear",
        render_mode: str | None = None,
    ) -> None:
        if action_mode not in get_args(ActionMode):
            raise ConfigError(
                f"action_mode is {action_mode!r}, expected one of {get_args(ActionMode)}"
            )
        self.render_mode = check_render_mode(render_mode)
        self.views = Views(obs_mode, image_size, {"proprio": len(PROPRIO), "state": STATE})
        self.board = Board()
        self._painter = Painter(
            self.board.outline, size=image_size, draw_goal=draw_goal, resampling=resampling
        )
        self.settings = {
            "obs_mode": obs_mode,
            "action_mode": action_mode,
            "image_size": image_size,
            "draw_goal": draw_goal,
            "resampling": resampling,
        }
        self.relative = action_mode == "relative"
        low, high = (-1.0, 1.0) if self.relative else (0.0, float(SIDE))
        self.action_space = gym.spaces.Box(low, high, (2,), np.float32)
        self.observation_space = self.views.space()
        self._state = self._goal = np.zeros(STATE, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start anywhere with a goal anywhere, or where the options say."""
        super().reset(seed=seed)
        given = check_options(options, _OPTIONS)
        drawn = {"state": draw_state(self.np_random), "goal": draw_state(self.np_random)}
        places = {name: full_state(given.get(name, drawn[name]), name) for name in _OPTIONS}
        self._state, self._goal = places["state"], places["goal"]
        return self._obs(), self._info()

    def step(self, action: NDArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Aim for `action` [2] during 0.1 s."""
        self._state = self.board.step(self._state, aim(self._state, action, self.relative))
        info = self._info()
        return self._obs(), float(info["success"]), False, False, info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The image [h, w, 3]."""
        return self._painter.draw(self._state) if self.render_mode else None

    def get_state(self) -> Floats:
        """[10] the whole state."""
        return self._state.copy()

    def set_state(self, state: NDArray) -> Any:
        """Go to `state` [5], [7] or [10] and return what is seen there."""
        self._state = full_state(state)
        return self._obs()

    def true_dynamics(self, spaces: Spaces) -> tuple[TruePushT, dict[str, Any]]:
        """The simulator as a world model with the actions of `spaces`; it observes the state."""
        from wm_toolkit.envs.true_push_t import TruePushT

        own = dataclasses.replace(spaces, observation={"state": feature_space(STATE)})
        return TruePushT(own, relative=self.relative), {"obs_mode": "state"}

    def _obs(self) -> Any:
        vectors = {"proprio": self._state[list(PROPRIO)], "state": self._state}
        return self.views.obs(vectors, lambda: self._painter.draw(self._state))

    def _info(self) -> dict[str, Any]:
        return {
            "state": self._state.copy(),
            "goal": self._goal.copy(),
            "success": bool(is_success(self._state, self._goal)),
        }


def aim(state: NDArray, action: NDArray, relative: bool) -> NDArray[np.float64]:
    """[..., 2] the target on the board that an action [..., 2] means in a state [..., >= 2], px."""
    target = np.asarray(action, np.float64)
    if relative:
        target = np.asarray(state, np.float64)[..., :2] + REACH * target
    return np.clip(target, 0.0, SIDE)


def draw_state(rng: np.random.Generator) -> Floats:
    """[10] a start as gym-pusht draws it: agent in 50 .. 450, block in 100 .. 400, any angle, at rest."""
    agent, block = rng.uniform(50, 450, 2), rng.uniform(100, 400, 2)
    return full_state([*agent, *block, rng.uniform(-np.pi, np.pi)])
