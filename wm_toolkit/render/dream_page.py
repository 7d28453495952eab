"""The part of a report page that shows a model's dreams."""

from __future__ import annotations

from collections.abc import Iterable

from wm_toolkit.render import page
from wm_toolkit.render.calibration import Bins
from wm_toolkit.render.dreams import Dreams, Look, Trace
from wm_toolkit.render.plots import Series, line_chart
from wm_toolkit.render.rollout import horizon_chart


def dream_sections(found: Look | None) -> str:
    """Pictures, errors by horizon, calibration and curves of a look; empty without one."""
    if found is None:
        return ""
    dreams = found.dreams
    begun = (
        f"{dreams.windows} recorded windows. The model sees {dreams.context} rows and dreams on with the "
        "actions that were taken. "
    )
    return (
        page.section("Dream beside reality", *_pictures(found), note=begun + PICTURES)
        + page.section("Dream by horizon", page.charts(*_errors(dreams)), note=begun + ERRORS)
        + page.section("Calibration", page.charts(*_calibration(dreams)), note=CALIBRATION)
        + page.section("One dream, row by row", page.charts(*_traces(dreams)), note=TRACES)
    )


PICTURES = "Rows from top to bottom: what happened, what the model dreamt, their difference."
ERRORS = (
    "Copy last repeats what was last seen; a model is worth its dreams as long as it stays below."
)
CALIBRATION = (
    "Dreamt: read off states that were dreamt. Filtered: off states that saw the same rows. On the "
    "diagonal predictions come true as they were made."
)
TRACES = "Up to the upright line the model observed; behind it it dreamt, with the actions taken."


def calibration_chart(bins: Iterable[tuple[str, Bins]], *, title: str, unit: str) -> str:
    """Mean outcome over mean prediction, with the diagonal, as an SVG chart.

    Args:
        bins: by name.
        title: what the chart shows.
        unit: of both axes.
    """
    series = [Series(name, b.predicted, b.happened, markers=True) for name, b in bins]
    values = [v for one in series for v in (*one.x, *one.y)]
    ends = (min(values), max(values))
    return line_chart(
        [*series, Series("as predicted", ends, ends, dashed=True)],
        title=title,
        x_label=f"predicted {unit}",
        y_label=f"{unit} that came",
    )


def _pictures(found: Look) -> list[str]:
    shown = []
    for key, data in found.strips.items():
        shown.append(page.image(data, "png", f"truth, dream and difference of {key}", key))
    for key, data in found.films.items():
        said = (
            f"{key}: truth, dream, difference; green while the model observes, grey while it dreams"
        )
        shown.append(page.image(data, "gif", f"{key} in motion", said))
    return shown


def _errors(dreams: Dreams) -> list[str]:
    charts = [horizon_chart(dreams.latent, title="Latent state")]
    if dreams.belief is not None:
        title = "Surprise: KL(posterior || dreamt prior)"
        charts.append(horizon_chart(dreams.belief, title=title, y_label="nats"))
    return charts + [
        horizon_chart(error, title=f"Decoded {key}") for key, error in dreams.observations
    ]


def _calibration(dreams: Dreams) -> list[str]:
    charts = []
    if dreams.rewards:
        said = ", ".join(f"{name} {_r2(one.r2)}" for name, one in dreams.rewards)
        bins = [(name, one.bins) for name, one in dreams.rewards]
        charts.append(calibration_chart(bins, title=f"Reward (R2: {said})", unit="reward"))
    if dreams.endings:
        said = ", ".join(f"{name} {one.ece:.3f}" for name, one in dreams.endings)
        bins = [(name, one.bins) for name, one in dreams.endings]
        title = f"Going on (calibration error: {said})"
        charts.append(calibration_chart(bins, title=title, unit="probability"))
    return charts


def _traces(dreams: Dreams) -> list[str]:
    return [_trace(one, dreams.context) for one in dreams.traces]


def _trace(one: Trace, context: int) -> str:
    rows = list(range(len(one.truth)))
    values = [*one.truth, *one.dream]
    edge = (context - 0.5, context - 0.5)
    return line_chart(
        [
            Series("truth", rows, one.truth),
            Series("dream", rows, one.dream, dashed=True),
            Series("dream begins", edge, (min(values), max(values)), dashed=True),
        ],
        title=one.name,
        x_label="row",
    )


def _r2(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
