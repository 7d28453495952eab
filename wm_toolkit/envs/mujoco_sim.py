"""MuJoCo underneath an adapter: exact states and pictures, whatever package the model comes from."""

from __future__ import annotations

import atexit
import functools
import weakref
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.errors import SpaceError, require


@functools.cache  # a step asks for it, and choosing a backend looks for libraries in a process of its own
def mujoco() -> Any:
    """The package, imported late: it chooses its rendering backend when it is imported."""
    prepare_headless()
    return require("mujoco", "pointmaze")


def simulator_state(data: Any) -> NDArray[np.float32]:
    """[nq + nv + na] joint positions, velocities and activations of an MjData."""
    return np.concatenate([data.qpos, data.qvel, data.act]).astype(np.float32)


def restore(model: Any, data: Any, state: NDArray) -> None:
    """Put an MjData into a state [nq + nv + na], forgetting the solver's last guess.

    Called before every step with the float32 state that an observation shows, it makes a step a function
    of what was recorded: a replay gives the same numbers.

    Raises:
        SpaceError: for another width, or a number that is not finite.
    """
    sizes = (model.nq, model.nv, model.na)
    given = np.asarray(state, np.float64)
    if given.shape != (sum(sizes),) or not np.isfinite(given).all():
        raise SpaceError(
            f"state has shape {given.shape}, expected ({sum(sizes)},) finite numbers: positions, "
            "velocities and activations"
        )
    parts = np.split(given, np.cumsum(sizes)[:-1])
    data.qpos[:], data.qvel[:], data.act[:] = parts
    data.qacc_warmstart[:] = 0
    mujoco().mj_forward(model, data)


class Camera:
    """Pictures of a MuJoCo model, each drawn when asked for.

    A rendering context takes a second to open and tens of megabytes, so cameras of models that look the
    same share one. It is opened by the first picture, given back when the last of them is closed or
    forgotten, and at the latest when the interpreter ends, before the graphics library is gone.

    Args:
        model: an MjModel.
        look: what decides how the model looks, hashable; equal values mean equal looks.
        size: side of the picture, px.
        view: a camera's number or name, -1 for the model's free camera, or an MjvCamera.
        fast_render: without shadows and multisampling: several times faster, pixels differ by a few grey
            levels.
    """

    def __init__(
        self, model: Any, *, look: Hashable, size: int, view: Any, fast_render: bool
    ) -> None:
        self.model, self.size, self.view = model, size, view
        if fast_render:
            use_fast_rendering(model)
        self._key = (look, size, fast_render)
        self._renderer: Any = None

    def draw(self, data: Any) -> NDArray[np.uint8]:
        """The picture [size, size, 3] of an MjData."""
        if self._renderer is None:
            self._renderer = _open(self.model, self.size, self._key)
        self._renderer.update_scene(data, camera=self.view)
        return self._renderer.render().copy()

    def close(self) -> None:
        """Give the rendering context back; another picture opens one again."""
        self._renderer = None


_renderers: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()


def _open(model: Any, size: int, key: Hashable) -> Any:
    found = _renderers.get(key)
    if found is None:
        frame = model.vis.global_
        frame.offwidth = max(int(frame.offwidth), size)
        frame.offheight = max(int(frame.offheight), size)
        found = _renderers[key] = mujoco().Renderer(model, size, size)
        _close_at_exit()
    return found


@functools.cache
def _close_at_exit() -> None:
    # The first context set the hook that ends the graphics library; the hook set last runs first.
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_renderers.values()):
        renderer.close()


def use_fast_rendering(model: Any) -> None:
    """Switch shadows and multisampling of an MjModel off; has effect before its first picture."""
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0


def from_above(centre: NDArray, width: float, field_of_view: float = 45.0) -> Any:
    """A camera that looks straight down on a square.

    Args:
        centre: [2] of the square.
        width: of the square, units of the model.
        field_of_view: of the model's free camera, degrees.
    """
    camera = mujoco().MjvCamera()
    camera.lookat[:2], camera.elevation, camera.azimuth = centre, -90, 90
    camera.distance = width / 2 / np.tan(np.radians(field_of_view) / 2)
    return camera
