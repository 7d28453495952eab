"""How DINO-WM was measured (Zhou et al. 2025, and its released planning configurations)."""

from __future__ import annotations

from wm_toolkit.planning.cem import CEM
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.protocols import Protocol, register

FRAME_SKIP, BLOCKS = 5, 5
PLANS = 10
"""Plans of 25 steps that an episode may take; published is "until every episode has succeeded"."""

DEVIATION = (
    f"the published planner goes on until all 50 goals are reached and stops early inside a search by "
    f"looking at the real environment; here the budget is {PLANS} plans, and no search sees the "
    "environment. Its success is the one at replans. Environment seeds are 99 + n instead of 99 n + 1"
)


def _planner(iterations: int) -> CEM:
    return CEM(horizon=BLOCKS, samples=300, elites=30, iterations=iterations)


def _evaluation(**fields: object) -> EvaluationConfig:
    return EvaluationConfig(
        episodes=50,
        seed=99,
        goal_offset=FRAME_SKIP * BLOCKS,
        budget=PLANS * FRAME_SKIP * BLOCKS,
        frame_skip=FRAME_SKIP,
        **fields,  # type: ignore[arg-type]
    )


register(
    Protocol(
        name="dino_wm.pusht",
        summary="DINO-WM on Push-T: goals 25 steps ahead in held-out episodes, CEM 300x30, alpha 1",
        env="pusht",
        evaluation=_evaluation(),
        planner=_planner(30),
        replan_every=BLOCKS,
        alpha=1.0,
        deviation=DEVIATION,
    ),
    Protocol(
        name="dino_wm.point_maze",
        summary="DINO-WM on PointMaze: the environment's own goals, CEM 300x10, alpha 0",
        env="pointmaze",
        evaluation=_evaluation(goals="env"),
        planner=_planner(10),
        replan_every=BLOCKS,
        alpha=0.0,
        deviation=DEVIATION,
    ),
    Protocol(
        name="dino_wm.wall",
        summary="DINO-WM on Wall: goals in the opposite room, CEM 300x10, alpha 1",
        env="tworooms",
        evaluation=_evaluation(goals="env", goal_options={"goal_room": "opposite"}),
        planner=_planner(10),
        replan_every=BLOCKS,
        alpha=1.0,
        deviation=DEVIATION + "; TwoRooms stands for Wall (same success distance, other layout)",
    ),
)
