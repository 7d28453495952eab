"""Every model of the latent-imagination family can be looked at, entered and searched."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from dreamer_toys import SPACES, sequences
from gymnasium.utils.env_checker import check_env

from wm_toolkit import build
from wm_toolkit.envs.imagined import WorldModelEnv
from wm_toolkit.planning.categorical import CategoricalCEM
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.icem import ICEM
from wm_toolkit.planning.mppi import MPPI
from wm_toolkit.planning.objective import Reward, Survival
from wm_toolkit.planning.shooting import RandomShooting
from wm_toolkit.render.dream_page import dream_sections
from wm_toolkit.render.dreams import look

FAMILY = [
    *(
        (f"{name}.nano", space)
        for name in ("planet", "dreamer_v1")
        for space in ("vector", "image")
    ),
    *((f"{name}.nano", space) for name in ("dreamer_v2", "dreamer_v3") for space in SPACES),
    ("world_models.small", "image"),
]
PLANNERS: list[Any] = [CEM(horizon=3), ICEM(horizon=3), MPPI(horizon=3)]


@pytest.fixture(params=FAMILY, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def member(request):
    """A fresh model, sequences for it, and what it can be asked for."""
    recipe, space = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(recipe, SPACES[space]).model.eval()
    batch = sequences(SPACES[space], torch.Generator().manual_seed(0), length=7)
    objective = Reward(gamma=None) if "reward" in model.heads else Survival()
    return model, batch, objective


def test_its_dreams_can_be_looked_at(member):
    model, batch, _ = member
    found = look(model, batch, context=2)
    numbers = found.dreams.metrics()
    assert numbers["dream/latent_error/5"] > 0
    assert np.isfinite(list(numbers.values())).all()
    drawn = dict(found.dreams.observations)
    assert drawn.keys() == model.spaces.observation.keys()
    images = [key for key, value in batch.obs.items() if value.dtype == torch.uint8]
    assert list(found.strips) == list(found.films) == images
    page = dream_sections(found)
    assert page.count("data:image/gif") == len(images)
    heads = {"reward": "Reward (R2", "continue": "Going on (calibration"}
    for head, title in heads.items():
        assert (title in page) == (head in model.heads)


@pytest.mark.parametrize("observation", ["features", "decoded"])
def test_its_dream_is_an_environment(member, observation):
    model, batch, objective = member
    options: dict[str, Any] = {"objective": objective, "starts": batch, "observation": observation}
    check_env(WorldModelEnv(model, horizon=4, **options), skip_render_check=True)


def test_any_planner_searches_it(member):
    model, batch, objective = member
    with torch.no_grad():
        state = model.observe_sequence(batch, generator=torch.Generator().manual_seed(0))[:, -1]
    for planner in searchers(model.spaces.discrete):
        plan = planner.plan(model, state, objective, generator=torch.Generator().manual_seed(0))
        assert plan.actions.shape == (len(batch), 3, model.spaces.action_width)
        assert plan.score.isfinite().all()


def searchers(discrete: bool) -> list[Any]:
    """Small searches for the kind of action."""
    shooting = RandomShooting(horizon=3, samples=8)
    if discrete:
        return [shooting, CategoricalCEM(horizon=3, samples=8, iterations=2, elites=4)]
    small = [dataclasses.replace(p, samples=8, iterations=2, elites=4) for p in PLANNERS]
    return [*small, shooting, GradientPlanner(horizon=3, samples=2, iterations=2)]
