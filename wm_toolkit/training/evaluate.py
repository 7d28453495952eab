"""How well an agent reaches goals: one protocol, success looked for at every step, alone or shared out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from accelerate.utils import gather_object
from gymnasium.utils.seeding import np_random
from gymnasium.vector import SyncVectorEnv

from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.action_block import VectorActionBlock
from wm_toolkit.envs.goal import GoalReaching, GoalReachingVector, Success
from wm_toolkit.envs.goals import (
    EnvGoals,
    Goals,
    GoalSampler,
    RandomActionGoals,
    SegmentGoals,
    Stateful,
)
from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.errors import ConfigError
from wm_toolkit.planning.shared import shared_candidates
from wm_toolkit.training.config import EvaluationConfig, ReturnConfig, saved_protocol
from wm_toolkit.training.episodes import Outcome, Progress, run_episodes
from wm_toolkit.training.launch import world
from wm_toolkit.training.summary import Evaluation, summarise

AnyProtocol = EvaluationConfig | ReturnConfig
P = TypeVar("P", EvaluationConfig, ReturnConfig)


def evaluate(
    agent: Agent,
    held_out: TrajectoryDataset | None = None,
    protocol: EvaluationConfig | None = None,
    *,
    goals: Goals | GoalSampler | None = None,
    success: Success | None = None,
    films: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure an agent by a protocol; the same agent, data and protocol give the same result.

    Several processes share the groups of episodes (`protocol.group`) out and find exactly what one
    finds. Where there are fewer groups than processes, they share out the candidates of every plan
    instead, which is the same up to rounding.

    Args:
        agent: any agent.
        held_out: episodes that training never saw; goals "dataset" are taken from them.
        protocol: by default the one the agent carries in `info["evaluation"]`.
        goals: tasks instead of the protocol's: a list that is taken in turn, or a sampler such as
            `ImageGoals("goal.png")` or a callable of your own.
        success: (unwrapped env, info) to whether the goal is reached; by default the environment's own
            test, which needs to know the goal's state.
        films: keep frames of so many episodes (of the first group), where an observation is an image.
        processes: how many processes make this very call together; each gets the whole result.
        progress: told how far the episodes are.

    Raises:
        ConfigError: if protocol and agent do not fit, or one of them is missing; if another number of
            processes is running.

    Example:
        >>> agent = Agent.from_pretrained("runs/1")
        >>> evaluate(agent, held_out).success_rate
        0.93
    """
    protocol = checked_protocol(agent, protocol, EvaluationConfig)
    source = goals if goals is not None else goal_source(protocol, held_out)
    build = partial(goal_env, protocol, source=source, success=success)
    outcomes = run_protocol(agent, protocol, build, films, processes=processes, progress=progress)
    return summarise(outcomes, budget=protocol.budget, seed=protocol.seed)


