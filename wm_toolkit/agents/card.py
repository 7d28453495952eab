"""What a card says for people: training, evaluation protocol, result table. Made from an agent's info."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
"""One row of results, with the keys of `wm eval --json`."""

HEAD = (
    "policy",
    "success",
    "95 % interval",
    "success at replans",
    "steps to goal",
    "solved at start",
    "return",
    "ms / decision",
    "CPU ms",
    "episodes",
    "seed",
)

RETURN_HEAD = (
    "policy",
    "return",
    "95 % interval",
    "deviation",
    "length",
    "ms / decision",
    "CPU ms",
    "episodes",
    "seed",
)

HEADING = "## Evaluation"

GOALS = {
    "dataset": "from held-out episodes {goal_offset} steps ahead",
    "random_action": "where {goal_offset} random actions lead from states of held-out episodes",
    "env": "drawn by the environment",
}


BESIDE = {"random": "a uniformly random policy", "oracle": "the same search in the true dynamics"}
"""What stands beside a number, and what it is."""


def training_text(info: Mapping[str, Any]) -> str:
    """One sentence about how the agent came to be; empty if nothing is known."""
    training, data, seen = (info.get(name) for name in ("training", "data", "experience"))
    if not training or not (data or seen):
        return ""
    sources = []
    if data:
        checksum = data["checksum"][:12]
        sources.append(f"{data['name']} ({data['episodes']:,} episodes, checksum {checksum})")
    if seen:
        options = f" with {seen['env_options']}" if seen.get("env_options") else ""
        sources.append(f"{seen.get('steps', 0):,} environment steps in {seen['env']}{options}")
    kept = training.get("kept", training["updates"])
    best = f" The weights are those after {kept:,}, the best that evaluations on the way found."
    return (
        f"Trained for {training['updates']:,} updates on {' and '.join(sources)}, seed "
        f"{training['seed']}.{best if kept != training['updates'] else ''}\n"
    )


def evaluation_text(info: Mapping[str, Any], name: str = "agent") -> str:
    """A section of its own: results if there are any, and the protocol behind them in words.

    Args:
        info: `Agent.info`: "evaluation", "results", "baselines".
        name: the agent's row in the table.
    """
    protocol = info.get("evaluation")
    if not protocol:
        return ""
    if not info.get("results"):
        return f"{HEADING}\n\nNot measured yet. {protocol_text(protocol)}\n"
    rows = {name: info["results"], **info.get("baselines", {})}
    cells = [result_cells(*row) for row in rows.items()]
    beside = {row: what for row, what in BESIDE.items() if row in rows or has_goals(protocol)}
    said = " ".join(
        f"The {row} row is {what}." if row in rows else f"There is no {row} row ({what})."
        for row, what in beside.items()
    )
    return (
        f"{HEADING}\n\n{markdown_table(result_head(protocol), cells)}\n{protocol_text(protocol)} {said}".rstrip()
        + "\n\nTo repeat it: `wm eval .` in this folder, or `wm eval PATH` from anywhere.\n"
    )


def with_evaluation(card: str, section: str) -> str:
    """A card with the section `evaluation_text` put in the place of its old one, or behind the rest."""
    before, found, rest = card.partition(HEADING + "\n")
    if not found:
        return f"{card.rstrip()}\n\n{section}"
    _, following, after = rest.partition("\n## ")
    return f"{before}{section}{following}{after}"


def has_goals(protocol: Mapping[str, Any]) -> bool:
    """Whether a protocol measures goals that are reached; otherwise it measures returns."""
    return "goals" in protocol


def result_head(protocol: Mapping[str, Any]) -> tuple[str, ...]:
    """What stands over the columns of `result_cells`."""
    return HEAD if has_goals(protocol) else RETURN_HEAD


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """An evaluation protocol in words: what the number behind it means."""
    return _goal_text(protocol) if has_goals(protocol) else _return_text(protocol)


def _return_text(protocol: Mapping[str, Any]) -> str:
    place, group = protocol.get("env_options"), protocol.get("group")
    skip = protocol["frame_skip"]
    return (
        f"Protocol: {protocol['env'] or 'no environment named'}{f' with {dict(place)}' if place else ''}"
        f", {protocol['episodes']} whole episodes{f' in groups of {group}' if group else ''}, seed "
        f"{protocol['seed']}, in environments of their own; the agent does not explore"
        f"{f' and decides every {skip} steps' if skip > 1 else ''}. An episode is cut after "
        f"{protocol['budget']:,} steps if it has not ended by then."
    )


def _goal_text(protocol: Mapping[str, Any]) -> str:
    goals = GOALS[protocol["goals"]].format(**protocol)
    options, place = protocol.get("goal_options"), protocol.get("env_options")
    group, published = protocol.get("group"), protocol.get("published")
    named = f" (published as {published}; `wm list protocols` says what differs)"
    return (
        f"Protocol{named if published else ''}: {protocol['env'] or 'no environment named'}"
        f"{f' with {dict(place)}' if place else ''}, goals "
        f"{goals}{f' with {dict(options)}' if options else ''}, budget {protocol['budget']} steps, "
        f"{protocol['frame_skip']} per decision; {protocol['episodes']} episodes"
        f"{f' in groups of {group}' if group else ''}, seed {protocol['seed']}. "
        f"{_held_out(protocol)}. Success is looked for after every environment step, "
        "and in its own column only when a plan has been executed; starts that are solved already "
        "count as successes and are stated."
    )


def _held_out(protocol: Mapping[str, Any]) -> str:
    if protocol.get("split") == "released":
        return "Held out are the episodes that the data's release names"
    share, seed = percent(protocol["holdout"]), protocol["split_seed"]
    return f"{share} of the recorded episodes are held out (split seed {seed})"


def result_cells(name: str, result: Result) -> list[str]:
    """One row of the result table as text; a dash where an older result knows nothing."""
    if "success_rate" not in result:
        return _return_cells(name, result)
    return [
        name,
        percent(result["success_rate"]),
        interval(result.get("interval")),
        percent(result.get("success_rate_at_replan")),
        number(result.get("steps_to_goal"), 1),
        percent(result.get("start_solved_rate")),
        number(result.get("return_mean"), 2),
        number(result.get("decision_ms"), 2),
        number(result.get("decision_cpu_ms"), 2),
        number(result.get("episodes"), 0),
        number(result.get("seed"), 0),
    ]


def _return_cells(name: str, result: Result) -> list[str]:
    bounds = result.get("interval")
    return [
        name,
        number(result["return_mean"], 1),
        "-" if bounds is None else f"{number(bounds[0], 1)} to {number(bounds[1], 1)}",
        number(result.get("return_std"), 1),
        number(result.get("length_mean"), 1),
        number(result.get("decision_ms"), 2),
        number(result.get("decision_cpu_ms"), 2),
        number(result.get("episodes"), 0),
        number(result.get("seed"), 0),
    ]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(share: float | None) -> str:
    """0.815 -> "81.5 %"; a dash where there is no number."""
    if share is None or not math.isfinite(share):
        return "-"
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def interval(bounds: Sequence[float] | None) -> str:
    """(0.81, 0.97) -> "81 - 97 %"."""
    return "-" if bounds is None else f"{100 * bounds[0]:.0f} - {100 * bounds[1]:.0f} %"


def number(value: float | None, digits: int) -> str:
    """A number with so many digits behind the point, or a dash."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else "-"
