"""Published ways to measure planning, by name: `PROTOCOLS["lewm.pusht"].adopt(agent)`.

A protocol is more than an `EvaluationConfig`: how long a plan is, how it is searched and how much of it is
executed belong to the number. Success is the environment's own test. Where a published protocol cannot be
kept (most have no finite budget), `deviation` says what is done instead.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.config import from_dict, override, to_dict
from wm_toolkit.errors import ConfigError
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal, GoalMode
from wm_toolkit.registry import Registry
from wm_toolkit.training.config import EvaluationConfig

OF_THE_DATA = ("env", "env_options", "state_key", "split", "holdout", "split_seed", "group")
"""Fields of an `EvaluationConfig` that a published protocol leaves to the agent that adopts it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One published protocol.

    Attributes:
        name: "lewm.pusht".
        summary: one line: whose it is and what it asks for.
        env: what the id of the environment or its options must contain, in any case: "pusht".
        evaluation: episodes, goals, budget, seed and frame skip.
        planner: the search.
        replan_every: action blocks executed of a plan.
        goal_mode: which steps of a plan count.
        alpha: weight of proprioception in the distance, for models that have one; None leaves it.
        deviation: where it differs from what was published; "" for nowhere known.

    Example:
        >>> agent = Agent.from_pretrained("runs/lewm")
        >>> PROTOCOLS["lewm.pusht"].adopt(agent)
        >>> evaluate(agent, held_out).success_rate
    """

    name: str
    summary: str
    env: str
    evaluation: EvaluationConfig
    planner: CEM
    replan_every: int
    goal_mode: GoalMode = "last"
    alpha: float | None = None
    deviation: str = ""

    def evaluation_for(self, own: EvaluationConfig) -> EvaluationConfig:
        """This protocol's evaluation on the data and environment of another.

        Raises:
            ConfigError: if that environment is none this protocol speaks of, or the frame skip differs.
        """
        where = f"{own.env} {dict(own.env_options)}"
        if self.env not in where.lower():
            raise ConfigError(
                f"protocol {self.name!r} measures in an environment {self.env!r}, the agent was made for "
                f"{where}"
            )
        if own.frame_skip != self.evaluation.frame_skip:
            raise ConfigError(
                f"protocol {self.name!r} decides every {self.evaluation.frame_skip} steps, the agent "
                f"every {own.frame_skip}; train it with frame_skip={self.evaluation.frame_skip}"
            )
        kept = {field: getattr(own, field) for field in OF_THE_DATA}
        return dataclasses.replace(self.evaluation, **kept, published=self.name)

    def adopt(self, agent: Agent) -> EvaluationConfig:
        """Let an agent plan and be measured in this way; it is saved so, too.

        An agent that does not plan keeps acting as it does.

        Returns:
            the evaluation, which the agent carries from now on.

        Raises:
            ConfigError: if it does not suit the agent.
        """
        if "evaluation" not in agent.info:
            raise ConfigError("this agent does not say which environment it was made for")
        own = from_dict(EvaluationConfig, agent.info["evaluation"])
        evaluation = self.evaluation_for(own)
        agent.info["evaluation"] = to_dict(evaluation)
        if isinstance(agent.actor, PlanningActor):
            self._plan_with(agent)
        return evaluation

    def _plan_with(self, agent: Agent) -> None:
        settings: dict[str, Any] = {
            "planner": self.planner,
            "replan_every": self.replan_every,
            "goal_mode": self.goal_mode,
        }
        model: Any = agent.model
        if self.alpha is not None and hasattr(model, "alpha"):
            model.alpha = settings["alpha"] = self.alpha
        agent.actor = PlanningActor(
            model, self.planner, Goal(mode=self.goal_mode), replan_every=self.replan_every
        )
        if dataclasses.is_dataclass(agent.config):
            # The artefact is built again from its config.
            known = {field.name for field in dataclasses.fields(agent.config)}
            agent.config = override(agent.config, {k: settings[k] for k in known & settings.keys()})


PROTOCOLS: Registry[Protocol] = Registry("protocol", "wm_toolkit.training.protocols")
"""Protocols by name; a new module in this package adds its own."""


def register(*protocols: Protocol) -> None:
    """Make protocols known by their names."""
    for protocol in protocols:
        PROTOCOLS.register(protocol.name, protocol)
