"""Online data: run environments as fast as the updates ask for, and hand out what was seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from wm_toolkit.agents.actors import RandomActor
from wm_toolkit.agents.agent import Agent, AgentState
from wm_toolkit.batch import Batch
from wm_toolkit.checkpoint import load_json, replace_folder, save_json
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.errors import ConfigError
from wm_toolkit.spaces import Spaces, flat_obs

BUFFER, HEAD = "replay", "experience.json"


class Experience:
    """A `Source` that collects: before each batch the environments catch up with the updates.

    Episodes are cut whenever the state is saved, in every run alike: environments cannot be saved, and a
    resumed run shall see what an uninterrupted one sees.

    Args:
        agent: acts, exploring, once `prefill` rows are there; before that actions are random.
        envs: a vector environment that resets rows on the step after their last (Gymnasium's default).
        replay: where rows go, with one stream per environment.
        train_ratio: rows replayed per row collected; B T / train_ratio rows lie between two updates.
        prefill: rows collected before the first batch, at least enough for one sequence of each
            environment.
        seed: of environments, of random and exploring actions.

    Attributes:
        rows: rows collected, of all environments; an episode's last row holds no decision.
        steps: decisions made.
        returns: sum of rewards of every finished episode, newest last.

    Raises:
        ConfigError: if environments and replay do not fit, or a number is out of range.

    Example:
        >>> source = Experience(agent, envs, replay, train_ratio=512, prefill=1000)
        >>> Trainer(agent, source, run_dir="runs/1", config=TrainConfig(updates=5000)).train()
    """

    def __init__(
        self,
        agent: Agent,
        envs: gym.vector.VectorEnv,
        replay: ReplayBuffer,
        *,
        train_ratio: float,
        prefill: int = 1000,
        seed: int = 0,
    ) -> None:
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if envs.num_envs != replay.rings.streams or mode != AutoresetMode.NEXT_STEP:
            raise ConfigError(
                f"{envs.num_envs} environments with autoreset {mode} and a replay of "
                f"{replay.rings.streams} streams; expected as many streams, and AutoresetMode.NEXT_STEP"
            )
        if train_ratio <= 0:
            raise ConfigError(f"train_ratio is {train_ratio}, expected above 0")
        self.agent, self.envs, self.replay = agent, envs, replay
        self.train_ratio = train_ratio
        self.prefill = max(prefill, replay.length * envs.num_envs)
        self.seed, self.parts = seed, 0
        self.rows = self.steps = self.batches = 0
        self.returns: list[float] = []
        self._random = Agent(agent.model, RandomActor(agent.model))
        self._generator = torch.Generator(agent.model.device).manual_seed(seed)
        self._begin()

    @property
    def spaces(self) -> Spaces:
        """What the batches hold."""
        return self.replay.spaces

    @property
    def rows_per_update(self) -> float:
        """Rows that are collected between two updates."""
        return self.replay.batch_size * self.replay.length / self.train_ratio

    # -- the stream --------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        due = self.prefill + self.batches * self.rows_per_update
        while self.rows < due:
            self._collect()
        self.batches += 1
        return next(self.replay)

    def _begin(self) -> None:
        """Start new episodes everywhere."""
        seeds: Any = list(
            self._seeds()
        )  # vector environments take one each, whatever their hint says
        obs, _ = self.envs.reset(seed=seeds)
        self._obs = obs
        count = self.envs.num_envs
        self._first = np.ones(count, bool)
        self._reward = np.zeros(count, np.float32)
        self._ended = (np.zeros(count, bool), np.zeros(count, bool))
        self._total = np.zeros(count)
        self._state: AgentState | None = None

    def _seeds(self) -> Iterator[int]:
        stream = np.random.SeedSequence([self.seed, self.parts])
        return (int(word) for word in stream.generate_state(self.envs.num_envs))

    def _collect(self) -> None:
        """One row of every environment."""
        agent = self._random if self.rows < self.prefill else self.agent
        if self._state is None:
            self._state = agent.initial(self.envs.num_envs)
        self.agent.model.eval()
        decision, self._state = agent.act(
            self._obs, self._state, is_first=self._first, explore=True, generator=self._generator
        )
        self._keep(decision.action.cpu().numpy())
        action = self.spaces.decode_action(decision.action.cpu())
        over = self._ended[0] | self._ended[1]
        self.steps += int((~over).sum())
        self._obs, reward, terminated, truncated, _ = self.envs.step(np.asarray(action))
        self._first = over
        self._reward = np.where(over, 0.0, reward).astype(np.float32)
        self._ended = (terminated & ~over, truncated & ~over)
        self._count(over)

    def _keep(self, action: NDArray) -> None:
        terminated, truncated = self._ended
        seen = flat_obs(self._obs)
        self.replay.add(
            {key: seen[key] for key in self.spaces.observation},
            action,
            reward=self._reward,
            is_first=self._first,
            terminated=terminated,
            truncated=truncated,
        )
        self.rows += len(action)

    def _count(self, over: NDArray) -> None:
        self._total = np.where(over, 0.0, self._total) + self._reward
        for row in np.flatnonzero(self._ended[0] | self._ended[1]):
            self.returns.append(float(self._total[row]))

    # -- resuming ----------------------------------------------------------------------------------
    def save(self, folder: str | Path) -> None:
        """Write everything an exact resume needs, and begin new episodes."""
        self._cut()
        with replace_folder(Path(folder)) as target:
            self.replay.save(target / BUFFER)
            save_json(target / HEAD, self._facts())
        self._begin()

    def load(self, folder: str | Path) -> None:
        """Go on where `save` was called.

        Raises:
            CheckpointError: if the folder is damaged, or of other environments.
        """
        facts = load_json(Path(folder) / HEAD)
        self.replay.load(Path(folder) / BUFFER)
        self._generator.set_state(torch.tensor(facts["generator"], dtype=torch.uint8))
        for name in ("rows", "steps", "batches", "parts", "returns"):
            setattr(self, name, facts[name])
        self._begin()

    def _cut(self) -> None:
        """End every episode that runs, with its present observation as the last."""
        if self._first.all():
            return
        terminated, truncated = self._ended
        self._ended = (terminated, truncated | (~terminated & ~self._first))
        idle = np.zeros((self.envs.num_envs, self.spaces.action_width), np.float32)
        self._keep(idle)
        self.parts += 1

    def _facts(self) -> dict[str, Any]:
        names = ("rows", "steps", "batches", "parts", "returns")
        state = self._generator.get_state().tolist()
        return json.loads(json.dumps({n: getattr(self, n) for n in names} | {"generator": state}))
