"""Runs a group of episodes, with goals or without: rows of one vector environment that decide as one batch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from wm_toolkit.agents.agent import Agent, AgentState
from wm_toolkit.envs.goal import GOAL
from wm_toolkit.envs.rows import over
from wm_toolkit.render.report import GoalEpisode
from wm_toolkit.spaces import flat_obs, flat_space, is_image

Progress = Callable[[int, int], None]
"""Called with raw environment steps done and in all; where there are no goals, with episodes."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of n episodes.

    Attributes:
        success: [n] raw step of the first success; 0 if the start was one, -1 if there was none.
        at_replan: [n] likewise, where one looks only when a plan has been executed.
        total: [n] sum of rewards up to the first success.
        length: [n] raw steps up to the first success, or the episode's end.
        decisions: how many were made before it, each of one episode.
        seconds: of wall-clock time that they took.
        cpu_seconds: of processor time, of this process.
        films: what the first episodes looked like; without goals the frames [T, h, w, C] alone.
    """

    success: NDArray[np.int64]
    at_replan: NDArray[np.int64]
    total: NDArray[np.float64]
    length: NDArray[np.int64]
    decisions: int
    seconds: float
    cpu_seconds: float
    films: tuple[GoalEpisode, ...] | tuple[NDArray, ...] = ()


def run_episodes(
    agent: Agent,
    env: gym.vector.VectorEnv,
    budget: int,
    *,
    seed: int,
    rows: Sequence[int] | None = None,
    group: int = 0,
    films: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Run one episode in every row of a `goal_env`, or of an environment without goals.

    Args:
        agent: decides for all rows at once.
        env: behind an action block. Where there are goals its observations hold them, and info is that of
            `GoalReaching`; where there are none an episode runs to its end, or to the budget.
        budget: raw steps of an episode, a multiple of the block.
        seed: of the environment and of the agent's noise.
        rows: which of all episodes these are, so that each is seeded alike in any grouping; by default
            the first ones.
        group: number of this group; every group has its own stream of noise.
        films: keep frames of so many episodes, where an observation is an image.
        progress: told how far the episodes are.
    """
    numbers = range(env.num_envs) if rows is None else rows
    run = _Run(agent, env, [seed + i for i in numbers], (seed, group), films)
    for step in range(0, budget, agent.spaces.block):
        if not run.parties:
            break
        run.advance(step)
        if progress is not None:
            progress(*run.progress(step + agent.spaces.block, budget))
    return run.outcome()


@dataclasses.dataclass(frozen=True)
class _Party:
    """Rows that decide as one batch.

    Whoever has reached the goal in the middle of a plan goes on in a party of its own, because the next
    look may find it elsewhere; that never disturbs the noise of those who are still searching.
    """

    rows: NDArray[np.int64]
    state: AgentState
    generator: torch.Generator
    searching: bool = True

    def part(self, mask: NDArray[np.bool_], **changes: Any) -> _Party:
        """The rows of `mask` [n]."""
        state = self.state[torch.from_numpy(np.flatnonzero(mask))]
        return dataclasses.replace(self, rows=self.rows[mask], state=state, **changes)


