"""What every recipe that plans to goals has in common."""

from __future__ import annotations

import dataclasses

from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal, GoalMode
from wm_toolkit.training.config import OfflineConfig


@dataclasses.dataclass(frozen=True)
class GoalConfig(OfflineConfig):
    """Learns from stored trajectories, plans to goals.

    Attributes:
        planner: the search; by default the one of DINO-WM and LeWorldModel.
        replan_every: action blocks executed of a plan.
        goal_mode: which steps of a plan count.
        haste: how much a plan gains by arriving early, in mode "closest".
    """

    planner: CEM = CEM(horizon=5, samples=300, elites=30, iterations=30)
    replan_every: int = 5
    goal_mode: GoalMode = "last"
    haste: float = 0.2

    def actor(self, model: WorldModel) -> PlanningActor:
        """Plans in a model as configured."""
        goal = Goal(mode=self.goal_mode, haste=self.haste)
        return PlanningActor(model, self.planner, goal, replan_every=self.replan_every)
