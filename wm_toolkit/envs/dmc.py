"""DeepMind Control tasks as Gymnasium environments, by the ids `dmc/DOMAIN-TASK`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.envs.mujoco_sim import Camera, simulator_state
from wm_toolkit.envs.views import ObsMode, Views, check_render_mode
from wm_toolkit.envs.wrappers import check_repeat
from wm_toolkit.errors import ConfigError, UnknownNameError, did_you_mean, require

PROPRIO = "proprio"


class DmControl(gym.Env):
    """A task of dm_control's suite.

    `terminated` is true where dm_env says discount 0, `truncated` at the suite's time limit, where it says
    discount 1. `info` holds "discount", "state" (joint positions, velocities and activations) and, after a
    step, "repeats" (how many control steps it took). Many tasks keep more than that outside the simulator's state, so only the reacher can be put into one and has goals.

    Args:
        domain: as the suite names it, "cartpole".
        task: likewise, "swingup".
        obs_mode: "both" is the image and the vectors, "image" and "state" one of them.
        vectors: "flat" joins the suite's observations to one vector "proprio", "dict" keeps them apart under
            the suite's names.
        image_size: side of the image, px.
        camera: number of the model's camera; by default 2 for the quadruped, else 0 where there is one.
        fast_render: without shadows and multisampling; pixels change, so record it with the data.
        action_repeat: control steps per action; rewards are summed up to the episode's end.
        render_mode: "rgb_array" or None.

    Raises:
        UnknownNameError: with close matches, if the suite has no such task.
        MissingPackageError: if dm-control is not installed.

    Example:
        >>> env = gym.make("dmc/cartpole-swingup", obs_mode="state", action_repeat=2)
        >>> env.reset(seed=0)[0]["proprio"].shape
        (5,)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        obs_mode: ObsMode = "both",
        vectors: Literal["flat", "dict"] = "flat",
        image_size: int = 64,
        camera: int | None = None,
        fast_render: bool = False,
        action_repeat: int = 1,
        render_mode: str | None = None,
    ) -> None:
        check_repeat(action_repeat)
        if vectors not in ("flat", "dict"):
            raise ConfigError(f"vectors is {vectors!r}, expected 'flat' or 'dict'")
        self.render_mode = check_render_mode(render_mode)
        self._suite_env: Any = _load(domain, task)
        self.domain, self.task = domain, task
        self.flat, self.action_repeat = vectors == "flat", action_repeat
        view = _default_camera(domain, self.physics.model.ncam) if camera is None else camera
        self.settings = {
            "obs_mode": obs_mode,
            "vectors": vectors,
            "image_size": image_size,
            "camera": view,
            "fast_render": fast_render,
            "action_repeat": action_repeat,
        }
        spec = self._suite_env.action_spec()
        self.action_space = gym.spaces.Box(
            np.broadcast_to(spec.minimum, spec.shape).astype(np.float32),
            np.broadcast_to(spec.maximum, spec.shape).astype(np.float32),
            spec.shape,
            np.float32,
        )
        shapes = self._vectors(self._suite_env.reset().observation)
        widths = {name: len(value) for name, value in shapes.items()}
        self.views = Views(obs_mode, image_size, widths)
        self.observation_space = self.views.space()
        # Terrain is drawn anew for every episode, so it cannot be shared.
        self._has_terrain = self.physics.model.nhfield > 0
        self._camera = Camera(
            self.physics.model.ptr,
            look=(domain, task, id(self) if self._has_terrain else None),
            size=image_size,
            view=view,
            fast_render=fast_render,
        )

    @property
    def physics(self) -> Any:
        """The suite's simulator."""
        return self._suite_env.physics

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a new episode."""
        obs, _, _, _, info = self._handed_over(self._begin(seed), 0.0)
        return obs, info

    def step(self, action: NDArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute `action` [A], `action_repeat` times or to the episode's end."""
        total, repeats = 0.0, 0
        for _ in range(self.action_repeat):
            step = self._suite_env.step(np.asarray(action, np.float64))
            total, repeats = total + float(step.reward), repeats + 1
            if step.last():
                break
        obs, reward, terminated, truncated, info = self._handed_over(step, total)
        return obs, reward, terminated, truncated, {**info, "repeats": repeats}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The image [h, w, 3]."""
        return self._draw() if self.render_mode else None

    def close(self) -> None:
        """Give the rendering context and the simulator back."""
        self._camera.close()
        self._suite_env.close()

    def _begin(self, seed: int | None) -> Any:
        """The first step of a new episode, as the suite draws it."""
        super().reset(seed=seed)
        # A task draws from this generator alone; the suite has no other way to seed it after loading.
        self._suite_env.task._random = np.random.RandomState(self.np_random.integers(2**31))
        first = self._suite_env.reset()
        if self._has_terrain:
            self._camera.close()
        return first

    def _handed_over(
        self, step: Any, reward: float
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        discount = 1.0 if step.discount is None else float(step.discount)
        info = {"discount": discount, "state": simulator_state(self.physics.data)}
        terminated = bool(step.last() and discount == 0)
        truncated = bool(step.last() and discount != 0)
        obs = self.views.obs(self._vectors(step.observation), self._draw)
        return obs, reward, terminated, truncated, info

    def _vectors(self, observation: Any) -> dict[str, NDArray]:
        parts = {name: np.ravel(value) for name, value in observation.items()}
        return {PROPRIO: np.concatenate(list(parts.values()))} if self.flat else parts

    def _draw(self) -> NDArray[np.uint8]:
        return self._camera.draw(self.physics.data.ptr)


def _load(domain: str, task: str) -> Any:
    prepare_headless()
    suite = require("dm_control.suite", "dmc")
    known = [f"{one}-{other}" for one, other in suite.ALL_TASKS]
    name = f"{domain}-{task}"
    if name not in known:
        raise UnknownNameError(f"dm_control has no task {name!r}.{did_you_mean(name, known)}")
    return suite.load(domain, task, task_kwargs={"random": 0})


def _default_camera(domain: str, cameras: int) -> int:
    if not cameras:
        return -1
    return 2 if domain == "quadruped" else 0
