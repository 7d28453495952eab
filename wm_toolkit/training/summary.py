"""What an evaluation comes to: rates with intervals, steps, milliseconds, and every episode behind them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

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
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("records", "films")]
        values = {name: getattr(self, name) for name in names}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


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
        films=tuple(film for outcome in outcomes for film in outcome.films),
    )


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
