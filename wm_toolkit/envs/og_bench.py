"""OGBench's mazes and cubes: navigation and manipulation towards goal states."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import types
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.envs.mujoco_goal import MujocoGoalEnv
from wm_toolkit.envs.mujoco_sim import Camera
from wm_toolkit.envs.views import ObsMode
from wm_toolkit.errors import UnknownNameError, did_you_mean, require

CUBE_NEAR = 0.04  # m, OGBench's success for a cube


class OgBench(MujocoGoalEnv):
    """A goal-conditioned task of OGBench; success is the package's own.

    Mazes (point, ant, humanoid): the agent is within the package's tolerance of the goal in x and y.
    Cubes: every cube is within 4 cm of its goal. Other families keep a part of their state outside the
    simulator; use `wm_toolkit/Rendered-v0` with env="ogbench:NAME" for those.

    The state is joint positions and velocities; "proprio" leaves the cubes out. The goal is not drawn.
    Reset options: "state" and "goal" (a state).

    Args:
        task: an OGBench id; the "visual-..." ones look as the published pixel data does.
        obs_mode: "both" is {"image", "proprio", "state"}, "image" and "state" a part of it.
        image_size: side of the image, px.
        fast_render: without shadows and multisampling; pixels change, so record it with the data.
        action_repeat: steps of the package's environment per action.
        render_mode: "rgb_array" or None.

    Example:
        >>> env = gym.make("wm_toolkit/OGBench-v0", task="pointmaze-medium-v0", obs_mode="state")
        >>> env.reset(seed=0)[0]["state"].shape
        (4,)
    """

    def __init__(
        self,
        *,
        task: str = "pointmaze-medium-v0",
        obs_mode: ObsMode = "both",
        image_size: int = 64,
        fast_render: bool = False,
        action_repeat: int = 1,
        render_mode: str | None = None,
    ) -> None:
        self.base = _load(task, image_size)
        self.cubes = _cube_positions(self.base)
        if not self.cubes and "target" in _geoms(self.base.model):
            self.base.model.geom("target").matid = -1
            self.base.model.geom("target").rgba[:] = 0
        self.settings = {
            "task": task,
            "obs_mode": obs_mode,
            "image_size": image_size,
            "fast_render": fast_render,
            "action_repeat": action_repeat,
        }
        with _own_stream(0):
            space = self.base.action_space
        self._begin_life(
            space,
            obs_mode=obs_mode,
            image_size=image_size,
            action_repeat=action_repeat,
            render_mode=render_mode,
        )
        self._camera = Camera(
            self.base.model,
            look=("OGBench", task),
            size=image_size,
            view=self._view(task),
            fast_render=fast_render,
        )

    def is_success(self, state: NDArray, goal: NDArray) -> bool:
        """Whether the agent, or every cube, of a state [S] is where it is in a goal [S]."""
        away = np.subtract(state, goal, dtype=np.float64)
        if not self.cubes:
            return bool(np.linalg.norm(away[:2]) <= self.base._goal_tol)
        return all(np.linalg.norm(away[at : at + 3]) <= CUBE_NEAR for at in self.cubes)

    def place(self, state: Tensor) -> Tensor:
        """[..., F] x and y of the agent, or x, y, z of every cube, in states [..., S]."""
        chosen = [at + axis for at in self.cubes for axis in range(3)]
        return state[..., chosen or [0, 1]]

    def close(self) -> None:
        """Give the rendering context back."""
        self._camera.close()

    def _draw_task(self, seed: int | None) -> tuple[NDArray, NDArray]:
        draw = int(self.np_random.integers(2**31))
        with _own_stream(draw):
            if not self.cubes:
                self.base.action_space.seed(draw)
            self.base.reset(seed=draw)
        data = self.base.data
        start = np.concatenate([data.qpos, data.qvel, data.act])
        goal = start.copy()
        goal[self.base.model.nq :] = 0
        if not self.cubes:
            goal[:2] = self.base.cur_goal_xy
        for cube, at in enumerate(self.cubes):
            target = self.base._cube_target_mocap_ids[cube]
            goal[at : at + 3], goal[at + 3 : at + 7] = data.mocap_pos[target], (1, 0, 0, 0)
        return start, goal

    def _show_goal(self, goal: NDArray) -> None:
        if not self.cubes:
            self.base.set_goal(goal_xy=np.asarray(goal[:2], np.float64))
        for cube, at in enumerate(self.cubes):
            target = self.base._cube_target_mocap_ids[cube]
            self.base.data.mocap_pos[target] = goal[at : at + 3]

    def _execute(self, action: NDArray) -> None:
        with _own_stream(int(self.np_random.integers(2**31))):
            self.base.step(action)

    def _proprio(self) -> list[int]:
        model = self.base.model
        hidden = {at + i for at in self.cubes for i in range(7)}
        for cube in range(len(self.cubes)):
            first = model.nq + int(model.joint(f"object_joint_{cube}").dofadr[0])
            hidden |= set(range(first, first + 6))
        return [i for i in range(len(self._state)) if i not in hidden]

    def _draw(self) -> NDArray[np.uint8]:
        return self._camera.draw(self.base.data)

    def _view(self, task: str) -> Any:
        """The package's camera for this task."""
        if not self.cubes:
            return self.base.custom_camera
        return "front_pixels" if task.startswith("visual-") else "front"


