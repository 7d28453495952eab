"""Behaviour Suite experiments as Gymnasium environments: the ids `bsuite/EXPERIMENT-SETTING`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from wm_toolkit.envs.rows import feature_space
from wm_toolkit.errors import UnknownNameError, did_you_mean, require


class BSuite(gym.Env):
    """One setting of one experiment of Osband et al. 2020, "Behaviour Suite for Reinforcement Learning".

    The observation is the suite's array as one float32 vector, the action a choice. `terminated` is true where
    dm_env says discount 0, `truncated` where an episode ends with another discount. The suite ends its timed
    tasks (cartpole, mountain_car) with discount 0 and shows the time that has passed, so that is termination.
    `info` holds "discount"; `score` what the suite counts over all episodes.

    Args:
        experiment: as the suite names it, "catch".
        setting: its number in the experiment's sweep, from 0. The setting fixes what makes the task (its size,
            noise, mapping of actions); the seed of `reset` what is drawn within it.

    Raises:
        UnknownNameError: with close matches, if the sweep has no such setting.
        MissingPackageError: if bsuite is not installed.

    Example:
        >>> env = gym.make("bsuite/catch-0")
        >>> env.reset(seed=0)[0].shape
        (50,)
    """

    def __init__(self, experiment: str, setting: int = 0) -> None:
        suite, sweep = require("bsuite.bsuite", "bsuite"), require("bsuite.sweep", "bsuite")
        name = f"{experiment}/{setting}"
        if name not in sweep.SETTINGS:
            known = sorted({one.partition("/")[0] for one in sweep.SETTINGS})
            raise UnknownNameError(
                f"bsuite has no setting {name!r}.{did_you_mean(experiment, known)}"
            )
        self._base: Any = suite.load(experiment, sweep.SETTINGS[name])
        spec = self._base.observation_spec()
        self.observation_space = _space(spec)
        self.action_space = gym.spaces.Discrete(int(self._base.action_spec().num_values))
        self.render_mode = None

    @property
    def episodes(self) -> int:
        """How many episodes the suite asks for."""
        return int(self._base.bsuite_num_episodes)

    @property
    def score(self) -> dict[str, float]:
        """What the suite has counted since the environment was made: "total_regret", "raw_return" ..."""
        return {name: float(value) for name, value in self._base.bsuite_info().items()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed()
        return self._handed_over(self._base.reset())

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one action."""
        step = self._base.step(int(action))
        obs, info = self._handed_over(step)
        over = bool(step.last() and info["discount"] == 0)
        return obs, float(step.reward), over, bool(step.last() and not over), info

    def _seed(self) -> None:
        """Every layer of the suite's wrappers draws from a generator of its own."""
        layer = self._base
        while layer is not None:
            if hasattr(layer, "_rng"):
                layer._rng = np.random.RandomState(int(self.np_random.integers(2**31)))
            layer = getattr(layer, "_env", None)

    def _handed_over(self, step: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        # Copied: some experiments show the array that they go on writing to.
        obs = np.array(step.observation, np.float32).ravel()
        discount = 1.0 if step.discount is None else float(step.discount)
        return obs, {"discount": discount}


def _space(spec: Any) -> gym.spaces.Box:
    width = int(np.prod(spec.shape))
    if not hasattr(spec, "minimum"):
        return feature_space(width)
    low, high = (
        np.broadcast_to(bound, spec.shape).astype(np.float32).ravel()
        for bound in (spec.minimum, spec.maximum)
    )
    return gym.spaces.Box(low, high, (width,), np.float32)