def run_protocol(
    agent: Agent,
    protocol: AnyProtocol,
    build: Callable[..., gym.vector.VectorEnv],
    films: int = 0,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Run all groups of a protocol's episodes, shared out over the processes.

    Args:
        agent, films, processes, progress: as for `evaluate`.
        protocol: what is measured.
        build: the environment of the episodes `rows`, a range.
    """
    rank, every = _rank(processes), list(range(len(protocol.groups())))
    if len(every) < processes:
        with shared_candidates():
            found = _run(agent, protocol, build, every, films, progress)
    else:
        found = _run(agent, protocol, build, every[rank::processes], films, progress)
        if processes > 1:
            found = dict(gather_object(list(found.items())))
    return [found[number] for number in every]


def _run(
    agent: Agent,
    protocol: AnyProtocol,
    build: Callable[..., gym.vector.VectorEnv],
    numbers: list[int],
    films: int,
    progress: Progress | None,
) -> dict[int, Outcome]:
    """Run some groups of episodes, each in an environment built for it; outcomes by number."""
    groups, found = protocol.groups(), {}
    for done, number in enumerate(numbers):
        env = build(rows=groups[number])
        try:
            found[number] = run_episodes(
                agent,
                env,
                protocol.budget,
                seed=protocol.seed,
                rows=groups[number],
                group=number,
                films=films if number == 0 else 0,
                progress=_part_of(progress, done, len(numbers)),
            )
        finally:
            env.close()
    return found


def goal_env(
    protocol: EvaluationConfig,
    held_out: TrajectoryDataset | None = None,
    *,
    source: Goals | GoalSampler | None = None,
    success: Success | None = None,
    rows: range | None = None,
) -> gym.vector.VectorEnv:
    """Episodes of a protocol as one vector environment that takes action blocks.

    An environment with a vector form of its own that can be put into a state is used as one batch;
    copies of any other step one after the other.

    Args:
        protocol: what is measured.
        held_out: where goals "dataset" come from.
        source: tasks, or a sampler of tasks, instead of the protocol's.
        success: as in `evaluate`; for a batch it gives bool [N].
        rows: which of the episodes; by default all. Seed row i with the protocol's seed + i and it
            meets the same task in any grouping.

    Raises:
        ConfigError: if the protocol names no environment, or goals need data that is missing.
    """
    if not protocol.env:
        raise ConfigError("the protocol names no environment; set evaluation.env")
    goals = source if source is not None else goal_source(protocol, held_out)
    every = range(protocol.episodes)
    rows = every if rows is None else rows
    # Replaying a segment must not end the episode before the segment does.
    steps = max(protocol.budget, protocol.goal_offset) + 1
    options = {**protocol.env_options, "max_episode_steps": steps}
    limits: dict[str, Any] = {"budget": protocol.budget, "success": success}
    if _has_stateful_vector(protocol.env, options):
        if rows != every:
            goals = _all_tasks(protocol, goals, options)[list(rows)]
        batch = make_vec(protocol.env, len(rows), **options)
        env: gym.vector.VectorEnv = GoalReachingVector(batch, goals, **limits)
    else:

        def copy(row: int) -> gym.Env:
            own = goals[[row % len(goals)]] if isinstance(goals, Goals) else goals
            return GoalReaching(make(protocol.env, **options), own, **limits)

        env = SyncVectorEnv([partial(copy, row) for row in rows])
    return VectorActionBlock(env, protocol.frame_skip)


def goal_source(protocol: EvaluationConfig, held_out: TrajectoryDataset | None) -> GoalSampler:
    """The sampler of tasks that a protocol names.

    Raises:
        ConfigError: if its goals need data that is missing.
    """
    if protocol.goals == "env":
        return EnvGoals(protocol.goal_options)
    if held_out is None:
        raise ConfigError(
            f"goals={protocol.goals!r} are taken from held-out episodes; give held_out"
        )
    kind = {"dataset": SegmentGoals, "random_action": RandomActionGoals}[protocol.goals]
    return kind(held_out, protocol.goal_offset, state_key=state_key(protocol, held_out))


def state_key(protocol: EvaluationConfig, data: TrajectoryDataset) -> str:
    """The column that holds the simulator's state: as the protocol or the data set says, or by custom."""
    known = {name.removeprefix("obs/") for name in data.columns}
    customary = "state" if "state" in known else "position"
    return protocol.state_key or str(data.metadata.get("state_key") or customary)


def _has_stateful_vector(name: str, options: dict[str, Any]) -> bool:
    """Whether an environment has a vector form of its own that can be put into a state."""
    one = make_vec(name, 1, **options)
    one.close()
    return isinstance(one.unwrapped, Stateful)


def _all_tasks(
    protocol: EvaluationConfig, goals: Goals | GoalSampler, options: dict[str, Any]
) -> Goals:
    """The tasks of all episodes, as `GoalReachingVector` draws them on its first reset."""
    if isinstance(goals, Goals):
        return goals[np.arange(protocol.episodes) % len(goals)]
    env = make_vec(protocol.env, protocol.episodes, **options)
    try:
        env.reset(seed=protocol.seed)
        return goals(env.unwrapped, np_random(protocol.seed)[0], protocol.episodes)
    finally:
        env.close()


def checked_protocol(agent: Agent, protocol: P | None, kind: type[P]) -> P:
    """The protocol given, or the one the agent carries.

    Raises:
        ConfigError: if there is none, it is of another kind, or does not fit the agent.
    """
    if protocol is None:
        if "evaluation" not in agent.info:
            raise ConfigError("this agent carries no evaluation protocol; give protocol")
        saved = saved_protocol(agent.info["evaluation"])
        if not isinstance(saved, kind):
            raise ConfigError(
                f"this agent carries a {type(saved).__name__}, expected {kind.__name__}; give protocol"
            )
        protocol = saved
    if protocol.frame_skip != agent.spaces.block:
        raise ConfigError(
            f"the protocol has frame_skip {protocol.frame_skip}, but the agent's actions hold "
            f"{agent.spaces.block} raw ones; they must agree"
        )
    return protocol


def _rank(processes: int) -> int:
    """Which of the processes that evaluate together this one is."""
    if processes == 1:
        return 0
    rank, running = world()
    if running != processes:
        raise ConfigError(
            f"evaluate(processes={processes}) must be called by so many processes together, but "
            f"{running} are running; start them with training.launch.launch or torchrun"
        )
    return rank


def _part_of(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Progress of one group among all that this process runs."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, parts * total)
