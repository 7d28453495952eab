"""VizDoom scenarios whose episodes end as they should: `VizdoomTakeCover-v1` and the like."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.views import ObsMode, Views
from wm_toolkit.envs.wrappers import check_repeat, resized


class DoomScreen(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """The screen as "image" and the game's variables (health, ammunition) as "variables".

    Death and a solved scenario are `terminated`; the scenario's timeout is `truncated` alone, where the package
    says both. The game shows nothing after its last tic, and the package gives black there; here the last
    screen is repeated, so that no model has to explain a frame that was never drawn. The files that the engine
    writes stand in a temporary folder, not in the working directory.

    Args:
        env: an environment of `vizdoom.gymnasium_wrapper`.
        obs_mode: "both", "image", or "state" (the variables alone).
        image_size: side of the picture, px; the screen is averaged.
        action_repeat: tics per action, of which only the last is drawn; rewards are summed up to the
            episode's end, and `info["repeats"]` counts the tics. It takes the place of the package's own
            `frame_skip`.

    Example:
        >>> env = make("VizdoomTakeCover-v1", obs_mode="image")
        >>> env.reset(seed=0)[0].shape, env.action_space.n
        ((64, 64, 3), 3)
    """

    def __init__(
        self,
        env: gym.Env,
        *,
        obs_mode: ObsMode = "both",
        image_size: int = 64,
        action_repeat: int | None = None,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, obs_mode=obs_mode, image_size=image_size, action_repeat=action_repeat
        )
        super().__init__(env)
        assert isinstance(env.observation_space, gym.spaces.Dict)
        found = env.observation_space.spaces.get("gamevariables")
        widths = {} if found is None else {"variables": int(np.prod(found.shape or ()))}
        self.views = Views(obs_mode, image_size, widths)
        self.observation_space = self.views.space()
        base: Any = env.unwrapped
        self._game: Any = base.game
        if action_repeat is not None:
            base.frame_skip = check_repeat(action_repeat)
        self.settings = {
            "obs_mode": obs_mode,
            "image_size": image_size,
            "action_repeat": base.frame_skip,
        }
        self._last: Any = None
        self._folder = Path(tempfile.mkdtemp(prefix="vizdoom-"))
        self._tidy = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._game.set_doom_config_path(str(self._folder / "_vizdoom.ini"))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a new episode."""
        # The engine is a process that makes a folder where it is started; the first reset starts it.
        running = self._game.is_running()
        with contextlib.nullcontext() if running else contextlib.chdir(self._folder):
            obs, info = self.env.reset(seed=seed, options=options)
        return self._seen(obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Press the buttons of `action`."""
        before = self._game.get_episode_time()
        obs, reward, _, truncated, info = self.env.step(action)
        info = {**info, "repeats": self._game.get_episode_time() - before}
        if not self._game.is_episode_finished():
            return self._seen(obs), float(reward), False, truncated, info
        timeout = self._game.is_episode_timeout_reached()
        terminated = bool(self._game.is_player_dead() or not timeout)
        return self._last, float(reward), terminated, not terminated, info

    def close(self) -> None:
        """End the engine, and remove what it wrote."""
        super().close()
        self._tidy()

    def _seen(self, obs: dict[str, NDArray]) -> Any:
        vectors = {"variables": obs["gamevariables"]} if self.views.widths else {}
        self._last = self.views.obs(
            vectors, lambda: resized(_colour(obs["screen"]), self.views.image_size)
        )
        return self._last


def _colour(screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(screen, 3, -1) if screen.shape[-1] == 1 else screen
