"""Any world model as a Gymnasium environment: its dream, scored by any objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from wm_toolkit.envs.decoded import View, row
from wm_toolkit.envs.dream import Dream, Termination
from wm_toolkit.envs.rows import Shared, check_options, over, pop_reset_mask, share
from wm_toolkit.errors import ConfigError
from wm_toolkit.planning.objective import Objective


class _WorldModelEnv:
    """What the single and the vector form have in common."""

    metadata: ClassVar[dict[str, Any]]
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium made this environment; the model in it is shared, not copied."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        # Wrappers deep-copy the specification; a model or data set must not be copied with it.
        self._spec = spec and dataclasses.replace(
            spec, kwargs={key: share(value) for key, value in spec.kwargs.items()}
        )


class WorldModelEnv(_WorldModelEnv, gym.Env):
    """An episode in a model's imagination.

    The observation is the model's features (float32 [F]); where the objective holds a `Goal` whose goal
    is drawn per episode, the goal's features stand behind them. The reward is the objective's for the
    state arrived in (for a Goal minus the distance, whatever its mode; for `Reward` the mean of the
    model's reward head). The episode terminates as the model's "continue" head says, a discount it was
    taught taken out, and is truncated at `horizon`.

    Args:
        model: a world model, an agent, or the name or path of a saved one; put into evaluation mode.
        objective: what is rewarded.
        starts: where dreams begin: a data set or its name (windows of `context` frames), a Batch
            [M, T] (each sequence is filtered, the dream begins behind it), or observations
            {key: [M, ...]}.
        goals: where goals are drawn from, if the objective has one; in any form of `starts`, which is
            the default.
        horizon: steps of the model after which an episode is truncated.
        context: frames of a data set the model sees before it starts to dream.
        render_mode: "rgb_array": the "decoder" head's image, else the stored frame of `starts` whose
            features are nearest.
        device: where the model runs; by default where it is.
        observation: "features", or "decoded": what the decoder draws, in the form of the environment
            that the model learnt from, so that a policy made for it acts here unchanged.
        termination: "sampled" draws the end of an episode with the head's probability; "likely" ends it
            where ending is the likelier event.
        temperature: of the dream, for models that have such a dial: above 1 it is more random than what
            was learnt, and harder to exploit (Ha and Schmidhuber 2018); None leaves the model's own.

    Example:
        >>> env = gym.make("wm_toolkit/WorldModel-v0", model="runs/lewm", objective=Goal(), starts=data)
        >>> PPO("MlpPolicy", env).learn(10_000)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        model: Any,
        *,
        objective: Objective | Shared,
        starts: Any,
        goals: Any = None,
        horizon: int = 50,
        context: int = 1,
        render_mode: str | None = None,
        device: str | None = None,
        observation: View = "features",
        termination: Termination = "sampled",
        temperature: float | None = None,
    ) -> None:
        self._dream = Dream(
            model,
            objective,
            starts,
            goals,
            rows=1,
            horizon=horizon,
            context=context,
            device=device,
            observation=observation,
            termination=termination,
            temperature=temperature,
        )
        self.render_mode = self._dream.check_render_mode(render_mode)
        self.observation_space, self.action_space = self._dream.space, self._dream.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a dream at a random start; options["start"] and ["goal"] give its index instead."""
        gym.Env.reset(self, seed=seed)
        chosen = check_options(options, ("start", "goal"))
        self._dream.seed(seed)
        self._dream.begin(np.zeros(1, np.int64), chosen)
        return row(self._dream.observation(), 0), {"start": int(self._dream.start[0])}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Dream one step with a raw action of the action space."""
        reward, terminated, truncated = self._dream.step(np.asarray(action)[None])
        info = {"start": int(self._dream.start[0])}
        obs = row(self._dream.observation(), 0)
        return obs, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The present state as an image [h, w, C]."""
        return self._dream.render()[0] if self.render_mode else None


class WorldModelVectorEnv(_WorldModelEnv, gym.vector.VectorEnv):
    """`num_envs` dreams in one batch; a row that ended starts anew on the next step.

    Args:
        model, objective, starts, goals, horizon, context, render_mode, device, observation,
            termination, temperature: as in `WorldModelEnv`.
        num_envs: N.
        max_episode_steps: another name for `horizon`, as `gymnasium.make_vec` passes it.

    Example:
        >>> envs = gym.make_vec("wm_toolkit/WorldModel-v0", num_envs=64, model=agent,
        ...                     objective=Reward(), starts=data)
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        model: Any,
        objective: Objective | Shared,
        starts: Any,
        goals: Any = None,
        horizon: int = 50,
        context: int = 1,
        render_mode: str | None = None,
        device: str | None = None,
        observation: View = "features",
        termination: Termination = "sampled",
        temperature: float | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}, expected at least 1")
        self.num_envs = num_envs
        self._dream = Dream(
            model,
            objective,
            starts,
            goals,
            rows=num_envs,
            horizon=max_episode_steps or horizon,
            context=context,
            device=device,
            observation=observation,
            termination=termination,
            temperature=temperature,
        )
        self.render_mode = self._dream.check_render_mode(render_mode)
        self.single_observation_space = self._dream.space
        self.single_action_space = self._dream.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a dream in every row, or in those of options["reset_mask"].

        Args:
            seed: row i is seeded with seed + i, or with seed[i].
            options: "start" and "goal" [N] choose the indices.
        """
        options = dict(options or {})
        rows = np.flatnonzero(pop_reset_mask(options, self.num_envs))
        chosen = check_options(options, ("start", "goal"))
        self._dream.seed(seed)
        self._dream.begin(
            rows, {k: np.broadcast_to(x, self.num_envs)[rows] for k, x in chosen.items()}
        )
        self._ended[rows] = False
        return self._dream.observation(), self._infos()

    def step(self, actions: Any) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Dream one step with raw actions [N, ...]; rows that had ended start anew instead."""
        restart = self._ended
        reward, terminated, truncated = self._dream.step(np.asarray(actions), skip=restart)
        if restart.any():
            self._dream.begin(np.flatnonzero(restart), {})
        self._ended = over(terminated, truncated)
        return self._dream.observation(), reward, terminated, truncated, self._infos()

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The present states as images [h, w, C]."""
        return tuple(self._dream.render()) if self.render_mode else None

    def _infos(self) -> dict[str, Any]:
        return {"start": self._dream.start.copy(), "_start": np.ones(self.num_envs, bool)}
