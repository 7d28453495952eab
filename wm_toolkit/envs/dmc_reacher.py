"""DeepMind Control's reacher with goals: the ids `dmc/reacher-easy` and `dmc/reacher-hard`."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.envs.dmc import PROPRIO, DmControl
from wm_toolkit.envs.mujoco_sim import restore, simulator_state
from wm_toolkit.envs.rows import check_options, feature_space
from wm_toolkit.errors import SpaceError

if TYPE_CHECKING:
    from wm_toolkit.envs.true_simulator import TrueSimulator
    from wm_toolkit.spaces import Spaces

NEAR = 0.05  # rad, of each joint: the success of LeWorldModel's Reacher in stable-worldmodel
STATE = 6
_OPTIONS = ("state", "goal")


class Reacher(DmControl):
    """The suite's reacher, which can also be asked to take a pose: joints within 0.05 rad of a goal's.

    The state is the angles of shoulder and wrist, their velocities, and x, y of the target (which the suite's
    reward speaks of and the picture shows). A step begins from the float32 state that was told, so recorded
    actions repeat what they did. `info` holds "state", "goal" (a state) and "success" beside what
    `DmControl` says; the reward stays the suite's. Reset options: "state" and "goal", [6] each.

    Args:
        domain, task: as in `DmControl`; so is everything else.

    Example:
        >>> env = gym.make("dmc/reacher-easy", obs_mode="state")
        >>> env.reset(seed=0)[1]["state"].shape
        (6,)
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start as the suite does, with a random pose as the goal, or as the options say."""
        given = check_options(options, _OPTIONS)
        first = self._begin(seed)
        drawn = self._simulated()
        self._goal = _checked(given.get("goal", self._pose(drawn)))
        self._put(given.get("state", drawn))
        obs, _, _, _, info = self._handed_over(first, 0.0)
        return obs, info

    def get_state(self) -> NDArray[np.float32]:
        """[6] the whole state."""
        return self._simulated()

    def set_state(self, state: NDArray) -> Any:
        """Go to `state` [6] and return what is seen there."""
        self._put(state)
        return self.views.obs(self._vectors(self._felt()), self._draw)

    def is_success(self, state: NDArray, goal: NDArray) -> bool:
        """Whether both joints of a state [6] are within 0.05 rad of the goal's, full turns aside."""
        away = np.subtract(state[:2], goal[:2], dtype=np.float64)
        return bool((np.abs((away + np.pi) % (2 * np.pi) - np.pi) < NEAR).all())

    def true_dynamics(self, spaces: Spaces) -> tuple[TrueSimulator, dict[str, Any]]:
        """The simulator as a world model with the actions of `spaces`; it observes angles and velocities."""
        from wm_toolkit.envs.true_simulator import TrueSimulator

        shown = {"obs_mode": "state", "vectors": "flat"}
        env = Reacher(self.domain, self.task, **{**self.settings, **shown})
        env._suite_env._step_limit = math.inf  # a search takes more steps than an episode has
        own = dataclasses.replace(spaces, observation={PROPRIO: feature_space(STATE)})
        return TrueSimulator(own, env, _turned, key=PROPRIO, told=_told), shown

    def _handed_over(
        self, step: Any, reward: float
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        # What is shown, and what the next step begins from, is the state that is told, to the last bit.
        state = self._simulated()
        self._put(state)
        seen = step._replace(observation=self._felt())
        obs, reward, terminated, truncated, info = super()._handed_over(seen, reward)
        success = self.is_success(state, self._goal)
        info |= {"state": state, "goal": self._goal.copy(), "success": success}
        return obs, reward, terminated, truncated, info

    def _felt(self) -> Any:
        return self._suite_env.task.get_observation(self.physics)

    def _simulated(self) -> NDArray[np.float32]:
        target = self.physics.named.model.geom_pos["target", ["x", "y"]]
        return np.concatenate([simulator_state(self.physics.data), target]).astype(np.float32)

    def _put(self, state: Any) -> None:
        joints, target = np.split(_checked(state), [STATE - 2])
        self.physics.named.model.geom_pos["target", ["x", "y"]] = target
        restore(self.physics.model.ptr, self.physics.data.ptr, joints)

    def _pose(self, state: NDArray) -> NDArray:
        """A state [6] at rest with random angles; the target is that of `state`."""
        turn = self.np_random.uniform(-np.pi, np.pi)
        bend = self.np_random.uniform(*self.physics.named.model.jnt_range["wrist"])
        return np.concatenate([[turn, bend, 0.0, 0.0], state[STATE - 2 :]])


def _told(proprio: Tensor) -> Tensor:
    """States [..., 6] of what the suite shows: angles, way to the target, velocities.

    The target is left at the origin: it moves nothing.
    """
    angles, _, velocities = proprio.split(2, -1)
    return torch.cat([angles, velocities, torch.zeros_like(angles)], -1)


def _turned(state: Tensor) -> Tensor:
    """[..., 4] cosines and sines of both joints' angles in states [..., 6]: full turns make no difference."""
    angles = state[..., :2]
    return torch.cat([angles.cos(), angles.sin()], -1)


def _checked(state: Any) -> NDArray[np.float32]:
    """A state [6] of its own memory.

    Raises:
        SpaceError: for another width, or a number that is not finite.
    """
    given = np.array(state, np.float32)
    if given.shape != (STATE,) or not np.isfinite(given).all():
        raise SpaceError(
            f"state has shape {given.shape}, expected ({STATE},) finite numbers: two angles, their "
            "velocities, and x, y of the target"
        )
    return given
