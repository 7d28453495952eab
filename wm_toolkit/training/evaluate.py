"""How well an agent reaches goals: one protocol, all episodes at once, success looked for at every step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from wm_toolkit.agents.actors import RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.config import from_dict
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.action_block import VectorActionBlock
from wm_toolkit.envs.goal import GOAL, GoalReaching, GoalReachingVector
from wm_toolkit.envs.goals import EnvGoals, GoalSampler, SegmentGoals, Stateful
from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.errors import ConfigError
from wm_toolkit.render.report import GoalEpisode
from wm_toolkit.spaces import is_image
from wm_toolkit.training.config import EvaluationConfig

Progress = Callable[[int, int], None]
"""Called with raw environment steps done and in all."""


@dataclasses.dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    Attributes:
        success: whether the goal was reached within the budget.
        steps: raw environment steps to the first success, 0 if the start solved it, None without one.
        total_reward: sum of the environment's rewards.
    """

    success: bool
    steps: int | None
    total_reward: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A number with everything it needs to be believed.

    Attributes:
        success_rate: share of episodes that reached their goal within the budget, those solved at the
            start included.
        interval: its 95 % Wilson interval.
        return_mean: mean sum of rewards up to success.
        steps_to_goal: mean raw steps of the successes that took any; None if there is none.
        start_solved_rate: share of episodes whose start already solved them.
        decision_ms: wall-clock milliseconds of the agent per decision of one episode; all episodes
            that still run decide in one batch, and decisions that execute an older plan count too.
        episodes: how many.
        seed: of the protocol.
        records: every episode.
        films: what some episodes looked like.
    """

    success_rate: float
    interval: tuple[float, float]
    return_mean: float
    steps_to_goal: float | None
    start_solved_rate: float
    decision_ms: float
    episodes: int
    seed: int
    records: tuple[EpisodeResult, ...] = ()
    films: tuple[GoalEpisode, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The summary, as `wm eval --json` prints it."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("records", "films")]
        return {name: getattr(self, name) for name in names} | {"interval": list(self.interval)}


def evaluate(
    agent: Agent,
    held_out: TrajectoryDataset | None = None,
    protocol: EvaluationConfig | None = None,
    *,
    films: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure an agent by a protocol; the same agent, data and protocol give the same result.

    Args:
        agent: any agent.
        held_out: episodes that training never saw; goals "dataset" are taken from them.
        protocol: by default the one the agent carries in `info["evaluation"]`.
        films: keep frames of so many episodes, where an observation is an image.
        progress: told how far the episodes are.

    Raises:
        ConfigError: if protocol and agent do not fit, or one of them is missing.

    Example:
        >>> agent = Agent.from_pretrained("runs/1")
        >>> evaluate(agent, held_out).success_rate
        0.93
    """
    if protocol is None:
        if "evaluation" not in agent.info:
            raise ConfigError("this agent carries no evaluation protocol; give protocol")
        protocol = from_dict(EvaluationConfig, agent.info["evaluation"])
    if protocol.frame_skip != agent.spaces.block:
        raise ConfigError(
            f"the protocol has frame_skip {protocol.frame_skip}, but the agent's actions hold "
            f"{agent.spaces.block} raw ones; they must agree"
        )
    env = goal_env(protocol, held_out)
    try:
        return reach_goals(agent, env, protocol, films=films, progress=progress)
    finally:
        env.close()


def random_agent(agent: Agent) -> Agent:
    """The uniformly random baseline with the spaces of `agent`."""
    other = Agent(agent.model, RandomActor(agent.model))
    other.info = agent.info
    return other


def goal_env(
    protocol: EvaluationConfig, held_out: TrajectoryDataset | None = None
) -> gym.vector.VectorEnv:
    """All episodes of a protocol as one vector environment that takes action blocks.

    An environment with a vector form of its own that can be put into a state is used as one batch;
    copies of any other step one after the other.

    Raises:
        ConfigError: if the protocol names no environment, or goals need data that is missing.
    """
    if not protocol.env:
        raise ConfigError("the protocol names no environment; set evaluation.env")
    goals = _goals(protocol, held_out)
    # Replaying a segment must not end the episode before the segment does.
    steps = max(protocol.budget, protocol.goal_offset) + 1
    options = {**protocol.env_options, "max_episode_steps": steps}
    native = make_vec(protocol.env, protocol.episodes, **options)
    if isinstance(native.unwrapped, Stateful):
        env: gym.vector.VectorEnv = GoalReachingVector(native, goals, budget=protocol.budget)
    else:
        native.close()

        def copy() -> gym.Env:
            return GoalReaching(make(protocol.env, **options), goals, budget=protocol.budget)

        env = SyncVectorEnv([copy] * protocol.episodes)
    return VectorActionBlock(env, protocol.frame_skip)


