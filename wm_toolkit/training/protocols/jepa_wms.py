"""How JEPA-WMs were measured in simulation (Terver et al. 2025, and their released configurations)."""

from __future__ import annotations

from typing import Literal

from wm_toolkit.planning.cem import CEM
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.protocols import Protocol, register

FRAME_SKIP, BLOCKS = 5, 6

DEVIATION = (
    "the budget is the one plan of 30 steps that is executed, which is how far away a recorded goal lies; "
    "the published planner passes 2 frames, here the model's own context counts"
)


def _jepa_wms(
    name: str, env: str, goals: Literal["dataset", "env"], **goal_options: str
) -> Protocol:
    where = "30 steps ahead" if goals == "dataset" else "of the environment"
    return Protocol(
        name=f"jepa_wms.{name}",
        summary=f"JEPA-WMs: 96 goals {where}, one plan of 6 blocks, CEM 300x30 with 10 elites",
        env=env,
        evaluation=EvaluationConfig(
            episodes=96,
            seed=1,
            goals=goals,
            goal_offset=FRAME_SKIP * BLOCKS,
            budget=FRAME_SKIP * BLOCKS,
            frame_skip=FRAME_SKIP,
            goal_options=dict(goal_options),
        ),
        planner=CEM(horizon=BLOCKS, samples=300, elites=10, iterations=30),
        replan_every=BLOCKS,
        alpha=0.1,
        deviation=DEVIATION,
    )


register(
    _jepa_wms("pusht", "pusht", "dataset"),
    _jepa_wms("point_maze", "pointmaze", "env"),
    _jepa_wms("wall", "tworooms", "env", goal_room="opposite"),
)
