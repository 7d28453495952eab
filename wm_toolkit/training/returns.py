"""What an agent's episodes return: whole episodes in environments of their own, without exploring."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv

from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.action_block import VectorActionBlock
from wm_toolkit.envs.make import make
from wm_toolkit.errors import ConfigError
from wm_toolkit.training.config import ReturnConfig, saved_protocol
from wm_toolkit.training.episodes import Progress
from wm_toolkit.training.evaluate import AnyProtocol, checked_protocol, evaluate, run_protocol
from wm_toolkit.training.summary import Evaluation, ReturnEvaluation, summarise_returns

APART = 1_000_000
"""From the seed of a protocol to that of evaluations while training. Episode i has the seed of all + i, so
two protocols have no episode in common if neither has as many."""


def evaluate_agent(
    agent: Agent,
    held_out: TrajectoryDataset | None = None,
    protocol: AnyProtocol | None = None,
    *,
    films: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
) -> Evaluation | ReturnEvaluation:
    """Measure an agent by whichever protocol is given, or it carries: success or return.

    Args:
        agent, films, processes, progress: as for `evaluate` and `evaluate_returns`.
        held_out: episodes that training never saw, for goals.
        protocol: by default the one the agent carries in `info["evaluation"]`.

    Raises:
        ConfigError: as those.
    """
    if protocol is None and "evaluation" in agent.info:
        protocol = saved_protocol(agent.info["evaluation"])
    how: dict[str, Any] = {"films": films, "processes": processes, "progress": progress}
    if isinstance(protocol, ReturnConfig):
        return evaluate_returns(agent, protocol, **how)
    return evaluate(agent, held_out, protocol, **how)


def evaluate_otherwise(agent: Agent, held_out: TrajectoryDataset | None = None) -> dict[str, float]:
    """The numbers of an evaluation while training: on other episodes than the protocol's.

    What stops a run or picks its weights must not be what it is judged by.
    """
    protocol = saved_protocol(agent.info["evaluation"])
    other = dataclasses.replace(protocol, seed=protocol.seed + APART)
    row = evaluate_agent(agent, held_out, other).to_json()
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}


def evaluate_returns(
    agent: Agent,
    protocol: ReturnConfig | None = None,
    *,
    films: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
) -> ReturnEvaluation:
    """Measure an agent by a protocol; the same agent and protocol give the same result.

    Several processes share the groups of episodes out, as in `evaluate`.

    Args:
        agent: any agent; it does not explore.
        protocol: by default the one the agent carries in `info["evaluation"]`.
        films: keep frames of so many episodes (of the first group), where an observation is an image.
        processes: how many processes make this very call together; each gets the whole result.
        progress: told how many episodes are over.

    Raises:
        ConfigError: if protocol and agent do not fit, or one of them is missing; if another number of
            processes is running.

    Example:
        >>> evaluate_returns(Agent.from_pretrained("runs/dreamer_v3.nano")).return_mean
        412.5
    """
    protocol = checked_protocol(agent, protocol, ReturnConfig)
    build = partial(return_env, protocol)
    outcomes = run_protocol(agent, protocol, build, films, processes=processes, progress=progress)
    training = agent.info.get("training") or {}
    known = {
        "updates": training.get("kept", training.get("updates")),
        "env_steps": (agent.info.get("experience") or {}).get("steps"),
    }
    return summarise_returns(outcomes, seed=protocol.seed, **known)


def return_env(protocol: ReturnConfig, *, rows: range | None = None) -> gym.vector.VectorEnv:
    """Episodes of a protocol as one vector environment that takes action blocks.

    Args:
        protocol: what is measured.
        rows: which of the episodes; by default all.

    Raises:
        ConfigError: if the protocol names no environment.
    """
    if not protocol.env:
        raise ConfigError("the protocol names no environment; set evaluation.env")
    count = protocol.episodes if rows is None else len(rows)
    copy = partial(make, protocol.env, **protocol.env_options)
    return VectorActionBlock(SyncVectorEnv([copy] * count), protocol.frame_skip)