def _load(name: str, image_size: int) -> Any:
    prepare_headless()
    require("ogbench", "ogbench")
    known = [
        key
        for key in gym.registry
        if ("maze-" in key or "cube-" in key) and "ogbench" in str(gym.registry[key].entry_point)
    ]
    if name not in known:
        raise UnknownNameError(f"no OGBench maze or cube task {name!r}.{did_you_mean(name, known)}")
    options: dict[str, Any] = {"width": image_size, "height": image_size}
    if "cube-" in name:
        options["visualize_info"] = False
    with _own_stream(0), _no_files_left():
        base: Any = gym.make(
            name, terminate_at_goal=False, disable_env_checker=True, **options
        ).unwrapped
        base.reset(seed=0)
    # Its own observation is of no use here, and that of a visual task costs a picture.
    _close_renderer(base)
    base.get_ob = base.compute_observation = lambda *args, **kwargs: None
    return base


def _geoms(model: Any) -> list[str]:
    return [model.geom(i).name for i in range(model.ngeom)]


def _cube_positions(base: Any) -> list[int]:
    """Where each cube's x, y, z lie in the joint positions; empty for a maze."""
    count = getattr(base, "_num_cubes", 0)
    return [int(base.model.joint(f"object_joint_{i}").qposadr[0]) for i in range(count)]


def _close_renderer(base: Any) -> None:
    """Visual tasks open a rendering context of their own at once."""
    for name in ("custom_renderer", "_renderer"):
        renderer = getattr(base, name, None)
        if renderer is not None:
            renderer.close()
            setattr(base, name, None)


@contextlib.contextmanager
def _no_files_left() -> Iterator[None]:
    """Let the package write its mazes into a folder that goes, with handles that are closed."""
    package: Any = importlib.import_module("ogbench.locomaze.maze")
    handles: list[int] = []

    with tempfile.TemporaryDirectory() as folder:

        def in_folder(**options: Any) -> tuple[int, str]:
            handle, path = tempfile.mkstemp(dir=folder, **options)
            handles.append(handle)
            return handle, path

        package.tempfile = types.SimpleNamespace(mkstemp=in_folder)
        try:
            yield
        finally:
            package.tempfile = tempfile
            for handle in handles:
                os.close(handle)


@contextlib.contextmanager
def _own_stream(seed: int) -> Iterator[None]:
    """Let the package draw from numpy's global generator, seeded, and put that back afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.set_state(np.random.RandomState(seed).get_state())  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            # It makes its action space anew at every look, in float64.
            warnings.filterwarnings("ignore", ".*precision lowered")
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
