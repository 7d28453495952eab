"""What the adapters show: a picture, vectors, or both, under the same names everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.rows import feature_space
from wm_toolkit.errors import ConfigError

ObsMode = Literal["both", "image", "state"]


@dataclasses.dataclass(frozen=True)
class Views:
    """The observations of an adapter.

    "both" is a Dict of "image" (uint8 [h, w, 3]) and every vector, "image" the bare picture, "state" a Dict
    of the vectors alone: nothing is drawn.

    Attributes:
        mode: which of these.
        image_size: side of the picture, px.
        widths: of the float32 vectors, by name.

    Raises:
        ConfigError: for an unknown mode or a size below 8 px.
    """

    mode: ObsMode
    image_size: int
    widths: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.mode not in get_args(ObsMode):
            raise ConfigError(f"obs_mode is {self.mode!r}, expected one of {get_args(ObsMode)}")
        if self.image_size < 8:
            raise ConfigError(f"image_size is {self.image_size}, expected at least 8 px")

    def space(self) -> gym.Space:
        """The observation space."""
        side = self.image_size
        image = gym.spaces.Box(0, 255, (side, side, 3), np.uint8)
        vectors: dict[str, gym.Space] = {
            name: feature_space(width) for name, width in self.widths.items()
        }
        return {
            "both": gym.spaces.Dict({"image": image, **vectors}),
            "image": image,
            "state": gym.spaces.Dict(vectors),
        }[self.mode]

    def obs(self, vectors: Mapping[str, NDArray], draw: Callable[[], NDArray]) -> Any:
        """One observation; `draw` is called only where the picture is wanted."""
        if self.mode == "image":
            return draw()
        seen = {name: np.array(vectors[name], np.float32) for name in self.widths}
        return seen if self.mode == "state" else {"image": draw(), **seen}


def check_render_mode(render_mode: str | None) -> str | None:
    """The render mode of an adapter.

    Raises:
        ConfigError: unless it is "rgb_array" or None.
    """
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
    return render_mode
