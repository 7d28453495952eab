"""What mazes and arms on MuJoCo have in common: states as goals, exact replays, pictures."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.envs.mujoco_sim import restore, simulator_state
from wm_toolkit.envs.rows import check_options, feature_space
from wm_toolkit.envs.views import ObsMode, Views, check_render_mode
from wm_toolkit.envs.wrappers import check_repeat

if TYPE_CHECKING:
    from wm_toolkit.envs.true_simulator import TrueSimulator
    from wm_toolkit.spaces import Spaces

Floats = NDArray[np.float32]
_OPTIONS = ("state", "goal")


class MujocoGoalEnv(gym.Env):
    """Start in a state, reach another one.

    The state is joint positions and velocities (float32); before every step the simulator is put into the
    state that was shown, so that recorded actions repeat what they did. The reward is 1 where the goal is
    reached, else 0; an episode never terminates. `info` holds "state", "goal" (a state) and "success".

    Subclasses call `_begin_life` once their simulator exists.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    base: Any
    settings: dict[str, Any]

    # -- to be written ---------------------------------------------------------------------------
    @abstractmethod
    def _draw_task(self, seed: int | None) -> tuple[NDArray, NDArray]:
        """A start and a goal, states [S] each, as the package draws them."""

    @abstractmethod
    def _execute(self, action: NDArray) -> None:
        """One step of the package's environment."""

    @abstractmethod
    def is_success(self, state: NDArray, goal: NDArray) -> bool:
        """Whether a state [S] reaches a goal [S]."""

    @abstractmethod
    def place(self, state: Tensor) -> Tensor:
        """What of states [..., S] has to reach a goal's: [..., F], near where success is near."""

    @abstractmethod
    def _draw(self) -> NDArray[np.uint8]:
        """The picture [h, w, 3] of the simulator's state."""

    @abstractmethod
    def _show_goal(self, goal: NDArray) -> None:
        """Tell the package where the goal [S] is."""

    def _proprio(self) -> list[int]:
        """Which entries of the state the agent feels; the rest is what it has to see."""
        return list(range(len(self._state)))

    # -- given -----------------------------------------------------------------------------------
    def _begin_life(
        self,
        action_space: Any,
        *,
        obs_mode: ObsMode,
        image_size: int,
        action_repeat: int,
        render_mode: str | None,
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.action_repeat = check_repeat(action_repeat)
        self._state = simulator_state(self.base.data)
        self._goal = self._state.copy()
        self._felt = self._proprio()
        widths = {"proprio": len(self._felt), "state": len(self._state)}
        self.views = Views(obs_mode, image_size, widths)
        self.observation_space = self.views.space()
        low, high = action_space.low, action_space.high
        self.action_space = gym.spaces.Box(low, high, low.shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start where the package starts with a goal of its own, or where the options say."""
        super().reset(seed=seed)
        given = check_options(options, _OPTIONS)
        start, goal = self._draw_task(seed)
        self._goal = np.array(given.get("goal", goal), np.float32)
        self._show_goal(self._goal)
        self._put(given.get("state", start))
        return self._obs(), self._info()

    def step(self, action: NDArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute `action` [A], `action_repeat` times."""
        for _ in range(self.action_repeat):
            restore(self.base.model, self.base.data, self._state)
            self._execute(np.asarray(action, np.float64))
            self._state = simulator_state(self.base.data)
        # What is drawn is the state that is told, to the last bit.
        self._put(self._state)
        info = {**self._info(), "repeats": self.action_repeat}
        return self._obs(), float(info["success"]), False, False, info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The image [h, w, 3]."""
        return self._draw() if self.render_mode else None

    def get_state(self) -> Floats:
        """[S] the whole state."""
        return self._state.copy()

    def set_state(self, state: NDArray) -> Any:
        """Go to `state` [S] and return what is seen there."""
        self._put(state)
        return self._obs()

    def true_dynamics(self, spaces: Spaces) -> tuple[TrueSimulator, dict[str, Any]]:
        """The simulator as a world model with the actions of `spaces`; it observes the state."""
        from wm_toolkit.envs.true_simulator import TrueSimulator

        shown = {"obs_mode": "state"}
        own = dataclasses.replace(spaces, observation={"state": feature_space(len(self._state))})
        return TrueSimulator(own, type(self)(**{**self.settings, **shown}), self.place), shown

    def _put(self, state: Any) -> None:
        self._state = np.array(state, np.float32)
        restore(self.base.model, self.base.data, self._state)

    def _obs(self) -> Any:
        vectors = {"proprio": self._state[self._felt], "state": self._state}
        return self.views.obs(vectors, self._draw)

    def _info(self) -> dict[str, Any]:
        return {
            "state": self._state.copy(),
            "goal": self._goal.copy(),
            "success": bool(self.is_success(self._state, self._goal)),
        }
