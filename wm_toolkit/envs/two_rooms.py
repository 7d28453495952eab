"""TwoRooms: a red dot that has to find a door, alone or many at once.

`TwoRooms` and `TwoRoomsVector` share every line of physics and rendering (`wm_toolkit.envs.rooms`); row i
of the vector seeded with s behaves as a single environment seeded with s + i.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from wm_toolkit.envs.rooms import Floats, GoalRoom, Rooms
from wm_toolkit.envs.rows import check_options, pop_reset_mask, row_generators
from wm_toolkit.errors import ConfigError, SpaceError

if TYPE_CHECKING:
    from wm_toolkit.envs.true_rooms import TrueRooms
    from wm_toolkit.spaces import Spaces

ObsMode = Literal["image", "position", "both"]
_POSITIONS = {"state", "position", "goal"}
_OPTIONS = (*sorted(_POSITIONS), "goal_room")


class _TwoRooms:
    """What the single and the vector environment have in common; every method takes [..., 2]."""

    metadata: ClassVar[dict[str, Any]]

    def __init__(
        self,
        rooms: Rooms | None,
        obs_mode: ObsMode,
        goal_room: GoalRoom,
        render_mode: str | None,
        layout: Mapping[str, Any],
    ) -> None:
        if rooms is not None and layout:
            raise ConfigError(f"give rooms=Rooms(...) or its fields {sorted(layout)}, not both")
        for name, value, known in (
            ("obs_mode", obs_mode, get_args(ObsMode)),
            ("goal_room", goal_room, get_args(GoalRoom)),
            ("render_mode", render_mode, (None, "rgb_array")),
        ):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}, expected one of {known}")
        fields: dict[str, Any] = {
            key: tuple(v) if key == "doors" else v for key, v in layout.items()
        }
        self.rooms = rooms or Rooms(**fields)
        self.obs_mode, self.goal_room, self.render_mode = obs_mode, goal_room, render_mode

    def is_success(self, position: NDArray, goal: NDArray) -> NDArray[np.bool_]:
        """[...] whether positions [..., 2] reach goals [..., 2]; it never ends an episode."""
        return self.rooms.is_success(position, goal)

    def _spaces(self) -> tuple[gym.Space, gym.Space]:
        side, position = self.rooms.pixels, self._position_space()
        image = gym.spaces.Box(0, 255, (side, side, 3), np.uint8)
        both = gym.spaces.Dict({"image": image, "position": position})
        observation = {"image": image, "position": position, "both": both}[self.obs_mode]
        return observation, gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _position_space(self) -> gym.spaces.Box:
        return gym.spaces.Box(0.0, float(self.rooms.size - 1), (2,), np.float32)

    def _obs(self, position: Floats) -> Any:
        if self.obs_mode == "position":
            return position.copy()
        image = self.rooms.render(position)
        return image if self.obs_mode == "image" else {"image": image, "position": position.copy()}

    def _info(self, position: Floats, goal: Floats) -> dict[str, Any]:
        success = self.is_success(position, goal)
        return {
            "position": position.copy(),
            "goal": goal.copy(),
            "success": success if success.ndim else bool(success),
        }

    def _begin(self, uniform: NDArray, options: Mapping[str, Any] | None) -> tuple[Floats, Floats]:
        """Starts and goals [..., 2] from uniform numbers [..., 4] and the reset's options."""
        options = check_options(options, _OPTIONS)
        position = self.rooms.place(uniform[..., :2])
        for key in ("state", "position"):
            if key in options:
                position = self._given(options[key], key, position)
        goal_room = options.get("goal_room", self.goal_room)
        goal = self.rooms.place_goal(uniform[..., 2:], position, goal_room)
        if "goal" in options:
            goal = self._given(options["goal"], "goal", goal)
        return position, goal

    def _given(self, value: Any, name: str, like: Floats) -> Floats:
        given = self.rooms.check(value, f"options[{name!r}]")
        if given.shape not in ((2,), like.shape):
            raise SpaceError(f"options[{name!r}] has shape {given.shape}, expected {like.shape}")
        return np.broadcast_to(given, like.shape).copy()


