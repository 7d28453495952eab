"""What can be done to any environment: actions that last, and pictures of another size or in grey."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.rows import over
from wm_toolkit.errors import ConfigError, SpaceError

Resampling = Literal["box", "bilinear"]
SMALLEST = 8  # px


def settings_of(env: gym.Env) -> dict[str, Any]:
    """What an environment says it was made with; `make(name, **settings)` makes the same again."""
    return dict(env.get_wrapper_attr("settings")) if env.has_wrapper_attr("settings") else {}


def steps_per_action(env: gym.Env) -> int:
    """Steps of the simulator (frames, in a game) that one action lasts."""
    inner: Any = env.unwrapped
    own = {"ale_py": "_frameskip", "vizdoom": "frame_skip"}.get(
        type(inner).__module__.split(".")[0]
    )
    skipped = getattr(inner, own) if own else 1
    # Some Atari versions skip a random number of frames, from a range.
    frames = skipped if isinstance(skipped, int) else 1
    return int(settings_of(env).get("action_repeat", 1)) * frames


class ActionRepeat(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Executes every action `repeat` times, or to the episode's end.

    Rewards are summed. `info` is the last step's, plus "repeats" (how many were executed); "success" is
    true if any of them succeeded. An action block of different actions is `ActionBlock`.

    Args:
        env: any environment.
        repeat: at least 1.

    Raises:
        ConfigError: if it is less.

    Example:
        >>> env = ActionRepeat(gym.make("Pendulum-v1"), 2)
        >>> env.reset(seed=0); env.step(env.action_space.sample())[-1]["repeats"]
        2
    """

    def __init__(self, env: gym.Env, repeat: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, repeat=repeat)
        super().__init__(env)
        self.repeat = check_repeat(repeat)
        self.settings = {**settings_of(env), "action_repeat": repeat}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute `action` until it was repeated often enough or the episode ends."""
        total, success, repeats = 0.0, False, 0
        for _ in range(self.repeat):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total, repeats = total + float(reward), repeats + 1
            success = success or bool(info.get("success", False))
            if over(terminated, truncated):
                break
        info = {**info, "repeats": repeats}
        if "success" in info:
            info["success"] = success
        return obs, total, terminated, truncated, info


def check_repeat(repeat: int) -> int:
    """An action repeat.

    Raises:
        ConfigError: if it is below 1.
    """
    if repeat < 1:
        raise ConfigError(f"action_repeat is {repeat}, expected at least 1")
    return repeat


class ResizedImages(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Every picture that an environment observes at another size, or in grey; all else as it is.

    Args:
        env: observes at least one picture (uint8 [h, w, C] or [h, w]), bare or in a Dict.
        size: side of the square that comes out, px; None keeps the size.
        grey: one channel, [h, w, 1].
        resampling: "box" averages, each pixel of the source counting in one of the result; "bilinear" weighs
            them by a triangle twice as wide (antialiased).

    Raises:
        SpaceError: if nothing there is a picture.
        ConfigError: for a size below 8 px.

    Example:
        >>> env = ResizedImages(gym.make("CarRacing-v3"), 64)
        >>> env.observation_space.shape
        (64, 64, 3)
    """

    def __init__(
        self,
        env: gym.Env,
        size: int | None = None,
        *,
        grey: bool = False,
        resampling: Resampling = "box",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, size=size, grey=grey, resampling=resampling)
        super().__init__(env)
        self.size, self.grey = size, grey
        self.resampling: Resampling = resampling
        if size is not None and size < SMALLEST:
            raise ConfigError(f"image_size is {size}, expected at least {SMALLEST} px")
        if not _has_picture(env.observation_space):
            raise SpaceError(
                f"{env} observes no picture to resize, but {env.observation_space}; "
                "obs_mode='image' or 'both' draws one"
            )
        self.observation_space = self._changed(env.observation_space)
        chosen = {"image_size": size} if size is not None else {}
        self.settings = {**settings_of(env), **chosen, **({"grey": True} if grey else {})}

    def observation(self, observation: Any) -> Any:
        """The observation with its pictures changed."""
        return self._seen(self.env.observation_space, observation)

    def _changed(self, space: gym.Space) -> gym.Space:
        if isinstance(space, gym.spaces.Dict):
            return gym.spaces.Dict({key: self._changed(child) for key, child in space.items()})
        if not _is_picture(space):
            return space
        sides, channels = (space.shape or ())[:2], (space.shape or ())[2:] or (1,)
        sides = sides if self.size is None else (self.size, self.size)
        return gym.spaces.Box(0, 255, (*sides, *((1,) if self.grey else channels)), np.uint8)

    def _seen(self, space: gym.Space, value: Any) -> Any:
        if isinstance(space, gym.spaces.Dict):
            return {key: self._seen(child, value[key]) for key, child in space.items()}
        if not _is_picture(space):
            return value
        small = value if self.size is None else resized(value, self.size, self.resampling)
        small = to_grey(small) if self.grey else small
        return small[..., None] if small.ndim == 2 else small


def resized(image: NDArray[np.uint8], size: int, how: Resampling = "box") -> NDArray[np.uint8]:
    """A picture [h, w, 3], [h, w, 1] or [h, w] as a square of `size` px, its sides by themselves."""
    from PIL import Image

    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    filters = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}
    plane = image[..., 0] if image.shape[2:] == (1,) else image
    small = np.asarray(Image.fromarray(plane).resize((size, size), filters[how]))
    return small.reshape(size, size, *image.shape[2:])


def to_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightness [h, w, 1] of a picture [h, w, 3] (ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B)."""
    if image.shape[-1] != 3:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def _is_picture(space: gym.Space) -> bool:
    """Whether a space holds uint8 pictures: [h, w], or [h, w, 1 or 3], at least 8 px wide and high."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    flat = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return flat and min(shape[:2]) >= SMALLEST


def _has_picture(space: gym.Space) -> bool:
    if isinstance(space, gym.spaces.Dict):
        return any(_has_picture(child) for child in space.values())
    return _is_picture(space)
