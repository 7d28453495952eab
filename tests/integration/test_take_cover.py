"""TakeCover: World Models learns V, M and C from VizDoom's own frames, C in the dream alone."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vizdoom")
pytest.importorskip("cma")

from wm_toolkit.registry import recipe_config
from wm_toolkit.training.returns import evaluate_returns
from wm_toolkit.training.stages import train_in_stages

TINY = {
    "depth": 2,
    "width": 16,
    "latent": 8,
    "rollouts": 2,
    "rollout_steps": 30,
    "envs": 1,
    "vision_updates": 3,
    "vision_batch": 8,
    "memory_updates": 3,
    "sequence": 12,
    "population": 4,
    "horizon": 10,
    "starts": 2,
    "remeasure": 1,
    "train__updates": 8,
    "train__batch_size": 2,
    "evaluation__episodes": 1,
}


def test_a_controller_of_the_dream_plays_the_real_game(tmp_path):
    config = recipe_config("world_models.take_cover", **TINY)
    agent, result = train_in_stages(
        "world_models.take_cover", config, "VizdoomTakeCover-v1", tmp_path
    )
    assert result.update == 8
    learner: Any = agent.learner
    assert 0 < learner.stages[-1].learner.champion <= 10  # steps alive in the dream
    played = evaluate_returns(agent)
    assert played.episodes == 1
    assert played.return_mean == played.length_mean > 0  # it is paid for every step alive
