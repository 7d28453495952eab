"""Acts in environments side by side and hands over what comes of it, row by row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from wm_toolkit.agents.actors import RandomActor
from wm_toolkit.agents.agent import Agent, AgentState
from wm_toolkit.checkpoint import load_json, save_json, save_tensors
from wm_toolkit.envs.repeatable import GOES_ON, REPEATABLE
from wm_toolkit.envs.rows import over
from wm_toolkit.errors import ConfigError, NonFiniteError
from wm_toolkit.spaces import flat_obs

log = logging.getLogger(__name__)

STATE, FACTS = "acting.safetensors", "acting.json"
Rows = dict[str, Any]
"""One row of every environment, as `ReplayBuffer.add` takes it."""
Latents = Callable[[Any], Mapping[str, Tensor]]
"""The model's state [N] to what is kept of it, [N, ...] by name."""
Snapshot = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and JSON-ready facts from which a collector goes on."""


class Collecting(Protocol):
    """What an `Experience` collects with: a `Collector`, or several in processes of their own.

    Attributes:
        steps, returns, lengths: as `Collector`'s.
    """

    steps: int
    returns: list[float]
    lengths: list[int]

    @property
    def num_envs(self) -> int:
        """N, environments side by side."""
        ...

    def ask(self, steps: int, *, random: bool, update: int) -> None:
        """Ask for so many rows of every environment.

        Args:
            steps: how many.
            random: act by chance, not as the agent does.
            update: updates made so far, by which copies of the agent know how old they are.
        """
        ...

    def rows(self) -> Iterator[Rows]:
        """The rows that were asked for; none where none were."""
        ...

    def settle(self) -> bool:
        """Be ready to be saved; whether the running episodes must be `cut` first."""
        ...

    def cut(self) -> Rows:
        """End every episode that runs and begin new ones; the rows that end them."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write what `load` needs."""
        ...

    def load(self, folder: str | Path) -> bool:
        """Go on where `save` was called; whether the running episodes must be `cut` first."""
        ...


