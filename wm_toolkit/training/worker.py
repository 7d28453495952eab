"""What an actor does in a process of its own: its environments, and a copy of the agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from safetensors.torch import load, save
from torch import Tensor

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.checkpoint import before_loading
from wm_toolkit.envs.action_block import ActionBlock
from wm_toolkit.envs.make import make
from wm_toolkit.envs.repeatable import RepeatableEpisodes
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collector import Collector, Rows
from wm_toolkit.training.experience_config import ExperienceConfig


@dataclasses.dataclass(frozen=True)
class ActorJob:
    """Which environments one actor acts in, and with which agent.

    Attributes:
        number: of the actor.
        recipe: of the agent.
        config: likewise.
        spaces: likewise.
        env: id of the environments.
        rows: their numbers among those of all actors.
    """

    number: int
    recipe: str
    config: ExperienceConfig
    spaces: Spaces
    env: str
    rows: range

    @property
    def name(self) -> str:
        """For people."""
        rows = self.rows
        which = f"s {rows[0]} to {rows[-1]}" if len(rows) > 1 else f" {rows[0]}"
        return f"actor {self.number} (environment{which} of {self.env!r})"

    @property
    def seed(self) -> int:
        """Of its random and exploring actions; the first actor's are those of an agent that acts alone."""
        seed = self.config.train.seed
        if not self.number:
            return seed
        return int(np.random.SeedSequence([seed, self.number]).generate_state(1)[0])

    def collector(self) -> Collector:
        """Environments and an agent without weights: those are sent."""
        with before_loading():
            agent = build(self.recipe, self.spaces, self.config)
        return make_collector(agent, vector_env(self.env, self.config, self.rows), self.seed)


@dataclasses.dataclass(frozen=True)
class Copy:
    """What makes an actor's agent that of the learner.

    Attributes:
        weights: of the model, as `packed` makes them.
        updates: that the learner has made, by which some recipes explore less and less.
    """

    weights: bytes
    updates: int

    @classmethod
    def of(cls, agent: Agent) -> Copy:
        """The learner's agent as it is now."""
        learner = agent.learner
        updates = learner.updates if isinstance(learner, ModelLearner) else 0
        return cls(packed(agent.model.state_dict()), updates)

    def give(self, agent: Agent) -> None:
        """Let another agent be like it."""
        agent.model.load_state_dict(load(self.weights))
        if isinstance(agent.learner, ModelLearner):
            agent.learner.updates = self.updates


@dataclasses.dataclass(frozen=True)
class Collected:
    """What an actor sends.

    Attributes:
        rows: one of all its environments for every step.
        steps: decisions made so far.
        returns: of the episodes that were finished meanwhile.
        lengths: likewise.
    """

    rows: list[Rows]
    steps: int
    returns: list[float]
    lengths: list[int]


class Worker:
    """Lives in the actor's process and does what it is asked to.

    Args:
        job: what it acts in, and how.
    """

    def __init__(self, job: ActorJob) -> None:
        # A few rows at a time gain nothing from threads, which the learner needs.
        torch.set_num_threads(1)
        self.collector = job.collector()
        self._told = 0

    def collect(self, steps: int, random: bool, copy: Copy | None) -> Collected:
        """So many rows of its environments, acting like this copy of the agent, or like the last one."""
        done = self.collector
        if copy is not None:
            copy.give(done.agent)
        done.ask(steps, random=random)
        rows = list(done.rows())
        told, self._told = self._told, len(done.returns)
        return Collected(rows, done.steps, done.returns[told:], done.lengths[told:])

    def settle(self) -> bool:
        """As `Collector.settle`."""
        return self.collector.settle()

    def cut(self) -> Rows:
        """As `Collector.cut`."""
        return self.collector.cut()

    def snapshot(self) -> tuple[bytes, dict[str, Any]]:
        """As `Collector.snapshot`, its tensors packed."""
        tensors, facts = self.collector.snapshot()
        return packed(tensors), facts

    def restore(self, tensors: bytes, facts: dict[str, Any]) -> bool:
        """As `Collector.restore`."""
        cut = self.collector.restore((load(tensors), facts))
        self._told = len(self.collector.returns)
        return cut

    def close(self) -> None:
        """Close the environments."""
        self.collector.envs.close()


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file: what processes send each other."""
    return save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})


def make_collector(agent: Agent, envs: gym.vector.VectorEnv, seed: int) -> Collector:
    """A collector that keeps of the agent's states what its learner wants stored."""
    learner = agent.learner
    program = learner.program if isinstance(learner, ModelLearner) else None
    latents = program.latents_of if program is not None and program.latent_columns() else None
    return Collector(agent, envs, latents=latents, seed=seed)


def vector_env(
    env: str, config: ExperienceConfig, rows: range | None = None
) -> gym.vector.VectorEnv:
    """The training environments of a config side by side; their episodes can be repeated.

    Args:
        env: their id.
        config: how many, and how they are made.
        rows: which of them; by default all.

    Raises:
        UnknownNameError, MissingPackageError, ConfigError: as `envs.make.make`.
    """
    numbers = range(config.envs) if rows is None else rows
    copies = [partial(one_env, env, config, n, place) for place, n in enumerate(numbers)]
    if config.vectorisation == "async":
        # A forked process would inherit threads that hold locks.
        return AsyncVectorEnv(copies, context="spawn")
    return SyncVectorEnv(copies)


def one_env(env: str, config: ExperienceConfig, number: int = 0, place: int = 0) -> gym.Env:
    """One training environment of a config: its number among all, its place in its vector."""
    one = make(env, **config.env_options)
    if config.frame_skip > 1:
        one = ActionBlock(one, config.frame_skip)
    seed = int(np.random.SeedSequence([config.train.seed, number]).generate_state(1)[0])
    return RepeatableEpisodes(one, seed, place)
