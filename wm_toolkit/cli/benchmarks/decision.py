"""What warm start and early stop save of a decision, and whether they cost successes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.cli.benchmarks import Case, benchmark
from wm_toolkit.cli.eval import goals_from
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Objective
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.evaluate import Evaluation, checked_protocol, evaluate

AGENT, HORIZON = "lewm-tworooms", 5


@benchmark("decision")
def run(quick: bool) -> Iterator[Case]:
    """CPU milliseconds per decision in TwoRooms: the search that stops early beside the full one."""
    agent = Agent.from_pretrained(AGENT)
    protocol = checked_protocol(agent, None, EvaluationConfig)
    protocol = dataclasses.replace(protocol, episodes=4 if quick else 100)
    held_out = goals_from(agent, protocol, "")

    def reached(planner: CEM, warm_start: bool) -> Evaluation:
        actor = PlanningActor(
            agent.model, planner, _objective(agent), replan_every=1, warm_start=warm_start
        )
        return evaluate(Agent(agent.model, actor, agent.learner), held_out, protocol)

    full = reached(CEM(horizon=HORIZON), warm_start=False)
    for precision in ("float32", "bf16"):
        fast = reached(CEM.fast(HORIZON, precision=precision), warm_start=True)
        yield Case(
            f"{AGENT}, {protocol.episodes} goals, CEM.fast, {precision}",
            "CPU ms",
            fast.decision_cpu_ms,
            peer_name="all 30 iterations, no warm start",
            peer=full.decision_cpu_ms,
            wall=fast.decision_ms,
            peer_wall=full.decision_ms,
            note=f"success {_share(fast)}; with all iterations {_share(full)}",
        )


def _objective(agent: Agent) -> Objective:
    """What the agent's planner looks for."""
    assert isinstance(agent.actor, PlanningActor)
    return agent.actor.objective


def _share(found: Evaluation) -> str:
    """Successes with their 95 % interval, and how far the goals were."""
    low, high = found.interval
    steps = "-" if found.steps_to_goal is None else f"{found.steps_to_goal:.1f}"
    return f"{found.success_rate:.0%} ({low:.0%} to {high:.0%}) in {steps} steps"