class Collector:
    """Episodes of N environments, without end.

    Environments cannot be saved. Where they are `RepeatableEpisodes`, a saved collector repeats the
    episodes that run; others are cut whenever it is saved, in every run alike, so that a resumed run sees
    what an uninterrupted one sees.

    Args:
        agent: acts, exploring.
        envs: a vector environment that resets rows on the step after their last (Gymnasium's default).
        latents: what to keep of the model's states.
        seed: of random and exploring actions, and of environments that are not repeatable.

    Attributes:
        steps: decisions made.
        returns: sum of rewards of every finished episode, newest last.
        lengths: decisions in every finished episode.

    Raises:
        ConfigError: if the environments reset in another way.
    """

    def __init__(
        self,
        agent: Agent,
        envs: gym.vector.VectorEnv,
        *,
        latents: Latents | None = None,
        seed: int = 0,
    ) -> None:
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode != AutoresetMode.NEXT_STEP:
            raise ConfigError(
                f"the environments have autoreset {mode}; expected AutoresetMode.NEXT_STEP"
            )
        self.agent, self.envs, self.latents, self.seed = agent, envs, latents, seed
        self.repeatable = bool(envs.metadata.get(REPEATABLE))
        self.steps, self.parts = 0, 0
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self._asked = (0, False)
        self._random = Agent(agent.model, RandomActor(agent.model))
        self._noise: torch.Generator | None = None
        self._episode = np.full(envs.num_envs, -1)
        self._begin()

    @property
    def num_envs(self) -> int:
        """N, environments side by side."""
        return self.envs.num_envs

    # -- acting ------------------------------------------------------------------------------------
    def ask(self, steps: int, *, random: bool = False, update: int = 0) -> None:
        """Remember what `rows` shall collect; the agent here is the learner's own, so never old."""
        self._asked = (steps, random)

    def rows(self) -> Iterator[Rows]:
        """Collect what was asked for, row by row."""
        steps, random = self._asked
        self._asked = (0, False)
        for _ in range(steps):
            yield self.collect(random=random)

    def collect(self, *, random: bool = False) -> Rows:
        """Act once everywhere, by chance or as the agent does; what was seen, and the action taken."""
        agent = self._random if random else self.agent
        self.agent.model.eval()
        decision, self._state = agent.act(
            self._obs,
            self.state,
            is_first=self._first,
            explore=True,
            generator=self.generator,
        )
        rows = self._row(decision.action.cpu().numpy())
        self._refuse_nonsense(rows)
        self._step(self.agent.spaces.decode_action(decision.action.cpu()))
        return rows

    @property
    def state(self) -> AgentState:
        """What the agent carries; made late, as the model may move to another device before it acts."""
        if self._state is None:
            self._state = self.agent.initial(self.num_envs)
        return self._state

    @property
    def generator(self) -> torch.Generator:
        """Of random and exploring actions; made late likewise."""
        if self._noise is None:
            self._noise = torch.Generator(self.agent.model.device).manual_seed(self.seed)
        return self._noise

    def _row(self, action: NDArray) -> Rows:
        seen = flat_obs(self._obs)
        kept = {} if self.latents is None else self.latents(self.state.model)
        return {
            "obs": {key: seen[key] for key in self.agent.spaces.observation},
            "action": action,
            "reward": self._reward,
            "is_first": self._first,
            "terminated": self._ended[0],
            "truncated": self._ended[1],
            **{name: value.cpu().numpy() for name, value in kept.items()},
        }

    def _refuse_nonsense(self, rows: Rows) -> None:
        """Keep what is not finite out of the replay, where it would spoil every later update.

        Raises:
            NonFiniteError: naming who made it.
        """
        made = {**rows["obs"], "reward": rows["reward"], "action": rows["action"]}
        for name, value in made.items():
            bad = np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(1))
            if not len(bad):
                continue
            row, own = bad[0], name == "action"
            raise NonFiniteError(
                f"{'the agent chose' if own else 'the environment handed over'} {name} {value[row]} in "
                f"environment {row}, episode {self._episode[row]}, step {len(self._actions[row])}; it is not "
                "kept, and the newest checkpoint is unharmed. "
                f"{'Lower the learning rate' if own else 'Mend the environment, or wrap it'}"
            )

    def _step(self, action: NDArray) -> None:
        fresh = over(*self._ended)
        self.steps += int((~fresh).sum())
        try:
            self._obs, reward, terminated, truncated, info = self.envs.step(action)
        except Exception as error:
            error.add_note(
                f"This came out of the environments after {self.steps:,} steps. What the newest checkpoint "
                "holds is safe: once they are mended, the same command goes on from there"
            )
            raise
        self._first = fresh
        self._reward = np.where(fresh, 0.0, reward).astype(np.float32)
        self._ended = (terminated & ~fresh, truncated & ~fresh)
        self._total = np.where(fresh, 0.0, self._total) + self._reward
        self._note(action, fresh)
        self._goes_on = np.asarray(info.get(GOES_ON, np.zeros(self.num_envs, bool)), bool)
        for row in np.flatnonzero(over(*self._ended)):
            self.returns.append(float(self._total[row]))
            self.lengths.append(len(self._actions[row]) - max(self._breaks[row], default=0))

    def _note(self, action: NDArray, fresh: NDArray) -> None:
        """Remember what repeats the running episodes; `fresh` [N] ones have just begun, or go on with the last."""
        self._episode += fresh & ~self._goes_on
        for row, taken in enumerate(self._actions):
            if not fresh[row]:
                taken.append(np.array(action[row]))
            elif self._goes_on[row]:
                self._breaks[row].append(len(taken))
            else:
                taken.clear()
                self._breaks[row].clear()

    def _begin(self) -> None:
        """Start new episodes everywhere."""
        count = self.num_envs
        seeds: Any = None if self.repeatable else self._seeds()
        self._obs, _ = self.envs.reset(seed=seeds)
        self._episode += 1
        self._first = np.ones(count, bool)
        self._reward = np.zeros(count, np.float32)
        self._ended = (np.zeros(count, bool), np.zeros(count, bool))
        self._total = np.zeros(count)
        self._actions: list[list[NDArray]] = [[] for _ in range(count)]
        self._breaks: list[list[int]] = [[] for _ in range(count)]
        self._goes_on = np.zeros(count, bool)
        self._state: AgentState | None = None

    def _seeds(self) -> list[int]:
        stream = np.random.SeedSequence([self.seed, self.parts])
        return [int(word) for word in stream.generate_state(self.num_envs)]

    # -- stopping and going on -----------------------------------------------------------------------
    def settle(self) -> bool:
        """Be ready to be saved: forget plans.

        Returns:
            whether episodes run that could not be repeated, so that they must be cut first.
        """
        self._state = self.state.replace(actor=self.agent.actor.initial(self.num_envs))
        return not self.repeatable and not self._first.all()

    def cut(self) -> Rows:
        """End every episode that runs, with its present observation as the last, and begin new ones."""
        terminated, truncated = self._ended
        self._ended = (terminated, truncated | (~terminated & ~self._first))
        rows = self._row(np.zeros((self.num_envs, self.agent.spaces.action_width), np.float32))
        self.parts += 1
        self._begin()
        return rows

    def snapshot(self) -> Snapshot:
        """What `restore` needs; call `settle` first."""
        state = self.state.replace(actor=None).leaves()
        seen = flat_obs(self._obs)
        tensors = {f"state/{i}": leaf.cpu() for i, leaf in enumerate(state)}
        tensors |= {f"obs/{key}": torch.from_numpy(np.array(seen[key])) for key in seen}
        tensors |= {
            f"action/{row}": torch.from_numpy(np.array(taken))
            for row, taken in enumerate(self._actions)
        }
        tensors |= {
            f"breaks/{row}": torch.tensor(breaks, dtype=torch.int64)
            for row, breaks in enumerate(self._breaks)
        }
        now = (self._first, self._reward, *self._ended, self._total, self._episode, self._goes_on)
        tensors |= {f"now/{i}": torch.from_numpy(np.array(value)) for i, value in enumerate(now)}
        names = ("steps", "parts", "returns", "lengths")
        facts = {name: getattr(self, name) for name in names}
        return tensors | {"generator": self.generator.get_state()}, facts

    def restore(self, snapshot: Snapshot) -> bool:
        """Go on where `snapshot` was taken.

        Returns:
            whether the environments did not repeat their episodes after all, so that these must be cut.
        """
        saved, facts = snapshot
        for name, value in facts.items():
            setattr(self, name, value)
        self.generator.set_state(saved["generator"])
        now = [saved[f"now/{i}"].numpy() for i in range(7)]
        self._episode = now[5]
        if not self.repeatable:
            self._begin()
            return False
        return not self._repeat(saved, now)

    def save(self, folder: str | Path) -> None:
        """Write what `load` needs; call `settle` first."""
        save_snapshot(Path(folder), self.snapshot())

    def load(self, folder: str | Path) -> bool:
        """Go on where `save` was called.

        Returns:
            as `restore`.

        Raises:
            CheckpointError: if the folder is damaged.
        """
        return self.restore(load_snapshot(Path(folder)))

    def _repeat(self, saved: Mapping[str, Tensor], now: list[NDArray]) -> bool:
        """Bring environments and agent where they were; whether the environments went along."""
        count = self.num_envs
        actions = [saved[f"action/{row}"].numpy() for row in range(count)]
        breaks = [saved[f"breaks/{row}"].tolist() for row in range(count)]
        parts = [
            {"episode": int(number), "actions": taken, "breaks": at}
            for number, taken, at in zip(now[5], actions, breaks, strict=True)
        ]
        self._obs, _ = self.envs.reset(options={REPEATABLE: parts})
        self._actions, self._breaks = [list(taken) for taken in actions], breaks
        self._first, self._reward, self._total = now[0], now[1], now[4]
        self._ended, self._goes_on = (now[2], now[3]), now[6]
        # Copied, as what lies unaligned in a file is added up in another order.
        leaves = iter([saved[f"state/{i}"].clone() for i in range(_count(saved, "state/"))])
        fresh = self.agent.initial(count)
        state = fresh.replace(actor=None).map(lambda old: next(leaves).to(old.device))
        self._state = state.replace(actor=fresh.actor)
        was = {key.removeprefix("obs/"): v for key, v in saved.items() if key.startswith("obs/")}
        if all(np.array_equal(v, was[k].numpy()) for k, v in flat_obs(self._obs).items()):
            return True
        log.warning(
            "the environments did not repeat the episodes that ran when the checkpoint was written, so "
            "these are cut there; the run goes on, but is not the one without a stop"
        )
        self._obs = {key: value.numpy() for key, value in was.items()}
        return False


def save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot into a folder."""
    folder.mkdir(exist_ok=True)
    tensors, facts = snapshot
    save_tensors(folder / STATE, tensors)
    save_json(folder / FACTS, facts)


def load_snapshot(folder: Path) -> Snapshot:
    """Read what `save_snapshot` wrote.

    Raises:
        CheckpointError: if the folder is damaged.
    """
    return load_file(folder / STATE), load_json(folder / FACTS)


def _count(saved: Mapping[str, Tensor], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in saved)
