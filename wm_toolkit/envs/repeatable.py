"""Episodes that can be repeated from a few facts, so that a stopped run goes on in the middle of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from wm_toolkit.envs.rows import over

REPEATABLE = "repeatable"
"""Metadata of environments whose running episode can be repeated; also the reset option that does it."""
GOES_ON = "goes_on"
"""In the info of an episode's last step: the next one goes on where it ended (the next life of a game)."""


class RepeatableEpisodes(gym.Wrapper):
    """Seeds every episode by its number, and repeats one on request.

    An environment's own state cannot be saved in general. An episode follows from its seed and its
    actions, though, wherever the environment draws everything from its own generator. Where one episode
    goes on with the other (`GOES_ON`), both count as one here, so the first one's seed and all actions
    repeat it.

    Args:
        env: outermost but for this.
        seed: of all episodes.
        row: which environment of a vector this is.

    Example:
        >>> env = RepeatableEpisodes(gym.make("CartPole-v1"), seed=0)
        >>> env.reset(options={"repeatable": [{"episode": 7, "actions": [0, 1, 1]}]})
    """

    def __init__(self, env: gym.Env, seed: int, row: int = 0) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, REPEATABLE: True}
        self.seed, self.row, self.episode = seed, row, -1
        self._waits = self._goes_on = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode; with a seed, the first one of that seed.

        Args:
            seed: of all episodes from here on.
            options: "repeatable" holds {"episode": number, "actions": [t, ...]} for every environment of
                the vector: begin that episode and take those actions; "breaks" [n] says before which of
                them it was reset to go on. Others go to the environment.
        """
        others = dict(options or {})
        parts: Sequence[Mapping[str, Any]] | None = others.pop(REPEATABLE, None)
        goes_on, self._waits, self._goes_on = self._goes_on, False, False
        if goes_on and seed is None and parts is None:
            return self.env.reset(options=others or None)
        if seed is not None:
            self.seed, self.episode = seed, -1
        self.episode = self.episode + 1 if parts is None else int(parts[self.row]["episode"])
        obs, info = self.env.reset(seed=self._episode_seed(), options=others or None)
        return (obs, info) if parts is None else self._repeat(obs, info, parts[self.row])

    def _repeat(
        self, obs: Any, info: dict[str, Any], part: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Take the actions of an episode that has begun with `obs` and `info`."""
        breaks = {int(number) for number in part.get("breaks", ())}
        for number, action in enumerate(part["actions"]):
            if number in breaks:
                obs, info = self.env.reset()
            obs, _, terminated, truncated, info = self._step(action)
            self._waits = bool(over(terminated, truncated))
        if len(part["actions"]) in breaks:  # the next life has begun, and nothing was done in it
            obs, info = self.reset()
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; behind a repeated episode that was over, the beginning of the next."""
        if self._waits:
            # The vector environment has not seen the end, so it does not reset.
            obs, info = self.reset()
            return obs, 0.0, False, False, info
        return self._step(action)

    def _step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        found = self.env.step(action)
        self._goes_on = bool(found[4].get(GOES_ON, False))
        return found

    def _episode_seed(self) -> int:
        """31 bits: what every package takes."""
        word = np.random.SeedSequence([self.seed, self.episode]).generate_state(1)[0]
        return int(word >> 1)
