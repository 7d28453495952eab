"""PointMaze on gymnasium-robotics: a ball under force control in a maze."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.envs.mujoco_goal import MujocoGoalEnv
from wm_toolkit.envs.mujoco_sim import Camera, from_above, mujoco
from wm_toolkit.envs.views import ObsMode
from wm_toolkit.errors import ConfigError, require

Maze = Literal["umaze", "open", "medium", "large"]
NEAR = 0.5  # what counts as the goal, units of the maze (a cell is 1 wide)
_MAPS = {"umaze": "U_MAZE", "open": "OPEN", "medium": "MEDIUM_MAZE", "large": "LARGE_MAZE"}


class PointMaze(MujocoGoalEnv):
    """Reach a place in a maze: success is a distance below 0.5 in x and y together.

    The state (and "proprio") is x, y and their velocities; the action is a force in [-1, 1]^2.
    Reset options: "state" and "goal", [4] each.

    Args:
        maze: which one.
        obs_mode: "both" is {"image", "proprio", "state"}, "image" and "state" a part of it.
        image_size: side of the image, px; published data has 224.
        camera: "top" shows the whole maze from above, "package" is the package's oblique view.
        draw_goal: draw the package's red goal marker where the goal is.
        fast_render: without shadows and multisampling; pixels change, so record it with the data.
        action_repeat: simulator steps (0.01 s each) per action.
        render_mode: "rgb_array" or None.

    Example:
        >>> env = gym.make("wm_toolkit/PointMaze-v0", maze="medium", obs_mode="state")
        >>> env.reset(seed=0)[0]["state"].shape
        (4,)
    """

    def __init__(
        self,
        *,
        maze: Maze = "umaze",
        obs_mode: ObsMode = "both",
        image_size: int = 224,
        camera: Literal["top", "package"] = "top",
        draw_goal: bool = False,
        fast_render: bool = False,
        action_repeat: int = 1,
        render_mode: str | None = None,
    ) -> None:
        for name, value, known in (
            ("maze", maze, get_args(Maze)),
            ("camera", camera, ("top", "package")),
        ):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}, expected one of {known}")
        prepare_headless()
        maps = require("gymnasium_robotics.envs.maze.maps", "pointmaze")
        package = require("gymnasium_robotics.envs.maze.point_maze", "pointmaze")
        self.base = package.PointMazeEnv(maze_map=getattr(maps, _MAPS[maze]), reset_target=False)
        Path(self.base.tmp_xml_file_path).unlink(missing_ok=True)  # read, and left behind otherwise
        self.view = camera
        if not draw_goal:
            self.base.model.site_rgba[self.base.target_site_id, 3] = 0
        self.settings = {
            "maze": maze,
            "obs_mode": obs_mode,
            "image_size": image_size,
            "camera": camera,
            "draw_goal": draw_goal,
            "fast_render": fast_render,
            "action_repeat": action_repeat,
        }
        self._begin_life(
            self.base.action_space,
            obs_mode=obs_mode,
            image_size=image_size,
            action_repeat=action_repeat,
            render_mode=render_mode,
        )
        self._camera = Camera(
            self.base.model,
            look=("PointMaze", maze, draw_goal),
            size=image_size,
            view=self._view(),
            fast_render=fast_render,
        )

    def is_success(self, state: NDArray, goal: NDArray) -> bool:
        """Whether x and y of a state [4] are within 0.5 of the goal's."""
        return bool(np.linalg.norm(np.subtract(state[:2], goal[:2], dtype=np.float64)) < NEAR)

    def place(self, state: Tensor) -> Tensor:
        """[..., 2] x and y of states [..., 4]."""
        return state[..., :2]

    def close(self) -> None:
        """Give the rendering context back."""
        self._camera.close()
        self.base.close()

    def _draw_task(self, seed: int | None) -> tuple[NDArray, NDArray]:
        self.base.reset(seed=seed)
        start = np.concatenate([self.base.data.qpos, self.base.data.qvel])
        return start, np.concatenate([self.base.goal, np.zeros(2)])

    def _execute(self, action: NDArray) -> None:
        self.base.step(action)

    def _show_goal(self, goal: NDArray) -> None:
        self.base.goal = np.asarray(goal[:2], np.float64)
        self.base.update_target_site_pos()

    def _draw(self) -> NDArray[np.uint8]:
        return self._camera.draw(self.base.data)

    def _view(self) -> Any:
        cells = max(self.base.maze.map_length, self.base.maze.map_width)
        if self.view == "top":
            return from_above(np.zeros(2), 1.15 * cells)
        camera = mujoco().MjvCamera()
        mujoco().mjv_defaultFreeCamera(self.base.model, camera)
        camera.lookat[:] = np.median(self.base.data.geom_xpos, axis=0)
        camera.distance = 12.5 if self.base.maze.map_length > 8 else 8.8
        return camera
