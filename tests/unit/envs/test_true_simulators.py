"""Simulators as world models: they dream what happens, and a search in them reaches goals."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from wm_toolkit.envs.goals import TrueDynamics
from wm_toolkit.envs.headless import prepare_headless
from wm_toolkit.envs.make import make
from wm_toolkit.envs.true_model import Place
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal
from wm_toolkit.spaces import Spaces

prepare_headless()

KNOWN = {
    "point maze": ("wm_toolkit/PointMaze-v0", {"maze": "open", "obs_mode": "state"}),
    "point maze of OGBench": ("wm_toolkit/OGBench-v0", {"obs_mode": "state"}),
    "cube": ("wm_toolkit/OGBench-v0", {"obs_mode": "state", "task": "cube-single-v0"}),
    "reacher": ("dmc/reacher-easy", {"obs_mode": "state", "action_repeat": 3}),
}


@functools.cache
def made(which: str) -> Any:
    """One of each for the whole file: an arm takes seconds to build."""
    name, options = KNOWN[which]
    return make(name, **options).unwrapped


@pytest.fixture(params=list(KNOWN))
def env(request):
    return made(request.param)


def test_what_it_dreams_is_what_happens(env, rng):
    promised: object = env
    assert isinstance(promised, TrueDynamics)
    spaces = Spaces.of(env).blocked(2)
    model, shown = env.true_dynamics(spaces)
    assert shown["obs_mode"] == "state"
    obs, _ = env.reset(seed=4)
    seen = {key: torch.as_tensor(value)[None] for key, value in obs.items()}
    width = int(np.prod(env.action_space.shape))
    start = model.observe(model.initial(1), torch.zeros(1, 2 * width), seen)
    plan = torch.rand(1, 1, 3, 2 * width, generator=rng) * 2 - 1
    dream = model.rollout(start, plan)
    for block, raw in enumerate(plan[0, 0].reshape(3, 2, width)):
        for action in spaces.decode_action(raw.flatten()[None]).reshape(2, width):
            env.step(action)
        happened = model.features(Place(torch.from_numpy(env.get_state())))
        torch.testing.assert_close(model.features(dream)[0, 0, block], happened)


def test_features_are_near_where_success_is_and_nothing_else_counts(env):
    model, _ = env.true_dynamics(Spaces.of(env))
    env.reset(seed=1)
    goal = env.get_state()
    slow = goal.copy()
    slow[env.base.model.nq if hasattr(env, "base") else 2 :] = 0  # at rest
    pair = model.features(Place(torch.from_numpy(np.stack([goal, slow]))))
    torch.testing.assert_close(pair[0], pair[1])
    assert env.is_success(slow, goal)


def test_a_search_in_the_simulator_comes_to_where_known_actions_lead(rng):
    env = made("reacher")
    model, _ = env.true_dynamics(Spaces.of(env).blocked(4))
    obs, _ = env.reset(seed=0)
    seen = {key: torch.as_tensor(value)[None] for key, value in obs.items()}
    state = model.observe(model.initial(1), torch.zeros(1, 8), seen)
    there = model.rollout(state, torch.rand(1, 1, 3, 8, generator=rng) * 2 - 1).position[:, 0, -1]
    told = torch.cat([there[:, :2], torch.zeros(1, 2), there[:, 2:4]], -1)
    goal = Goal().bind(model, {"goal/proprio": told})
    search = CEM(horizon=3, samples=100, elites=10, iterations=8)
    plan = search.plan(model, state, goal, generator=rng)
    wanted = model.features(Place(there))
    end = model.features(model.rollout(state, plan.actions[:, None]))[:, 0, -1]
    assert (model.features(state) - wanted).norm() > 0.3
    assert (end - wanted).norm() < 0.05
