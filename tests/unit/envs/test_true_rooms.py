"""The exact model of TwoRooms moves as the environment does."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.envs.registration import register_envs
from wm_toolkit.envs.true_rooms import Place, TrueRooms
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal
from wm_toolkit.spaces import Spaces


def spaces(block=5):
    register_envs()
    with gym.make("wm_toolkit/TwoRooms-v0", obs_mode="position") as env:
        found = Spaces.of(env)
    return Spaces({"position": found.observation["vector"]}, found.action).blocked(block)


def test_a_dream_is_what_the_environment_does(rng):
    model = TrueRooms(spaces())
    actions = torch.rand(8, 1, 6, 10, generator=rng) * 2.4 - 1.2
    starts = model.rooms.sample(np.random.default_rng(0), 8)
    dream = model.rollout(Place(torch.from_numpy(starts)), actions)
    envs = gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=8, obs_mode="position")
    envs.reset(seed=0, options={"position": starts})
    for block in range(6):
        for raw in model.spaces.decode_action(actions[:, 0, block]).reshape(8, 5, 2).swapaxes(0, 1):
            seen, *_ = envs.step(raw)
        np.testing.assert_array_equal(seen, dream.position[:, 0, block])


def test_cem_in_the_true_dynamics_walks_straight_to_a_goal_in_the_same_room(rng):
    model = TrueRooms(spaces())
    state = Place(torch.tensor([[12.0, 12.0]]))
    goal = Goal().bind(model, {"goal/position": torch.tensor([[22.0, 40.0]])})
    plan = CEM(horizon=5, samples=128, elites=16, iterations=6).plan(
        model, state, goal, generator=rng
    )
    end = model.rollout(state, plan.actions[:, None]).position[0, 0, -1]
    assert (end - torch.tensor([22.0, 40.0])).norm() < 1.5
