"""The report of a run that learnt from rewards: returns, training curves, and its dreams beside reality."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from wm_toolkit.agents.card import RETURN_HEAD, Result, number, result_cells
from wm_toolkit.render import page
from wm_toolkit.render.dream_page import dream_sections
from wm_toolkit.render.dreams import Look
from wm_toolkit.render.plots import Series, line_chart
from wm_toolkit.render.report import repeat_section, training_section

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class ReturnReport:
    """Everything the page of one run shows; what is empty is left out.

    Attributes:
        title: of the page.
        lead: one or two sentences: what was trained where.
        results: rows by name, the own model first, with the keys of `wm eval --json`.
        learning: (environment steps, return) by name, such as "exploring" and "evaluated".
        curves: training metrics by name: (update, value) pairs.
        look: the newest look at the model's dreams.
        record: the run record.
        config: the resolved config.
    """

    title: str
    lead: str
    results: Mapping[str, Result] = dataclasses.field(default_factory=dict)
    learning: Mapping[str, Points] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Points] = dataclasses.field(default_factory=dict)
    look: Look | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def return_report(report: ReturnReport) -> str:
    """The page as a string; write it beside the run's other files."""
    return page.report_page(
        report.title,
        report.lead,
        _facts(report.results),
        _results(report),
        training_section(report.curves),
        dream_sections(report.look),
        repeat_section(report.record, report.config),
        footer=f"wm_toolkit {report.record.get('versions', {}).get('wm_toolkit', '')}".strip(),
    )


def learning_chart(learning: Mapping[str, Points], results: Mapping[str, Result]) -> str:
    """Returns over environment steps, with what baselines return as level lines; empty without points."""
    series = [
        Series(name, [x for x, _ in points], [y for _, y in points], markers=len(points) < 20)
        for name, points in learning.items()
        if points
    ]
    if not series:
        return ""
    ends = [min(x for one in series for x in one.x), max(x for one in series for x in one.x)]
    for name, result in list(results.items())[1:]:
        series.append(Series(name, ends, [result["return_mean"]] * 2, dashed=True))
    return line_chart(
        series, title="Return while learning", x_label="environment steps", y_label="return"
    )


def _facts(results: Mapping[str, Result]) -> str:
    facts = [
        (number(row["return_mean"], 1), f"mean return: {name}") for name, row in results.items()
    ]
    return page.cards(facts[:5]) if facts else ""


def _results(report: ReturnReport) -> str:
    rows = [result_cells(name, row) for name, row in report.results.items()]
    shown = page.table(RETURN_HEAD, rows) if rows else ""
    note = "Whole episodes in environments of their own, without exploring." if rows else ""
    chart = learning_chart(report.learning, report.results)
    return page.section("Returns", shown, page.charts(chart), note=note)
