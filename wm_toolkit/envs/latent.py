"""Any environment seen through a world model: the observation is the model's features."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from wm_toolkit.envs.rows import feature_space, over, share, unshare
from wm_toolkit.errors import SpaceError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.spaces import Spaces


class _Filter:
    """Carries the latent state of `size` rows of an environment."""

    def __init__(self, model: Any, spaces: Spaces, size: int) -> None:
        self.model: WorldModel = model if isinstance(model, WorldModel) else model.model
        problem = self.model.spaces.mismatch(spaces)
        if problem:
            raise SpaceError(f"the model does not fit the environment: {problem}")
        self.model.eval()
        self.size = size
        self.state: Any = self.model.initial(size)
        with torch.no_grad():
            width = self.model.features(self.state).shape[-1]
        self.space = feature_space(width)
        self.noise = torch.Generator(self.model.device)

    def seed(self, seed: Any) -> None:
        """Seed the draws of models that sample their posterior; None goes on."""
        if seed is not None:
            self.noise.manual_seed(int(np.ravel(seed)[0]))

    @torch.no_grad()
    def observe(self, obs: Any, action: NDArray | None, is_first: NDArray[np.bool_]) -> NDArray:
        """Features [size, F] after one more observation; rows of `is_first` begin anew."""
        model, first = self.model, torch.from_numpy(is_first)
        seen = {key: x.to(model.device) for key, x in model.spaces.encode_obs(obs).items()}
        if action is None:
            encoded = torch.zeros(self.size, model.spaces.action_width, device=model.device)
        else:
            encoded = model.spaces.encode_action(action).to(model.device)
        encoded = encoded * ~first.to(model.device).unsqueeze(-1)
        state = self.state.where(~first, model.initial(self.size)) if is_first.any() else self.state
        self.state = model.observe(state, encoded, seen, generator=self.noise)
        return model.features(self.state).float().cpu().numpy()


class LatentObservation(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Turns an environment's observations into a model's features, filtered along the episode.

    Args:
        env: an environment with the observations and actions the model was built for; with frame skip,
            `ActionBlock(env, model.spaces.block)`.
        model: a world model, or an agent that has one. It is put into evaluation mode.

    Raises:
        SpaceError: if the environment's spaces are not the model's.

    Example:
        >>> env = LatentObservation(ActionBlock(gym.make("wm_toolkit/TwoRooms-v0"), 5), agent)
        >>> PPO("MlpPolicy", env)
    """

    def __init__(self, env: gym.Env, model: Any) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, model=share(model))
        super().__init__(env)
        self._filter = _Filter(unshare(model), Spaces.of(env), 1)
        self.observation_space = self._filter.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        """Features [F] of the first observation."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._filter.seed(seed)
        return self._filter.observe(_one(obs), None, np.ones(1, bool))[0], info

    def step(self, action: Any) -> tuple[NDArray, float, bool, bool, dict[str, Any]]:
        """Features [F] after the observation that `action` led to."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        features = self._filter.observe(_one(obs), np.asarray(action)[None], np.zeros(1, bool))
        return features[0], float(reward), terminated, truncated, info


class LatentObservationVector(gym.vector.VectorWrapper):
    """`LatentObservation` for a vector environment whose rows start anew on the next step.

    Args:
        env, model: as in `LatentObservation`.

    Example:
        >>> envs = VectorActionBlock(gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=16), 5)
        >>> envs = LatentObservationVector(envs, agent)
    """

    def __init__(self, env: gym.vector.VectorEnv, model: Any) -> None:
        super().__init__(env)
        self._filter = _Filter(model, Spaces.of(env), env.num_envs)
        self.single_observation_space = self._filter.space
        self.observation_space = batch_space(self._filter.space, env.num_envs)
        self._ended = np.zeros(env.num_envs, bool)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        """Features [N, F] of the first observations of all rows.

        Args:
            seed: as the environment takes it.
            options: "noise_seed" is that of the model's draws, by default the first row's seed; the others
                are the environment's.

        Raises:
            SpaceError: for a "reset_mask".
        """
        rest = dict(options or {})
        if "reset_mask" in rest:
            raise SpaceError("LatentObservationVector resets all rows at once, not a reset_mask")
        noise_seed = rest.pop("noise_seed", seed)
        obs, info = self.env.reset(seed=seed, options=rest or None)
        self._filter.seed(noise_seed)
        self._ended[:] = False
        return self._filter.observe(obs, None, np.ones(self.num_envs, bool)), info

    def step(self, actions: Any) -> tuple[NDArray, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Features [N, F]; a row that had ended shows its next episode's first observation."""
        obs, reward, terminated, truncated, info = self.env.step(actions)
        features = self._filter.observe(obs, np.asarray(actions), self._ended)
        self._ended = over(terminated, truncated)
        return features, reward, terminated, truncated, info


def _one(obs: Any) -> Any:
    """One observation as a batch of one."""
    if isinstance(obs, dict):
        return {key: _one(value) for key, value in obs.items()}
    return np.asarray(obs)[None]