def reach_goals(
    agent: Agent,
    env: gym.vector.VectorEnv,
    protocol: EvaluationConfig,
    *,
    films: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Run one episode in every row of a `goal_env`, each up to its first success.

    Args:
        agent: decides for all rows at once.
        env: its observations hold the goals, `info["success_step"]` the first raw step of success.
        protocol: budget and seed.
        films: as in `evaluate`.
        progress: as in `evaluate`.
    """
    block, width = protocol.frame_skip, agent.spaces.action_width
    generator = torch.Generator(agent.model.device).manual_seed(protocol.seed)
    obs, info = env.reset(seed=protocol.seed)
    success, total = np.array(info["success_step"]), np.zeros(env.num_envs)
    camera = _Camera(obs, env.single_observation_space, films)
    active = np.flatnonzero(success < 0)
    state, seconds, decisions = agent.initial(len(active)), 0.0, 0
    for step in range(0, protocol.budget, block):
        if not len(active):
            break
        began = time.perf_counter()
        seen = {key: value[active] for key, value in obs.items()}
        first = np.full(len(active), step == 0)
        decision, state = agent.act(seen, state, is_first=first, generator=generator)
        chosen = torch.zeros(env.num_envs, width)
        chosen[active] = decision.action.cpu()
        action = agent.spaces.decode_action(chosen)
        seconds += time.perf_counter() - began
        decisions += len(active)
        obs, reward, terminated, truncated, info = env.step(action)
        success[active], total[active] = (
            info["success_step"][active],
            total[active] + reward[active],
        )
        camera.take(obs, active)
        # What has reached its goal or has ended needs no further decisions.
        over = success[active] >= 0
        for flag in (terminated, truncated):
            over |= flag[active]
        state, active = state[torch.from_numpy(np.flatnonzero(~over))], active[~over]
        if progress is not None:
            progress(step + block, protocol.budget)
    milliseconds = 1e3 * seconds / max(decisions, 1)
    return _summary(success, total, milliseconds, protocol.seed, camera.films(success))


def _summary(
    steps: NDArray, total: NDArray, decision_ms: float, seed: int, films: tuple[GoalEpisode, ...]
) -> Evaluation:
    """Sum up first steps of success [N] (-1: none) and returns [N]."""
    reached, took = steps >= 0, steps[steps > 0]
    records = tuple(
        EpisodeResult(bool(ok), int(n) if ok else None, float(reward))
        for ok, n, reward in zip(reached, steps, total, strict=True)
    )
    return Evaluation(
        success_rate=float(reached.mean()),
        interval=wilson_interval(int(reached.sum()), len(steps)),
        return_mean=float(total.mean()),
        steps_to_goal=float(took.mean()) if len(took) else None,
        start_solved_rate=float((steps == 0).mean()),
        decision_ms=decision_ms,
        episodes=len(steps),
        seed=seed,
        records=records,
        films=films,
    )


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval for a share, honest near 0 and 1 (Wilson 1927).

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),  p = successes / n

    Args:
        successes: how many.
        trials: n, of how many.
        z: quantile of the normal distribution; the default gives 95 %.

    Raises:
        ConfigError: unless 0 <= successes <= trials and trials > 0.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ConfigError(f"{successes} successes in {trials} trials have no interval")
    share, spread = successes / trials, z * z / trials
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    return max(0.0, low), min(1.0, high)


class _Camera:
    """Keeps the frames of the first few rows, each up to its success."""

    def __init__(self, obs: dict[str, Any], space: gym.Space, films: int) -> None:
        assert isinstance(space, gym.spaces.Dict)
        images = [key for key, part in space.spaces.items() if is_image(part)]
        self.key = next((key for key in images if GOAL + key in obs), None)
        self.count = films if self.key else 0
        self._frames: list[list[NDArray]] = [[] for _ in range(self.count)]
        self._goals = [] if self.key is None else [g.copy() for g in obs[GOAL + self.key][:films]]
        self.take(obs, np.arange(len(self._goals)))

    def take(self, obs: dict[str, Any], rows: NDArray[np.int64]) -> None:
        """One frame of every filmed row among `rows`."""
        for row in rows:
            if self.key is not None and row < self.count:
                self._frames[row].append(np.array(obs[self.key][row]))

    def films(self, success: NDArray) -> tuple[GoalEpisode, ...]:
        """What was kept; `success` [N] is the step of success or -1."""
        return tuple(
            GoalEpisode(np.stack(frames), goal, bool(step >= 0))
            for frames, goal, step in zip(self._frames, self._goals, success)
        )


def _goals(protocol: EvaluationConfig, held_out: TrajectoryDataset | None) -> GoalSampler:
    if protocol.goals == "env":
        return EnvGoals(protocol.goal_options)
    if held_out is None:
        raise ConfigError("goals='dataset' are taken from held-out episodes; give held_out")
    return SegmentGoals(held_out, protocol.goal_offset, state_key=protocol.state_key)