class TwoRooms(_TwoRooms, gym.Env):
    """Two rooms, one door: move the dot to the goal.

    The observation is an image (uint8 [h, w, 3]), the position in units, or a Dict of both. The reward
    is 1 on a row that is at the goal, else 0. `info` holds "position", "goal" and "success"; an episode
    never terminates, `gymnasium.make` cuts it at `max_episode_steps`.

    Reset options: "position" (or "state") and "goal" [2], "goal_room" ("any", "same", "opposite").

    Args:
        rooms: the layout; or give its fields by name (`size=`, `doors=` ...).
        obs_mode: what an observation is.
        goal_room: where the environment's own goals lie.
        render_mode: "rgb_array" or None.

    Example:
        >>> env = gym.make("wm_toolkit/TwoRooms-v0", obs_mode="position")
        >>> obs, info = env.reset(seed=0, options={"position": [10, 10], "goal": [50, 50]})
        >>> obs
        array([10., 10.], dtype=float32)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        *,
        rooms: Rooms | None = None,
        obs_mode: ObsMode = "image",
        goal_room: GoalRoom = "any",
        render_mode: str | None = None,
        **layout: Any,
    ) -> None:
        super().__init__(rooms, obs_mode, goal_room, render_mode, layout)
        self.observation_space, self.action_space = self._spaces()
        self._position = self._goal = np.zeros(2, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start anywhere, or where the options say."""
        gym.Env.reset(self, seed=seed)
        self._position, self._goal = self._begin(self.np_random.random(4), options)
        return self._obs(self._position), self._info(self._position, self._goal)

    def step(self, action: NDArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move by `action` [2] in [-1, 1]."""
        self._position = self.rooms.move(self._position, action)
        info = self._info(self._position, self._goal)
        return self._obs(self._position), float(info["success"]), False, False, info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The image [h, w, 3]."""
        return self.rooms.render(self._position) if self.render_mode else None

    def get_state(self) -> Floats:
        """[2] the whole state: the position."""
        return self._position.copy()

    def set_state(self, state: NDArray) -> Any:
        """Move the agent to `state` [2] and return what is seen there."""
        self._position = self.rooms.check(state, "state").copy()
        return self._obs(self._position)

    def true_dynamics(self, spaces: Spaces) -> tuple[TrueRooms, dict[str, Any]]:
        """This layout as a world model with the actions of `spaces`; it observes the position."""
        from wm_toolkit.envs.true_rooms import TrueRooms

        own = dataclasses.replace(spaces, observation={"position": self._position_space()})
        return TrueRooms(own, self.rooms), {"obs_mode": "both"}


class TwoRoomsVector(_TwoRooms, gym.vector.VectorEnv):
    """`num_envs` TwoRooms in one batch of numpy arrays.

    Options and info are as in `TwoRooms`, with a leading axis [N]. A row that was cut at
    `max_episode_steps` starts anew on the next step.

    Args:
        num_envs: how many.
        max_episode_steps: the step budget of an episode.
        rooms, obs_mode, goal_room, render_mode: as in `TwoRooms`.

    Example:
        >>> envs = gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=100)
        >>> obs, info = envs.reset(seed=0)
        >>> obs.shape, info["position"].shape
        ((100, 64, 64, 3), (100, 2))
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
        max_episode_steps: int = 100,
        rooms: Rooms | None = None,
        obs_mode: ObsMode = "image",
        goal_room: GoalRoom = "any",
        render_mode: str | None = None,
        **layout: Any,
    ) -> None:
        if num_envs < 1 or max_episode_steps < 1:
            raise ConfigError(
                f"num_envs is {num_envs} and max_episode_steps {max_episode_steps}; both must be "
                "at least 1"
            )
        super().__init__(rooms, obs_mode, goal_room, render_mode, layout)
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = self._spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = row_generators(None, num_envs)
        self._position = np.zeros((num_envs, 2), np.float32)
        self._goal = np.zeros((num_envs, 2), np.float32)
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start every row anywhere, or where the options ([N, 2] or [2] each) say.

        Args:
            seed: row i is seeded with seed + i, or with seed[i]; None goes on with the generators.
            options: as in `TwoRooms`; with "reset_mask" [N] bool only those rows start anew.
        """
        options = dict(options or {})
        rows = np.flatnonzero(pop_reset_mask(options, self.num_envs))
        self._generators = row_generators(seed, self.num_envs, self._generators)
        for key in _POSITIONS & options.keys():
            options[key] = self._given(options[key], key, self._position)[rows]
        self._restart(rows, options)
        return self._obs(self._position), self._infos()

    def step(self, actions: NDArray) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Move every row by its action [N, 2]; rows that had ended start anew instead."""
        restart = self._ended.copy()
        self._position = self.rooms.move(self._position, actions)
        self._elapsed += 1
        if restart.any():
            self._restart(np.flatnonzero(restart), {})
        infos = self._infos()
        reward = np.where(restart, 0.0, infos["success"].astype(np.float64))
        truncated = self._elapsed >= self.max_episode_steps
        self._ended[:] = truncated
        return self._obs(self._position), reward, np.zeros_like(truncated), truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One image [h, w, 3] per row."""
        return tuple(self.rooms.render(self._position)) if self.render_mode else None

    def get_state(self) -> Floats:
        """[N, 2] the whole state: the positions."""
        return self._position.copy()

    def set_state(self, state: NDArray) -> Any:
        """Move the agents to `state` [N, 2] and return what is seen there."""
        self._position = self._given(state, "state", self._position)
        return self._obs(self._position)

    def _restart(self, rows: NDArray[np.int64], options: Mapping[str, Any]) -> None:
        uniform = np.stack([self._generators[row].random(4) for row in rows])
        self._position[rows], self._goal[rows] = self._begin(uniform, options)
        self._elapsed[rows], self._ended[rows] = 0, False

    def _infos(self) -> dict[str, Any]:
        infos = self._info(self._position, self._goal)
        every = np.ones(self.num_envs, bool)
        return infos | {f"_{key}": every.copy() for key in infos}
