"""What stands beside every number: the random policy, and the same search with nothing left to learn."""

from __future__ import annotations

import dataclasses

from wm_toolkit.agents.actors import PlanningActor, RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.config import to_dict
from wm_toolkit.envs.goals import TrueDynamics
from wm_toolkit.envs.make import make
from wm_toolkit.errors import ConfigError
from wm_toolkit.planning.objective import Goal
from wm_toolkit.training.config import ProtocolConfig, saved_protocol


def contenders(agent: Agent, *, with_oracle: bool = True) -> dict[str, Agent]:
    """Who is measured: "model", "random" and, where there is one, "oracle".

    Each carries the protocol of `agent`; the oracle's also shows what the true dynamics observe.

    Args:
        agent: the model's.
        with_oracle: leave it out where the search would take a simulator too long.
    """
    rows = {"model": agent, "random": random_agent(agent)}
    wanted = with_oracle and has_oracle(agent)
    return rows | ({"oracle": oracle_agent(agent)} if wanted else {})


def random_agent(agent: Agent) -> Agent:
    """The uniformly random baseline with the spaces of `agent`."""
    other = Agent(agent.model, RandomActor(agent.model))
    # It has learnt nothing, so updates and steps are not its own.
    learnt = ("training", "experience")
    other.info = {name: fact for name, fact in agent.info.items() if name not in learnt}
    return other


def has_oracle(agent: Agent) -> bool:
    """Whether an agent plans for goals in an environment that knows its own dynamics."""
    protocol = saved_protocol(agent.info["evaluation"])
    return _goal_planner(agent) is not None and _true_dynamics(protocol) is not None


def oracle_agent(agent: Agent) -> Agent:
    """The agent's own search and objective in the true dynamics of its environment.

    Raises:
        ConfigError: if the agent does not plan for a goal, or nobody knows the true dynamics.
    """
    actor, protocol = _goal_planner(agent), saved_protocol(agent.info["evaluation"])
    if actor is None:
        raise ConfigError("an oracle needs an agent that plans for a Goal")
    env = _true_dynamics(protocol)
    if env is None:
        raise ConfigError(f"{protocol.env!r} has no true_dynamics, so there is no oracle for it")
    model, shown = env.true_dynamics(agent.spaces)
    search = PlanningActor(
        model,
        actor.planner,
        actor.objective,
        replan_every=actor.replan_every,
        warm_start=actor.warm_start,
    )
    other = Agent(model, search)
    options = {**protocol.env_options, **shown}
    protocol = dataclasses.replace(protocol, env_options=options)
    other.info = {**agent.info, "evaluation": to_dict(protocol)}
    return other


def _goal_planner(agent: Agent) -> PlanningActor | None:
    actor = agent.actor
    if isinstance(actor, PlanningActor) and isinstance(actor.objective, Goal):
        return actor
    return None


def _true_dynamics(protocol: ProtocolConfig) -> TrueDynamics | None:
    """The protocol's environment, if there is one and it knows its own dynamics."""
    if not protocol.env:
        return None
    env = make(protocol.env, **protocol.env_options)
    env.close()
    return env.unwrapped if isinstance(env.unwrapped, TrueDynamics) else None