class _Run:
    """The episodes while they run.

    Args:
        agent, env, films: as for `run_episodes`.
        seeds: of the rows of the environment.
        stream: (seed, group) of the noise.
    """

    def __init__(
        self,
        agent: Agent,
        env: gym.vector.VectorEnv,
        seeds: Any,
        stream: tuple[int, int],
        films: int,
    ) -> None:
        self.agent, self.env, self.stream = agent, env, stream
        obs, info = env.reset(seed=seeds)
        self.obs, self.goals = flat_obs(obs), "success_step" in info
        self.success = np.array(info["success_step"] if self.goals else [-1] * env.num_envs)
        self.at_replan, self.total = self.success.copy(), np.zeros(env.num_envs)
        self.length = np.zeros(env.num_envs, np.int64)
        self.camera = _Camera(self.obs, flat_space(env.single_observation_space), films)
        self.decisions, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        rows = np.flatnonzero(self.success < 0)
        first = _Party(rows, agent.initial(len(rows)), self._noise(0))
        self.parties = [first] if len(rows) else []

    def advance(self, step: int) -> None:
        """One decision of every row that goes on, at raw step `step`, and what comes of it."""
        size, width = self.env.num_envs, self.agent.spaces.action_width
        action = np.array(self.agent.spaces.decode_action(torch.zeros(size, width)))
        ends = np.ones(size, bool)
        decided = []
        for party in self.parties:
            chosen, due, party = self._decide(party, first=step == 0)
            action[party.rows], ends[party.rows] = chosen, due
            decided.append(party)
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.obs, stopped = flat_obs(obs), over(terminated, truncated)
        for party in decided:
            if party.searching:
                self.total[party.rows] += reward[party.rows]
                self.length[party.rows] += info["raw_steps"][party.rows]
                if self.goals:
                    self.success[party.rows] = info["success_step"][party.rows]
                self.camera.take(self.obs, party.rows)
        # A plan that the end of the episode cuts short is looked at too.
        found = info.get("at_goal", np.zeros(size, bool)) & (ends | stopped) & (self.at_replan < 0)
        found &= np.isin(np.arange(size), np.concatenate([party.rows for party in decided]))
        self.at_replan[found] = (step + info["raw_steps"])[found]
        noise = self._noise(step + 1)
        self.parties = [p for party in decided for p in self._go_on(party, found | stopped, noise)]

    def progress(self, step: int, budget: int) -> tuple[int, int]:
        """Steps done and in all; episodes without goals end one by one, so these are counted instead."""
        if self.goals:
            return step, budget
        running = sum(len(party.rows) for party in self.parties)
        return self.env.num_envs - running, self.env.num_envs

    def outcome(self) -> Outcome:
        """What is known by now."""
        return Outcome(
            self.success,
            self.at_replan,
            self.total,
            self.length,
            self.decisions,
            self.seconds,
            self.cpu_seconds,
            self.camera.films(self.success),
        )

    def _decide(self, party: _Party, first: bool) -> tuple[NDArray, Any, _Party]:
        """Raw action blocks [n, ...], whether a new plan is due behind them, and the party then."""
        began, began_cpu = time.perf_counter(), time.process_time()
        seen = {key: value[party.rows] for key, value in self.obs.items()}
        is_first = np.full(len(party.rows), first)
        decision, state = self.agent.act(
            seen, party.state, is_first=is_first, generator=party.generator
        )
        action = self.agent.spaces.decode_action(decision.action.cpu())
        if party.searching:
            self.seconds += time.perf_counter() - began
            self.cpu_seconds += time.process_time() - began_cpu
            self.decisions += len(party.rows)
        due = True if decision.ends_plan is None else decision.ends_plan.cpu().numpy()
        return action, due, dataclasses.replace(party, state=state)

    def _go_on(
        self, party: _Party, done: NDArray[np.bool_], noise: torch.Generator
    ) -> Iterator[_Party]:
        """What is left of a party: those still searching, and apart from them those that arrived."""
        alive, reached = ~done[party.rows], self.success[party.rows] >= 0
        kept = alive & ~reached if party.searching else alive
        if kept.any():
            yield party.part(kept)
        arrived = alive & reached & party.searching
        if arrived.any():
            yield party.part(arrived, generator=noise, searching=False)

    def _noise(self, step: int) -> torch.Generator:
        """The agent's noise of this group, from some step on."""
        seed, group = self.stream
        if group or step:
            mixed = np.random.SeedSequence([seed, group, step]).generate_state(1, np.uint64)
            seed = int(mixed[0])
        return torch.Generator(self.agent.model.device).manual_seed(seed)


class _Camera:
    """Keeps the frames of the first few rows, each up to its success."""

    def __init__(self, obs: dict[str, Any], spaces: Mapping[str, gym.Space], films: int) -> None:
        goals = any(key.startswith(GOAL) for key in obs)
        images = [key for key, part in spaces.items() if is_image(part)]
        self.key = next((key for key in images if not goals or GOAL + key in obs), None)
        self.count = 0 if self.key is None else min(films, len(obs[self.key]))
        self._frames: list[list[NDArray]] = [[] for _ in range(self.count)]
        found = obs[f"{GOAL}{self.key}"][: self.count] if goals and self.count else ()
        self._goals = [goal.copy() for goal in found]
        self.take(obs, np.arange(self.count))

    def take(self, obs: dict[str, Any], rows: NDArray[np.int64]) -> None:
        """One frame of every filmed row among `rows`."""
        for row in rows:
            if self.key is not None and row < self.count:
                self._frames[row].append(np.array(obs[self.key][row]))

    def films(self, success: NDArray) -> tuple[GoalEpisode, ...] | tuple[NDArray, ...]:
        """What was kept; `success` [N] is the step of success or -1."""
        if not self._goals:
            return tuple(np.stack(frames) for frames in self._frames)
        return tuple(
            GoalEpisode(np.stack(frames), goal, bool(step >= 0))
            for frames, goal, step in zip(self._frames, self._goals, success)
        )
