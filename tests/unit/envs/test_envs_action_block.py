"""Action blocks: k raw actions in one, and nothing merged that must stay apart."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces as gs

from wm_toolkit.envs.action_block import ActionBlock, VectorActionBlock, split_block
from wm_toolkit.envs.goal import GoalReachingVector
from wm_toolkit.envs.goals import Goals
from wm_toolkit.envs.two_rooms import TwoRooms, TwoRoomsVector
from wm_toolkit.spaces import block_space


class Counter(gym.Env):
    """Counts steps; the reward is the action's first number; ends at a limit; succeeds at one step."""

    observation_space = gs.Box(0, 1000, (1,), np.float32)
    action_space = gs.Box(-1, 1, (2,), np.float32)

    def __init__(self, limit: int = 100, ends: str = "terminated", success_at: int = 3) -> None:
        self.limit, self.ends, self.success_at, self.count = limit, ends, success_at, 0

    def _out(self):
        return np.float32([self.count]), {"success": self.count == self.success_at}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._out()

    def step(self, action):
        self.count += 1
        obs, info = self._out()
        over = self.count >= self.limit
        ends = (over and self.ends == "terminated", over and self.ends == "truncated")
        return obs, float(action[0]), *ends, info


@pytest.mark.parametrize(
    "space",
    [
        gs.Box(-1, 1, (2,)),
        gs.Box(0, 1, (2, 3)),
        gs.Discrete(4, start=2),
        gs.MultiDiscrete([2, 5]),
        gs.MultiBinary(3),
    ],
)
def test_a_block_splits_into_the_actions_it_was_made_of(space):
    space.seed(0)
    raw = [space.sample() for _ in range(3)]
    block = np.concatenate([np.ravel(action) for action in raw])
    assert block_space(space, 3).contains(block.astype(block_space(space, 3).dtype))
    parts = split_block(space, np.stack([block, block]), 3)
    for action, part in zip(raw, parts[1]):
        np.testing.assert_array_equal(action, part)
        assert part.dtype == space.dtype


def test_rewards_add_up_and_any_success_counts():
    env = ActionBlock(Counter(), 5)
    env.reset()
    block = np.float32([[0.1, 0], [0.2, 0], [0.3, 0], [0, 0], [0.4, 0]]).ravel()
    obs, reward, terminated, truncated, info = env.step(block)
    assert obs.tolist() == [5]
    assert reward == pytest.approx(1.0)
    assert (terminated, truncated) == (False, False)
    assert info == {"success": True, "raw_steps": 5}
    assert env.step(block)[4]["success"] is False


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_a_block_stops_where_the_episode_ends_and_says_how(ends):
    env = ActionBlock(Counter(limit=7, ends=ends), 5)
    env.reset()
    env.step(np.ones(10, np.float32))
    obs, reward, terminated, truncated, info = env.step(np.ones(10, np.float32))
    assert (obs[0], reward, info["raw_steps"]) == (7, 2.0, 2)
    assert (terminated, truncated) == (ends == "terminated", ends == "truncated")


@pytest.mark.parametrize("block", [1, 3])
def test_the_vector_equals_single_blocks(block):
    goals = [[12.0, 10.0], [40.0, 40.0]]
    start = [[10.0, 10.0], [41.0, 30.0]]
    envs = VectorActionBlock(TwoRoomsVector(2, obs_mode="position"), block)
    envs.reset(options={"state": start, "goal": goals})
    singles = [ActionBlock(TwoRooms(obs_mode="position"), block) for _ in range(2)]
    for env, here, there in zip(singles, start, goals):
        env.reset(options={"state": here, "goal": there})
    rng = np.random.default_rng(0)
    for _ in range(6):
        actions = rng.uniform(-1, 1, (2, 2 * block)).astype(np.float32)
        obs, reward, _, _, info = envs.step(actions)
        for row, env in enumerate(singles):
            one = env.step(actions[row])
            np.testing.assert_array_equal(obs[row], one[0])
            assert reward[row] == one[1]
            if block > 1:
                assert info["success"][row] == one[4]["success"]
            assert info["raw_steps"][row] == one[4]["raw_steps"]


def make_counters(limits, **kwargs):
    return gym.vector.SyncVectorEnv([lambda n=n: Counter(limit=n, **kwargs) for n in limits])


def test_a_row_that_ends_inside_a_block_keeps_its_end_and_starts_anew_on_the_next_step():
    envs = VectorActionBlock(make_counters([4, 100]), 3)
    envs.reset(seed=0)
    ones = np.ones((2, 6), np.float32)
    seen = [envs.step(ones) for _ in range(4)]
    assert [obs[:, 0].tolist() for obs, *_ in seen] == [[3, 3], [4, 6], [0, 9], [3, 12]]
    assert [reward.tolist() for _, reward, *_ in seen] == [[3, 3], [1, 3], [0, 3], [3, 3]]
    assert [ended.tolist() for _, _, ended, *_ in seen] == [
        [False, False],
        [True, False],
        [False, False],
        [False, False],
    ]
    assert [info["raw_steps"].tolist() for *_, info in seen] == [[3, 3], [1, 3], [0, 3], [3, 3]]


def test_blocks_around_goal_reaching_count_raw_steps():
    position = np.float32([[10, 10], [10, 40]])
    goal = np.float32([[18, 10], [50, 40]])
    envs = TwoRoomsVector(2, obs_mode="position")
    tasks = Goals({"vector": goal}, position, goal)
    envs = VectorActionBlock(GoalReachingVector(envs, tasks, budget=10), 5)
    envs.reset(seed=0)
    right = np.tile(np.float32([1, 0]), (2, 5))
    *_, info = envs.step(right)
    assert info["success_step"].tolist() == [2, -1]
    *_, truncated, info = envs.step(right)
    assert truncated.tolist() == [True, True]
    obs, *_, info = envs.step(right)
    np.testing.assert_array_equal(obs["vector"], position)
    assert info["success_step"].tolist() == [-1, -1]
