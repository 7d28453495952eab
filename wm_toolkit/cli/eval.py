"""`wm eval`: measure a saved agent by the protocol it carries, goals or returns, or by a published one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.cli.train import pairs

if TYPE_CHECKING:
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.data.dataset import TrajectoryDataset
    from wm_toolkit.training.evaluate import AnyProtocol


@dataclasses.dataclass(frozen=True)
class Args:
    """Measure a saved agent; without options it repeats the number in the agent's card.

    An agent that learnt to reach goals is measured by how many it reaches, one that learnt from rewards by
    what its episodes return. Beside it stand the random policy and, for goals, where the environment knows
    its own dynamics, the same search in those (oracle). For example: `wm eval runs/demo`, `wm eval runs/demo --episodes 200 --set
    goals=env goal_options='{"goal_room": "opposite"}'`, or `wm eval lewm-tworooms --protocol
    lewm.tworoom`.

    Attributes:
        agent: a run, a saved agent, a catalog name, or owner/name on the hub.
        protocol: a published protocol (`wm list protocols`) instead of the agent's own; it also sets
            the planner.
        data: a data set for the goals, instead of the agent's own held-out episodes.
        episodes: goals to reach, or whole episodes, instead of the protocol's.
        budget: most environment steps of each, instead of the protocol's.
        seed: instead of the protocol's.
        set: other fields of the protocol to replace, as name=value.
        device: where the model runs.
        no_oracle: leave the oracle out, where searching with a simulator takes too long.
        processes: share the work over so many processes; the result is the same.
        card: write results and protocol into the agent's artefact and card (a folder of your own).
        json: print one JSON object: the agent's row, with those of "baselines" by name.
    """

    agent: Annotated[str, tyro.conf.Positional]
    protocol: str = ""
    data: str = ""
    episodes: int | None = None
    budget: int | None = None
    seed: int | None = None
    set: tuple[str, ...] = ()
    device: str = "cpu"
    no_oracle: bool = False
    processes: int = 1
    card: bool = False
    json: bool = False


def run(args: Args) -> int:
    """Measure and print."""
    from wm_toolkit.training.launch import launch

    where = "cpu" if args.device == "cpu" else "any"
    launch(_measure, args.processes, args, device=where)
    return 0


def _measure(args: Args) -> None:
    """What every process does; the first one speaks."""
    from wm_toolkit.agents.agent import Agent
    from wm_toolkit.config import to_dict
    from wm_toolkit.training.baselines import contenders
    from wm_toolkit.training.launch import world
    from wm_toolkit.training.measure import save_results
    from wm_toolkit.training.returns import evaluate_agent

    first = world()[0] == 0
    folder = _own_folder(args.agent) if args.card else None
    agent = Agent.from_pretrained(args.agent, device=args.device)
    protocol = _protocol(args, agent)
    held_out = goals_from(agent, protocol, args.data)
    agent.info["evaluation"] = to_dict(protocol)
    rows = {}
    for name, other in contenders(agent, with_oracle=not args.no_oracle).items():
        with output.progress(f"evaluating {name}", shown=first) as advance:
            found = evaluate_agent(other, held_out, processes=args.processes, progress=advance)
        rows[name] = found.to_json()
    if not first:
        return
    if folder is not None:
        save_results(agent, rows, folder)
        output.say(f"results and protocol are written to {folder}")
    tell(rows, protocol, agent.recipe, as_json=args.json)


def _protocol(args: Args, agent: Agent) -> AnyProtocol:
    """The protocol that the options mean; a published one sets the agent's planner too."""
    short = {"episodes": args.episodes, "budget": args.budget, "seed": args.seed}
    changes = {name: value for name, value in short.items() if value is not None}
    changes |= pairs(args.set)
    if args.protocol:
        from wm_toolkit.training.protocols import PROTOCOLS

        PROTOCOLS[args.protocol].adopt(agent)
    return protocol_of(agent, changes)


def _own_folder(name: str) -> Path:
    """The artefact that a path means.

    Raises:
        ConfigError: for a catalog or hub name, which is nobody's to write to.
    """
    from wm_toolkit.checkpoint import find_artefact
    from wm_toolkit.errors import ConfigError

    if not Path(name).is_dir():
        raise ConfigError(f"--card writes into a folder of your own, and {name!r} is none")
    return find_artefact(name)


def protocol_of(agent: Agent, changes: Mapping[str, Any] | None = None) -> AnyProtocol:
    """The protocol the agent carries, with some fields replaced.

    Raises:
        ConfigError: if it carries none, or for an unknown field.
    """
    from wm_toolkit.config import override
    from wm_toolkit.errors import ConfigError
    from wm_toolkit.training.config import EvaluationConfig, saved_protocol

    if "evaluation" not in agent.info:
        raise ConfigError("this agent carries no evaluation protocol; train it with `wm train`")
    own = saved_protocol(agent.info["evaluation"])
    if not changes:
        return own
    # A protocol with other numbers is no longer the published one.
    renamed = {"published": ""} if isinstance(own, EvaluationConfig) else {}
    return override(own, {**renamed, **changes})


def goals_from(agent: Agent, protocol: AnyProtocol, name: str) -> TrajectoryDataset | None:
    """The episodes that goals are taken from; None if the environment draws them, or there are none."""
    from wm_toolkit.training.config import ReturnConfig

    if isinstance(protocol, ReturnConfig) or protocol.goals == "env":
        return None
    from wm_toolkit.training.jobs import agent_data, offline_data, open_data

    if not name:
        return agent_data(agent).held_out
    data = open_data(name)
    # The very data it was trained on, at another place: most of its episodes are no news to the agent.
    known = (agent.info.get("data") or {}).get("checksum")
    return offline_data(data, agent.config).held_out if data.checksum == known else data


def tell(
    rows: dict[str, Any], protocol: AnyProtocol, recipe: str, *, as_json: bool = False
) -> None:
    """The rows "model" and those beside it, as one JSON object or as a table under the protocol."""
    from wm_toolkit.agents.card import protocol_text, result_cells, result_head
    from wm_toolkit.config import to_dict

    others = {name: row for name, row in rows.items() if name != "model"}
    if as_json:
        output.emit({**rows["model"], "baselines": others})
        return
    named = {recipe or "agent": rows["model"], **others}
    cells = [result_cells(name, row) for name, row in named.items()]
    known = to_dict(protocol)
    output.show_table(result_head(known), cells, title=protocol_text(known), numbers=True)
