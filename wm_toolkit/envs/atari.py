"""Atari games under the published protocols: the ids `atari100k/GAME` and `atari/GAME`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.repeatable import GOES_ON
from wm_toolkit.envs.rows import over
from wm_toolkit.envs.views import check_render_mode
from wm_toolkit.envs.wrappers import Resampling, check_repeat, resized, to_grey
from wm_toolkit.errors import ConfigError, UnknownNameError, did_you_mean, require

LifeLoss = Literal["ignore", "terminate", "restart"]
Actions = Literal["needed", "all"]
MAX_FRAMES = 108_000  # half an hour at 60 Hz


class Atari(gym.Env):
    """One game, as agents are compared on it.

    The defaults are the Atari 100k protocol of Dreamer V3's newest code: 64 px in colour, every action
    for 4 frames, the brighter of the last two frames at every pixel, up to 30 no-ops to begin with, no
    sticky actions, a lost life is no end, raw rewards. 100k means 100,000 actions, 400,000 frames. The
    end of the game is `terminated`, the frame limit `truncated`. `info` holds "lives", "frames" (of the
    episode, no-ops aside) and "repeats" (frames of this action), and where it matters "goes_on": the
    next episode is the next life.

    Args:
        game: "Pong", "MsPacman", ...; "ms_pacman" as well. Ids have one spelling each: "atari/MsPacman".
        image_size: side of the picture, px. 64; 96 for EfficientZero and Dreamer V3's 200M-frame protocol.
        grey: one channel instead of three. Dreamer V2, and V3's 200M-frame protocol.
        action_repeat: frames per action.
        pooling: how many of the last frames the maximum is taken over.
        noops: at most so many no-ops begin an episode, drawn uniformly.
        sticky: probability that a frame repeats the action before (Machado et al. 2018: 0.25).
        actions: those the game needs, or all 18.
        life_loss: what the loss of a life is: "ignore", nothing; "terminate", the end of the episode, and the
            next one goes on with the next life (EfficientZero in training), unless its reset has a seed;
            "restart", the end, and the next one begins anew (Dreamer V3's code: `lives: reset`).
        clip_reward: the sign of the reward only (EfficientZero in training).
        max_frames: of an episode. EfficientZero trains with 12,000.
        resampling: "bilinear" as in Dreamer V3's code (antialiased), or "box".
        render_mode: "rgb_array" (the whole screen) or None.

    Raises:
        UnknownNameError: with close matches, if there is no such game.
        MissingPackageError: if ale-py is not installed.

    Example:
        >>> env = gym.make("atari100k/Pong")
        >>> env.reset(seed=0)[0].shape, env.action_space.n
        ((64, 64, 3), 6)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        game: str,
        *,
        image_size: int = 64,
        grey: bool = False,
        action_repeat: int = 4,
        pooling: int = 2,
        noops: int = 30,
        sticky: float = 0.0,
        actions: Actions = "needed",
        life_loss: LifeLoss = "ignore",
        clip_reward: bool = False,
        max_frames: int = MAX_FRAMES,
        resampling: Resampling = "bilinear",
        render_mode: str | None = None,
    ) -> None:
        self.settings = {
            "image_size": image_size,
            "grey": grey,
            "action_repeat": check_repeat(action_repeat),
            "pooling": pooling,
            "noops": noops,
            "sticky": sticky,
            "actions": actions,
            "life_loss": life_loss,
            "clip_reward": clip_reward,
            "max_frames": max_frames,
            "resampling": resampling,
        }
        _check(self.settings)
        self.render_mode = check_render_mode(render_mode)
        self.size, self.grey = image_size, grey
        self.resampling: Resampling = resampling
        self.repeat, self.pooling = action_repeat, min(pooling, action_repeat)
        self.noops, self.life_loss, self.clip = noops, life_loss, clip_reward
        self.max_frames, self._chance = max_frames, sticky > 0
        self._open(game, sticky)
        legal = {"needed": self._ale.getMinimalActionSet, "all": self._ale.getLegalActionSet}
        self._actions = legal[actions]()
        self.action_space = gym.spaces.Discrete(len(self._actions))
        shape = (image_size, image_size, 1 if grey else 3)
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        screen = (*self._ale.getScreenDims(), 3)
        self._screens = [np.zeros(screen, np.uint8) for _ in range(self.pooling)]
        self._frames, self._lives, self._goes_on = 0, 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin a game, or, after a life was lost and with life_loss="terminate", go on with the next."""
        super().reset(seed=seed)
        if seed is not None:
            self._goes_on = False
            if self._chance:
                self._ale.setInt("random_seed", int(self.np_random.integers(2**31 - 1)))
                self._ale.loadROM(self._rom)  # slow, but the emulator reads its seed nowhere else
        if self._goes_on:
            self._ale.act(0)
        else:
            self._begin_game()
        self._goes_on, self._frames, self._lives = False, 0, self._ale.lives()
        self._look(0)
        return self._obs(1), self._facts(0)

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold `action` for `action_repeat` frames, or to the episode's end."""
        total, seen, repeats = 0.0, 0, 0
        terminated = truncated = False
        while repeats < self.repeat and not over(terminated, truncated):
            total += self._ale.act(self._actions[int(action)])
            repeats, self._frames = repeats + 1, self._frames + 1
            terminated = self._ended()
            truncated = self._frames >= self.max_frames and not terminated
            if repeats > self.repeat - self.pooling or over(terminated, truncated):
                self._look(seen)
                seen += 1
        reward = float(np.sign(total)) if self.clip else float(total)
        return self._obs(seen), reward, terminated, truncated, self._facts(repeats)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The whole screen [210, 160, 3]."""
        return self._ale.getScreenRGB() if self.render_mode else None

    # -- the emulator --------------------------------------------------------------------------------
    def _open(self, game: str, sticky: float) -> None:
        ale_py = require("ale_py", "atari")
        self._rom = _rom(game)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale: Any = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", sticky)
        self._ale.loadROM(self._rom)

    def _begin_game(self) -> None:
        self._ale.reset_game()
        for _ in range(int(self.np_random.integers(self.noops + 1))):
            self._ale.act(0)
            if self._ale.game_over(with_truncation=False):
                self._ale.reset_game()

    def _ended(self) -> bool:
        """Whether the last frame ended the episode; a lost life may count."""
        lives, before = self._ale.lives(), self._lives
        self._lives = lives
        if self._ale.game_over(with_truncation=False):
            return True
        lost = self.life_loss != "ignore" and 0 < lives < before
        self._goes_on = lost and self.life_loss == "terminate"
        return lost

    def _look(self, slot: int) -> None:
        self._ale.getScreenRGB(self._screens[slot % self.pooling])

    def _obs(self, seen: int) -> NDArray[np.uint8]:
        """The picture of the `seen` newest frames of this action."""
        screen = self._screens[0]
        for other in self._screens[1 : min(seen, self.pooling)]:
            screen = np.maximum(screen, other)
        small = resized(screen, self.size, self.resampling)
        return to_grey(small) if self.grey else small

    def _facts(self, repeats: int) -> dict[str, Any]:
        facts = {"lives": self._lives, "frames": self._frames, "repeats": repeats}
        return facts | ({GOES_ON: self._goes_on} if self.life_loss == "terminate" else {})


def _rom(game: str) -> Any:
    """Where the game lies, found by its name whatever way it is spelt."""
    roms = require("ale_py.roms", "atari")
    known = {_plain(name): name for name in roms.get_all_rom_ids()}
    if _plain(game) not in known:
        raise UnknownNameError(f"no Atari game {game!r}.{did_you_mean(_plain(game), known)}")
    return roms.get_rom_path(known[_plain(game)])


def _plain(game: str) -> str:
    return game.replace("_", "").lower()


def _check(settings: dict[str, Any]) -> None:
    least = {"image_size": 8, "pooling": 1, "noops": 0, "max_frames": 1}
    for name, lowest in least.items():
        if settings[name] < lowest:
            raise ConfigError(f"{name} is {settings[name]}, expected at least {lowest}")
    if not 0 <= settings["sticky"] < 1:
        raise ConfigError(f"sticky is {settings['sticky']}, expected a probability below 1")
    known = {"actions": Actions, "life_loss": LifeLoss, "resampling": Resampling}
    for name, names in known.items():
        if settings[name] not in get_args(names):
            raise ConfigError(f"{name} is {settings[name]!r}, expected one of {get_args(names)}")
