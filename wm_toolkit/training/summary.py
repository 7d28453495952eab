"""What an evaluation comes to: rates or returns with intervals, milliseconds, every episode behind them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_toolkit.errors import ConfigError
from wm_toolkit.render.report import GoalEpisode
from wm_toolkit.training.episodes import Outcome

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    Attributes:
        success: whether the goal was reached within the budget.
        steps: raw environment steps to the first success, 0 if the start solved it, None without one.
        total_reward: sum of the environment's rewards.
        success_at_replan: whether it was at the goal at a moment when a plan had been executed.
    """

    success: bool
    steps: int | None
    total_reward: float
    success_at_replan: bool


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A number with everything it needs to be believed.

    Attributes:
        success_rate: share of episodes that were at their goal after some raw step within the budget,
            those solved at the start included.
        interval: its 95 % Wilson interval.
        return_mean: mean sum of rewards up to success.
        steps_to_goal: mean raw steps of the successes that took any; None if there is none.
        start_solved_rate: share of episodes whose start already solved them.
        decision_ms: wall-clock milliseconds of the agent per decision of one episode; all episodes
            that still run decide in one batch, and decisions that execute an older plan count too.
        episodes: how many.
        seed: of the protocol.
        success_rate_at_replan: share that were at their goal when a plan had been executed (or the
            budget was), which is when the published planners look; where no plan outlives a decision,
            after every decision.
        interval_at_replan: its 95 % Wilson interval.
        decision_cpu_ms: as `decision_ms`, of processor time.
        success_by_step: success rate within 0, 1, ... budget raw steps.
        records: every episode.
        films: what some episodes looked like.
    """

    success_rate: float
    interval: Interval
    return_mean: float
    steps_to_goal: float | None
    start_solved_rate: float
    decision_ms: float
    episodes: int
    seed: int
    success_rate_at_replan: float
    interval_at_replan: Interval
    decision_cpu_ms: float
    success_by_step: tuple[float, ...]
    records: tuple[EpisodeResult, ...] = ()
    films: tuple[GoalEpisode, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The summary, as `wm eval --json` prints it."""
        return _plain(self, leave=("records", "films"))


def summarise(outcomes: Sequence[Outcome], *, budget: int, seed: int) -> Evaluation:
    """One summary of all groups of episodes, in their order."""
    steps = np.concatenate([outcome.success for outcome in outcomes])
    at_replan = np.concatenate([outcome.at_replan for outcome in outcomes]) >= 0
    total = np.concatenate([outcome.total for outcome in outcomes])
    reached, took = steps >= 0, steps[steps > 0]
    decisions = max(sum(outcome.decisions for outcome in outcomes), 1)
    return Evaluation(
        success_rate=float(reached.mean()),
        interval=wilson_interval(int(reached.sum()), len(steps)),
        return_mean=float(total.mean()),
        steps_to_goal=float(took.mean()) if len(took) else None,
        start_solved_rate=float((steps == 0).mean()),
        decision_ms=1e3 * sum(outcome.seconds for outcome in outcomes) / decisions,
        episodes=len(steps),
        seed=seed,
        success_rate_at_replan=float(at_replan.mean()),
        interval_at_replan=wilson_interval(int(at_replan.sum()), len(steps)),
        decision_cpu_ms=1e3 * sum(outcome.cpu_seconds for outcome in outcomes) / decisions,
        success_by_step=tuple(
            float((reached & (steps <= step)).mean()) for step in range(budget + 1)
        ),
        records=tuple(
            EpisodeResult(bool(ok), int(n) if ok else None, float(reward), bool(then))
            for ok, n, reward, then in zip(reached, steps, total, at_replan, strict=True)
        ),
        films=_films(outcomes),
    )


@dataclasses.dataclass(frozen=True)
class ReturnEvaluation:
    """What whole episodes returned.

    Attributes:
        return_mean: mean sum of rewards.
        interval: 95 % interval of that mean; None of a single episode.
        return_std: deviation over episodes.
        length_mean: mean raw environment steps of an episode.
        decision_ms: wall-clock milliseconds of the agent per decision of one episode; all episodes
            that still run decide in one batch.
        decision_cpu_ms: as `decision_ms`, of processor time.
        episodes: how many.
        seed: of the protocol.
        updates: behind the model's weights, where they are known.
        env_steps: seen in training, where they are known.
        returns: of every episode.
        films: frames [T, h, w, C] of some episodes.
    """

    return_mean: float
    interval: Interval | None
    return_std: float
    length_mean: float
    decision_ms: float
    decision_cpu_ms: float
    episodes: int
    seed: int
    updates: int | None = None
    env_steps: int | None = None
    returns: tuple[float, ...] = ()
    films: tuple[NDArray, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The summary, as `wm eval --json` prints it."""
        return _plain(self, leave=("films",))


def summarise_returns(outcomes: Sequence[Outcome], *, seed: int, **known: Any) -> ReturnEvaluation:
    """One summary of all groups of episodes without goals; `known` are further fields."""
    total = np.concatenate([outcome.total for outcome in outcomes])
    length = np.concatenate([outcome.length for outcome in outcomes])
    decisions = max(sum(outcome.decisions for outcome in outcomes), 1)
    return ReturnEvaluation(
        return_mean=float(total.mean()),
        interval=mean_interval(total),
        return_std=float(total.std(ddof=1)) if len(total) > 1 else 0.0,
        length_mean=float(length.mean()),
        decision_ms=1e3 * sum(outcome.seconds for outcome in outcomes) / decisions,
        decision_cpu_ms=1e3 * sum(outcome.cpu_seconds for outcome in outcomes) / decisions,
        episodes=len(total),
        seed=seed,
        returns=tuple(float(value) for value in total),
        films=_films(outcomes),
        **known,
    )


def _films(outcomes: Sequence[Outcome]) -> tuple[Any, ...]:
    return tuple(film for outcome in outcomes for film in outcome.films)


def _plain(summary: Any, leave: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a summary, JSON-ready, without some."""
    names = [f.name for f in dataclasses.fields(summary) if f.name not in leave]
    values = {name: getattr(summary, name) for name in names}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def mean_interval(values: NDArray) -> Interval | None:
    """95 % interval of the mean of n independent draws; None if there is one alone.

    mean +- t s / sqrt(n), with t the 97.5 % quantile of Student's distribution.
    """
    n = len(values)
    if n < 2:
        return None
    half = student_quantile(n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return float(values.mean()) - half, float(values.mean()) + half


def student_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution.

    Found by bisection of its distribution function, the finite sums 26.7.3 and 26.7.4 of Abramowitz and
    Stegun (1964), right to 1e-9.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, 13.0  # the largest, of one degree of freedom, is 12.706
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Chance that a draw of Student's distribution lies between -t and t."""
    angle = math.atan2(t, math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (k - 1) / k
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> Interval:
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
