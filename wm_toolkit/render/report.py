"""The report of a goal-reaching run: result table, training curves, errors by horizon, film strips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wm_toolkit.agents.card import HEAD, Result, percent, result_cells
from wm_toolkit.render import page
from wm_toolkit.render.plots import Bar, Series, bar_chart, line_chart
from wm_toolkit.render.rollout import HorizonError, horizon_chart
from wm_toolkit.render.video import (
    BAD,
    GOOD,
    GREY,
    Pixels,
    bordered,
    film_strip,
    gif_bytes,
    marked,
    png_bytes,
    side_by_side,
    tiled,
    upscale,
)

ANIMATION_FPS = 4.0  # an episode's frames are a decision apart


@dataclasses.dataclass(frozen=True)
class GoalEpisode:
    """What can be shown of one goal-reaching episode.

    Attributes:
        frames: [T, h, w, 3] what the environment showed, the first is the start.
        goal: [h, w, 3] what it should have shown in the end.
        success: whether the goal was reached.
    """

    frames: Pixels
    goal: Pixels
    success: bool


@dataclasses.dataclass(frozen=True)
class RunReport:
    """Everything the page of one run shows; what is empty is left out.

    Attributes:
        title: of the page.
        lead: one or two sentences: what was trained on what, how it was evaluated.
        results: rows of the result table by name, the own model first.
        curves: training metrics by name: (update, value) pairs.
        horizon: prediction error by horizon.
        dream: [H, W, 3] truth, dream and error of some windows, see `render.rollout.dream_strips`.
        episodes: film strips and the animation.
        record: the run record.
        config: the resolved config.
    """

    title: str
    lead: str
    results: Mapping[str, Result]
    curves: Mapping[str, Sequence[tuple[float, float]]] = dataclasses.field(default_factory=dict)
    horizon: HorizonError | None = None
    dream: Pixels | None = None
    episodes: Sequence[GoalEpisode] = ()
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def goal_report(report: RunReport) -> str:
    """The page as a string; write it beside the run's other files."""
    return page.report_page(
        report.title,
        report.lead,
        _facts(report),
        _results(report.results),
        training_section(report.curves),
        _prediction(report.horizon, report.dream),
        _episodes(report.episodes),
        repeat_section(report.record, report.config),
        footer=f"wm_toolkit {report.record.get('versions', {}).get('wm_toolkit', '')}".strip(),
    )


def goal_strip(episode: GoalEpisode, most: int = 10, scale: int = 1) -> Pixels:
    """Start, executed frames and, apart from them, the goal: one picture [h, W, 3]."""
    width = max(1, scale)
    frames = bordered(upscale(episode.frames, scale), GREY, width)
    goal = bordered(upscale(episode.goal, scale), GOOD if episode.success else BAD, width)
    return side_by_side([film_strip(frames, most, gap=3), goal], gap=12)


def goal_film(episodes: Sequence[GoalEpisode], columns: int = 4, scale: int = 1) -> Pixels:
    """All episodes in one animation [T, H, W, 3], each beside its goal, the border says how it ended."""
    pairs = []
    for episode in episodes:
        goal = np.broadcast_to(episode.goal, episode.frames.shape)
        pair = side_by_side([episode.frames, goal], gap=1, colour=GREY)
        pairs.append(marked(upscale(pair, scale), episode.success, 2 * scale))
    return tiled(pairs, columns)


def _facts(report: RunReport) -> str:
    facts: list[tuple[str, str]] = []
    for name, result in report.results.items():
        facts.append((percent(result["success_rate"]), f"of goals reached: {name}"))
    if report.horizon is not None:
        share = report.horizon.model[-1] / report.horizon.copy[-1]
        facts.append((percent(share), f"of copy-last's error, {len(report.horizon.model)} ahead"))
    return page.cards(facts[:5]) if facts else ""


def _results(results: Mapping[str, Result]) -> str:
    if not results:
        return ""
    bars = []
    for name, result in results.items():
        share, low, high = (100 * v for v in (result["success_rate"], *result["interval"]))
        bars.append(Bar(name, share, low, high))
    chart = bar_chart(bars, title="Goals reached, with 95 % interval", unit=" %", highest=100.0)
    rows = [result_cells(name, result) for name, result in results.items()]
    seeds = sorted({str(result["seed"]) for result in results.values()})
    note = (
        f"Held-out goals; every policy meets the same starts and goals (seed {', '.join(seeds)}). "
        "Success is looked for after every environment step; in its own column, only when a plan has "
        "been executed."
    )
    shown = page.charts(chart, success_chart(results))
    return page.section("Results", page.table(HEAD, rows), shown, note=note)


def success_chart(results: Mapping[str, Result]) -> str:
    """Share of goals reached within every number of environment steps; empty for older results."""
    series = []
    for name, result in results.items():
        shares = [100 * share for share in result.get("success_by_step", ())]
        if shares:
            series.append(Series(name, list(range(len(shares))), shares, dashed=bool(series)))
    if not series:
        return ""
    title = "Goals reached by environment step"
    return line_chart(series, title=title, x_label="budget, steps", y_label="%", zero=True)


def training_section(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Training curves by name as (update, value) pairs; empty if none has two points."""
    drawn = [curve_chart(name, points) for name, points in curves.items() if len(points) > 1]
    return page.section("Training", page.charts(*drawn))


def repeat_section(record: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Record and config of a run, to unfold."""
    return page.section(
        "How to repeat it",
        page.details("Run record", record),
        page.details("Resolved configuration", config),
    )


def curve_chart(name: str, points: Sequence[tuple[float, float]]) -> str:
    """One training curve; losses that stay positive get a logarithmic axis."""
    values = [value for _, value in points if math.isfinite(value)]
    wide = bool(values) and min(values) > 0 and max(values) > 20 * min(values)
    series = Series(name, [u for u, _ in points], [v for _, v in points], markers=len(points) < 20)
    return line_chart([series], title=name, x_label="update", log_y=wide)


def _prediction(horizon: HorizonError | None, dream: Pixels | None) -> str:
    chart = horizon_chart(horizon) if horizon is not None else ""
    strips = (
        page.image(
            png_bytes(dream),
            "png",
            "what happened, what the model dreamt, and the difference",
            "From top to bottom: what happened, what the model dreamt, the difference.",
        )
        if dream is not None
        else ""
    )
    note = (
        "Held-out windows. The model sees the beginning and dreams on with the true actions; "
        "copy-last repeats the last seen embedding."
    )
    return page.section("Prediction", page.charts(chart, strips), note=note)


def _episodes(episodes: Sequence[GoalEpisode]) -> str:
    if not episodes:
        return ""
    shown = [
        (png_bytes(goal_strip(e)), "reached" if e.success else "not reached", e.success)
        for e in episodes[:8]
    ]
    film = gif_bytes(goal_film(episodes[:12], columns=6), fps=ANIMATION_FPS, hold_seconds=1.5)
    moving = page.image(film, "gif", "episodes in motion, each beside its goal")
    note = "Start and executed frames from left to right; the goal stands apart at the right end."
    return page.section("Episodes", page.film(shown), note=note) + page.section(
        "In motion", moving, note="Left the episode, right its goal; green borders reached it."
    )
