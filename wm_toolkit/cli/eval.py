"""`wm eval`: measure a saved agent by the protocol it carries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.cli.train import pairs

if TYPE_CHECKING:
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.data.dataset import TrajectoryDataset
    from wm_toolkit.training.config import EvaluationConfig


@dataclasses.dataclass(frozen=True)
class Args:
    """Measure a saved agent; without options it repeats the number in the agent's card.

    For example: `wm eval runs/demo`, or `wm eval runs/demo --episodes 200 --set
    goals=env env_options.goal_room=opposite`.

    Attributes:
        agent: a run, a saved agent, a catalog name, or owner/name on the hub.
        data: a data set for the goals, instead of the agent's own held-out episodes.
        episodes: goals to reach, instead of the protocol's.
        budget: environment steps for each, instead of the protocol's.
        seed: instead of the protocol's.
        set: other fields of the protocol to replace, as name=value.
        device: where the model runs.
        no_random: leave the random baseline out of the table.
        json: print one JSON object, of the agent alone.
    """

    agent: Annotated[str, tyro.conf.Positional]
    data: str = ""
    episodes: int | None = None
    budget: int | None = None
    seed: int | None = None
    set: tuple[str, ...] = ()
    device: str = "cpu"
    no_random: bool = False
    json: bool = False


def run(args: Args) -> int:
    """Measure and print."""
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.training.evaluate import evaluate, random_agent

    agent = Agent.from_pretrained(args.agent, device=args.device)
    short = {"episodes": args.episodes, "budget": args.budget, "seed": args.seed}
    changes = {name: value for name, value in short.items() if value is not None}
    protocol = protocol_of(agent, changes | pairs(args.set))
    held_out = goals_from(agent, protocol, args.data)
    with output.progress(f"evaluating {args.agent}") as advance:
        row = evaluate(agent, held_out, protocol, progress=advance).to_json()
    if args.json:
        output.emit(row)
        return 0
    rows = {agent.recipe or "agent": row}
    if not args.no_random:
        rows["random"] = evaluate(random_agent(agent), held_out, protocol).to_json()
    show(rows, protocol)
    return 0


def protocol_of(agent: Agent, changes: Mapping[str, Any] | None = None) -> EvaluationConfig:
    """The protocol the agent carries, with some fields replaced.

    Raises:
        ConfigError: if it carries none, or for an unknown field.
    """
    from wm_toolkit.config import from_dict, override
    from wm_toolkit.errors import ConfigError
    from wm_toolkit.training.config import EvaluationConfig

    if "evaluation" not in agent.info:
        raise ConfigError("this agent carries no evaluation protocol; train it with `wm train`")
    return override(from_dict(EvaluationConfig, agent.info["evaluation"]), changes or {})


def goals_from(agent: Agent, protocol: EvaluationConfig, name: str) -> TrajectoryDataset | None:
    """The episodes that goals are taken from; None if the environment draws them."""
    if protocol.goals != "dataset":
        return None
    from wm_toolkit.training.jobs import agent_data, offline_data, open_data

    if not name:
        return agent_data(agent).held_out
    data = open_data(name)
    # The very data it was trained on, at another place: most of its episodes are no news to the agent.
    known = (agent.info.get("data") or {}).get("checksum")
    return offline_data(data, agent.config).held_out if data.checksum == known else data


def show(rows: dict[str, Any], protocol: EvaluationConfig) -> None:
    """The table, with the protocol above it."""
    from wm_toolkit.render.report import HEAD, result_cells

    title = (
        f"{protocol.env}, goals: {protocol.goals}, {protocol.goal_offset} steps ahead, "
        f"budget {protocol.budget} steps, seed {protocol.seed}"
    )
    cells = [result_cells(name, row) for name, row in rows.items()]
    output.show_table(HEAD, cells, title=title, numbers=True)
