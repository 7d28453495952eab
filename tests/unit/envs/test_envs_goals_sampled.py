"""Goals of random actions, what stands at the goal behind an action block, and true dynamics."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.action_block import ActionBlock, VectorActionBlock
from wm_toolkit.envs.goal import GoalReaching, GoalReachingVector
from wm_toolkit.envs.goals import Goals, RandomActionGoals, SegmentGoals, TrueDynamics
from wm_toolkit.envs.rooms import Rooms
from wm_toolkit.envs.two_rooms import TwoRooms, TwoRoomsVector
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.errors import ConfigError
from wm_toolkit.spaces import Spaces

OFFSET, COUNT = 8, 200


@pytest.fixture(scope="module")
def walks():
    recorded = smooth_walks(0, episodes=20, steps=30)
    spaces = Spaces.of(TwoRooms(obs_mode="both"))
    return TrajectoryDataset.from_trajectories(list(recorded.trajectories()), spaces)


def test_random_actions_are_spread_as_the_data_s_and_stay_within_bounds(walks):
    sampler = RandomActionGoals(walks, OFFSET)
    starts, actions = sampler.segments(np.random.default_rng(0), COUNT)
    assert actions.shape == (COUNT, OFFSET, 2)
    assert np.abs(actions).max() <= 1
    known = walks.statistics(["action"])["action"]
    assert actions.mean((0, 1)) == pytest.approx(known.mean, abs=0.1)
    # Clipping to the bounds takes a little of the spread away.
    assert (actions.std((0, 1)) <= known.std).all()
    assert (actions.std((0, 1)) > 0.7 * known.std).all()
    # One action says nothing about the next, unlike those of a walk.
    step, after = actions[:, :-1, 0].ravel(), actions[:, 1:, 0].ravel()
    assert abs(np.corrcoef(step, after)[0, 1]) < 0.1
    recorded, _ = SegmentGoals(walks, OFFSET).segments(np.random.default_rng(0), COUNT)
    np.testing.assert_array_equal(starts, recorded)


def test_the_goal_is_where_the_random_actions_lead(walks):
    env = TwoRoomsVector(5, obs_mode="both")
    goals = RandomActionGoals(walks, OFFSET)(env, np.random.default_rng(4), 5)
    starts, actions = RandomActionGoals(walks, OFFSET).segments(np.random.default_rng(4), 5)
    position, rooms = starts.copy(), Rooms()
    for t in range(OFFSET):
        position = rooms.move(position, actions[:, t])
    np.testing.assert_allclose(goals.state, position)
    np.testing.assert_array_equal(goals.obs["image"], rooms.render(position))


def test_choices_have_no_normal_distribution(walks):
    choices = dataclasses.replace(walks.spaces, action=gym.spaces.Discrete(3))
    other = TrajectoryDataset.from_trajectories(
        [dataclasses.replace(e, action=np.zeros(len(e), np.int64)) for e in list(walks)[:2]],
        choices,
    )
    with pytest.raises(ConfigError, match=r"Box, but actions here are Discrete\(3\)"):
        RandomActionGoals(other, OFFSET)


@pytest.mark.parametrize("vector", [False, True])
def test_at_goal_is_of_the_last_raw_step_and_success_of_any(vector):
    """Two units a step: at the goal after three steps of a block, beyond it after eight."""
    start, goal = np.float32([[10, 10]]), np.float32([[18, 10]])
    tasks = Goals({"image": Rooms().render(goal)}, start, goal)
    if vector:
        env = VectorActionBlock(GoalReachingVector(TwoRoomsVector(1), tasks, budget=50), 8)
    else:
        env = ActionBlock(GoalReaching(TwoRooms(), tasks, budget=50), 8)
    _, info = env.reset(seed=0)
    assert not np.any(info["at_goal"])
    right = np.tile(np.float32([1, 0]), 8)
    *_, info = env.step(right[None] if vector else right)
    assert np.all(info["success"])
    assert not np.any(info["at_goal"])
    assert np.all(info["success_step"] == 2)


def test_an_environment_knows_its_own_layout(walks):
    doors = (20.0,)
    env = TwoRooms(doors=doors)
    assert isinstance(env, TrueDynamics)
    assert not isinstance(gym.make("CartPole-v1").unwrapped, TrueDynamics)
    model, shown = env.true_dynamics(Spaces.of(TwoRooms()).blocked(2))
    assert model.rooms == Rooms(doors=doors)
    assert shown == {"obs_mode": "both"}
    assert model.spaces.block == 2
    assert set(model.spaces.observation) == {"position"}
