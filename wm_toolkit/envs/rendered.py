"""Pictures as observations of any environment that can draw itself."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.envs.mujoco_sim import use_fast_rendering
from wm_toolkit.envs.wrappers import resized, settings_of
from wm_toolkit.errors import ConfigError, MissingPackageError, SpaceError
from wm_toolkit.spaces import flat_obs, flat_space

STATE = "state"


class RenderedImages(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Puts what an environment draws beside what it observes, as "image" (uint8 [h, w, 3]).

    An observation that is one vector is called "state"; float64 becomes float32.

    Args:
        env: made with `render_mode="rgb_array"`.
        image_size: side of the image, px; a picture of another size is averaged down, its sides by
            themselves.
        obs_mode: "both", or "image" alone.
        fast_render: for MuJoCo, without shadows and multisampling; pixels change, so record it with the
            data.

    Raises:
        ConfigError: if the environment does not draw, or is asked for fast rendering without MuJoCo.
        MissingPackageError: with the first picture, if what the environment draws with is not installed.

    Example:
        >>> env = RenderedImages(gym.make("CartPole-v1", render_mode="rgb_array"), image_size=64)
        >>> {key: space.shape for key, space in env.observation_space.items()}
        {'image': (64, 64, 3), 'state': (4,)}
    """

    def __init__(
        self,
        env: gym.Env,
        *,
        image_size: int = 64,
        obs_mode: Literal["both", "image"] = "both",
        fast_render: bool = False,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, image_size=image_size, obs_mode=obs_mode, fast_render=fast_render
        )
        super().__init__(env)
        _check(env, image_size, obs_mode)
        if fast_render:
            model = getattr(env.unwrapped, "model", None)
            if not hasattr(model, "vis"):
                raise ConfigError(f"fast_render is for MuJoCo environments, {env} has no model")
            use_fast_rendering(model)
        self.settings = {
            **settings_of(env),
            "image_size": image_size,
            "obs_mode": obs_mode,
            "fast_render": fast_render,
        }
        self.image_size, self.only_image = image_size, obs_mode == "image"
        image = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        spaces = {name: _single(space) for name, space in _named(env.observation_space).items()}
        if "image" in spaces and not self.only_image:
            raise SpaceError("the environment observes an 'image' already; use obs_mode='image'")
        both = gym.spaces.Dict({"image": image, **spaces})
        self.observation_space = image if self.only_image else both

    def observation(self, observation: Any) -> Any:
        """The image, alone or beside the vectors."""
        image = self._image()
        if self.only_image:
            return image
        flat = flat_obs(observation)
        named = {STATE: flat["vector"]} if set(flat) == {"vector"} else flat
        assert isinstance(self.observation_space, gym.spaces.Dict)
        kinds = self.observation_space.spaces
        return {"image": image, **{k: np.asarray(v, kinds[k].dtype) for k, v in named.items()}}

    def _image(self) -> NDArray[np.uint8]:
        try:
            picture: Any = self.env.render()
        except DependencyNotInstalled as error:
            raise MissingPackageError(f"{self.env} cannot draw: {error}") from error
        return resized(picture, self.image_size)


def rendered(
    env: str,
    *,
    image_size: int = 64,
    obs_mode: Literal["both", "image"] = "both",
    fast_render: bool = False,
    action_repeat: int = 1,
    render_mode: str | None = None,
    **options: Any,
) -> gym.Env:
    """Any registered environment with `RenderedImages`: the id `wm_toolkit/Rendered-v0`.

    Args:
        env: its id.
        image_size, obs_mode, fast_render: as in `RenderedImages`.
        action_repeat: every action so many times, of which only the last is drawn.
        render_mode: "rgb_array" or None; the inner environment draws in either case.
        options: constructor arguments of the inner environment.

    Example:
        >>> env = gym.make("wm_toolkit/Rendered-v0", env="CartPole-v1", image_size=96)
        >>> env.reset(seed=0)[0]["image"].shape
        (96, 96, 3)
    """
    from wm_toolkit.envs.make import make

    prepare_headless()
    if action_repeat != 1:
        options["action_repeat"] = action_repeat
    inner = make(env, render_mode="rgb_array", **options)
    return RenderedImages(inner, image_size=image_size, obs_mode=obs_mode, fast_render=fast_render)


def _check(env: gym.Env, image_size: int, obs_mode: str) -> None:
    if env.render_mode != "rgb_array":
        raise ConfigError(
            f"{env} has render_mode {env.render_mode!r}; make it with render_mode='rgb_array'"
        )
    if image_size < 8 or obs_mode not in ("both", "image"):
        raise ConfigError(
            f"image_size is {image_size} (at least 8), obs_mode {obs_mode!r} ('both' or 'image')"
        )


def _named(space: gym.Space) -> dict[str, gym.Space]:
    flat = flat_space(space)
    return {STATE: flat["vector"]} if set(flat) == {"vector"} else flat


def _single(space: gym.Space) -> gym.Space:
    """The space with float32 for float64, its bounds cut to what float32 holds."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.float64:
        return space
    limit = float(np.finfo(np.float32).max)
    low, high = (
        np.clip(bound, -limit, limit).astype(np.float32) for bound in (space.low, space.high)
    )
    return gym.spaces.Box(low, high, space.shape, np.float32)
