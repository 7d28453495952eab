"""Goals: where they come from, and what success, termination and budget mean."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from PIL import Image
from stable_baselines3.common.env_checker import check_env as check_sb3

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.goal import GoalReaching, GoalReachingVector
from wm_toolkit.envs.goals import EnvGoals, Goals, ImageGoals, SegmentGoals, replay
from wm_toolkit.envs.two_rooms import TwoRooms, TwoRoomsVector
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.errors import ConfigError, DataError, MissingGoalError
from wm_toolkit.spaces import Spaces

WALKS = smooth_walks(0, episodes=6, steps=30)


@pytest.fixture(scope="module")
def data() -> TrajectoryDataset:
    spaces = Spaces.of(TwoRooms(obs_mode="both"))
    return TrajectoryDataset.from_trajectories(WALKS.trajectories(), spaces, name="walks")


def tasks(*pairs) -> Goals:
    start, goal = (np.float32(side) for side in zip(*pairs))
    return Goals({"vector": goal}, start, goal)


def stay(env):
    return env.step(np.zeros(2, np.float32))


def test_segments_start_and_end_where_the_data_did(data):
    sampler = SegmentGoals(data, offset=25)
    env = TwoRooms(obs_mode="image")
    for seed in range(5):
        starts, actions = sampler.segments(np.random.default_rng(seed), 1)
        goals = sampler(env, np.random.default_rng(seed), 1)
        episode, row = np.argwhere((WALKS.position == starts).all(-1))[0]
        np.testing.assert_array_equal(actions[0], WALKS.action[episode, row : row + 25])
        assert goals.state is not None
        np.testing.assert_array_equal(goals.state[0], WALKS.position[episode, row + 25])
        np.testing.assert_array_equal(
            goals.obs["image"][0], WALKS.rooms.render(WALKS.position[episode, row + 25])
        )


def test_segments_replayed_in_a_batch_and_one_by_one_are_equal(data):
    starts, actions = SegmentGoals(data, offset=10).segments(np.random.default_rng(0), 7)
    batch_obs, batch_state = replay(TwoRoomsVector(7), starts, actions)
    single_obs, single_state = replay(TwoRooms(), starts, actions)
    np.testing.assert_array_equal(batch_state, single_state)
    np.testing.assert_array_equal(batch_obs["image"], single_obs["image"])


def test_every_segment_that_fits_can_be_drawn(data):
    sampler = SegmentGoals(data.select([0, 1]), offset=28)
    starts, _ = sampler.segments(np.random.default_rng(0), 400)
    possible = {tuple(p) for p in WALKS.position[:2, :3].reshape(-1, 2)}
    assert {tuple(p) for p in starts} == possible


def test_a_hundred_goals_are_one_batch(data):
    envs = gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=100)
    envs = GoalReachingVector(envs, SegmentGoals(data, offset=25), budget=50)
    obs, info = envs.reset(seed=3)
    assert envs.observation_space.contains(obs)
    np.testing.assert_array_equal(obs["image"], WALKS.rooms.render(info["position"]))
    np.testing.assert_array_equal(obs["goal/image"], WALKS.rooms.render(info["goal_state"]))
    np.testing.assert_array_equal(info["goal"], info["goal_state"])
    _, info_again = envs.reset(seed=3)
    np.testing.assert_array_equal(info["goal_state"], info_again["goal_state"])
    _, info_other = envs.reset()
    assert not np.array_equal(info["goal_state"], info_other["goal_state"])


def test_the_environments_own_goals_keep_its_options():
    single = GoalReaching(TwoRooms(), EnvGoals({"goal_room": "opposite"}), budget=9)
    batch = GoalReachingVector(TwoRoomsVector(8), EnvGoals({"goal_room": "same"}), budget=9)
    obs, info = single.reset(seed=0)
    assert single.env.rooms.room(info["position"]) != single.env.rooms.room(info["goal_state"])
    np.testing.assert_array_equal(obs["goal/image"], WALKS.rooms.render(info["goal_state"]))
    obs, info = batch.reset(seed=0)
    room = WALKS.rooms.room
    np.testing.assert_array_equal(room(info["position"]), room(info["goal_state"]))
    np.testing.assert_array_equal(obs["goal/image"], WALKS.rooms.render(info["goal_state"]))


def test_an_image_file_is_a_goal_when_success_is_given(tmp_path):
    goal = np.float32([40, 40])
    picture = WALKS.rooms.render(goal)
    Image.fromarray(picture).save(tmp_path / "goal.png")

    def near(env, info):
        return WALKS.rooms.is_success(info["position"], goal)

    env = GoalReaching(TwoRooms(), ImageGoals(tmp_path / "goal.png"), budget=5, success=near)
    obs, info = env.reset(seed=0, options={"position": [41, 41]})
    np.testing.assert_array_equal(obs["goal/image"], picture)
    assert info["success"] is True
    assert "goal_state" not in info
    env = GoalReaching(TwoRooms(), ImageGoals([picture]), budget=5)
    with pytest.raises(MissingGoalError, match="success must be given"):
        env.reset(seed=0)
    with pytest.raises(MissingGoalError, match=r"nowhere\.png cannot be read"):
        GoalReaching(TwoRooms(), ImageGoals("nowhere.png"), budget=5).reset(seed=0)


def test_a_callable_gives_goals():
    def corner(env, rng, count):
        state = np.tile(np.float32([8, 8]), (count, 1))
        return Goals({"image": env.rooms.render(state)}, state=state)

    env = GoalReaching(TwoRooms(), corner, budget=5)
    obs, info = env.reset(seed=0)
    np.testing.assert_array_equal(info["goal"], [8, 8])
    np.testing.assert_array_equal(obs["goal/image"], WALKS.rooms.render(np.float32([8, 8])))


def test_success_is_not_termination_unless_asked():
    task = tasks(([10, 10], [14.4, 10]))
    for ends in (False, True):
        env = GoalReaching(TwoRooms(obs_mode="position"), task, budget=3, terminate_on_success=ends)
        _, info = env.reset(seed=0)
        assert (info["success"], info["success_step"]) == (True, 0)
        _, reward, terminated, truncated, info = stay(env)
        assert (reward, terminated, truncated, info["success_step"]) == (1.0, ends, False, 0)


def test_the_first_success_is_remembered_in_raw_steps():
    env = GoalReaching(TwoRooms(obs_mode="position"), tasks(([10, 10], [18, 10])), budget=20)
    env.reset(seed=0)
    steps = [env.step(np.float32([1, 0]))[4] for _ in range(8)]
    assert [info["success_step"] for info in steps] == [-1] + [2] * 7
    assert [info["success"] for info in steps] == [False] + [True] * 5 + [False] * 2


def test_a_budget_truncates_and_must_be_finite():
    env = GoalReaching(TwoRooms(obs_mode="position"), tasks(([10, 10], [50, 10])), budget=4)
    env.reset(seed=0)
    assert [stay(env)[2:4] for _ in range(4)] == [(False, False)] * 3 + [(False, True)]
    for budget in (None, float("inf"), 0, 2.5):
        with pytest.raises(ConfigError, match=r"budget is .*finite"):
            GoalReaching(TwoRooms(), EnvGoals(), budget=budget)  # type: ignore[arg-type]


def test_tasks_of_a_list_come_in_turn_and_a_seed_starts_over():
    pairs = [([10, 10 + i], [50, 50]) for i in range(3)]
    env = GoalReaching(TwoRooms(obs_mode="position"), tasks(*pairs), budget=4)
    starts = [env.reset(seed=seed)[0]["vector"][1] for seed in (0, None, None, None, 7)]
    assert starts == [10, 11, 12, 10, 10]
    envs = GoalReachingVector(TwoRoomsVector(2, obs_mode="position"), tasks(*pairs), budget=4)
    starts = [envs.reset(seed=seed)[0]["vector"][:, 1].tolist() for seed in (0, None, 0)]
    assert starts == [[10, 11], [12, 10], [10, 11]]


def test_the_vector_equals_single_wrappers_and_restarts_its_tasks():
    pairs = [([10, 10], [14.4, 10]), ([10, 20], [18, 20]), ([10, 40], [50, 40])]
    kwargs = {"budget": 5, "terminate_on_success": True}
    envs = GoalReachingVector(TwoRoomsVector(3, obs_mode="position"), tasks(*pairs), **kwargs)
    singles = gym.vector.SyncVectorEnv(
        [
            lambda pair=pair: GoalReaching(TwoRooms(obs_mode="position"), tasks(pair), **kwargs)
            for pair in pairs
        ]
    )
    assert envs.observation_space == singles.observation_space
    (a, info_a), (b, info_b) = envs.reset(seed=0), singles.reset(seed=0)
    for _ in range(13):
        for key in b:
            np.testing.assert_array_equal(a[key], b[key])
        for key in info_b:
            np.testing.assert_array_equal(info_a[key], info_b[key])
        action = np.tile(np.float32([0.9, 0.1]), (3, 1))
        (a, *rest_a, info_a), (b, *rest_b, info_b) = envs.step(action), singles.step(action)
        for mine, theirs in zip(rest_a, rest_b):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*`check_env.*")
def test_both_checkers_accept_the_wrapper(data):
    env = gym.make("wm_toolkit/TwoRooms-v0", disable_env_checker=True)
    env = GoalReaching(env, SegmentGoals(data, offset=20), budget=50)
    check_env(env)
    check_sb3(env)


def test_bad_goals_are_named(data):
    with pytest.raises(DataError, match=r"no column 'positon'.*'position'"):
        SegmentGoals(data, offset=5, state_key="positon")
    with pytest.raises(DataError, match="no episode with 31 steps; the longest has 30"):
        SegmentGoals(data, offset=31)
    with pytest.raises(DataError, match=r"ended its episode at step 4 of a segment of 6"):
        replay(TwoRoomsVector(1, max_episode_steps=4), WALKS.position[:1, 0], WALKS.action[:1, :6])
    with pytest.raises(MissingGoalError, match="has no get_state and set_state"):
        replay(gym.make("CartPole-v1").unwrapped, np.zeros((1, 4)), np.zeros((1, 2)))
    with pytest.raises(MissingGoalError, match=r"keys \['depth'\]"):
        GoalReaching(TwoRooms(), Goals({"depth": np.zeros((1, 2))}), budget=3)
    with pytest.raises(MissingGoalError, match="one row per task"):
        Goals({"image": np.zeros((2, 4))}, start=np.zeros((3, 2)))
