"""Push-T on gym-pusht: its physics and pictures, exact states, published success, exploring data."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.goal import GoalReaching
from wm_toolkit.envs.goals import EnvGoals, SegmentGoals, replay
from wm_toolkit.envs.make import make
from wm_toolkit.envs.push_t import PushT, aim, draw_state
from wm_toolkit.envs.push_t_board import Board, Painter, angle_between, full_state, is_success
from wm_toolkit.envs.pushes import explorations
from wm_toolkit.envs.true_model import Place
from wm_toolkit.errors import ConfigError, DataError, MissingPackageError, SpaceError
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import prepare
from wm_toolkit.training.prepare import prepare_push_t

pusht = pytest.importorskip("gym_pusht.envs.pusht", reason="gym-pusht is not installed")


@pytest.fixture(scope="module")
def board() -> Board:
    return Board()


def package_env(state):
    """gym-pusht's own environment in a state of ours."""
    sim = pusht.PushTEnv(observation_width=96, observation_height=96)
    sim.reset(seed=0)
    sim._setup()
    sim.block.angle, sim.block.position = float(state[4]), tuple(map(float, state[2:4]))
    sim.agent.position = tuple(map(float, state[:2]))
    sim.agent.velocity = tuple(map(float, state[5:7]))
    sim.space.reindex_shapes_for_body(sim.block)
    return sim


# Absolute actions are the package's pixels, which the checker would rather have scaled.
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")
@pytest.mark.parametrize(
    "options", [{}, {"obs_mode": "image"}, {"obs_mode": "state", "action_mode": "absolute"}]
)
def test_the_checker_accepts_every_view(options):
    env = make("wm_toolkit/PushT-v0", image_size=32, render_mode="rgb_array", **options)
    check_env(env.unwrapped)


def test_a_free_agent_moves_as_in_the_package(board):
    state = full_state([60, 80, 400, 400, 1.0])
    sim = package_env(state)
    for target in ([100.0, 140.0], [180.0, 140.0], [30.0, 20.0]):
        state = board.step(state, np.array(target))
        sim.step(np.array(target))
        expected = [*sim.agent.position, *sim.block.position, sim.block.angle]
        np.testing.assert_allclose(state[:5], expected, atol=1e-3)
        np.testing.assert_allclose(state[5:7], sim.agent.velocity, atol=1e-2)


def test_a_push_moves_the_block_as_in_the_package(board):
    state = full_state([150, 256, 256, 230, 0.3])
    sim = package_env(state)
    for t in range(12):
        target = np.array([170.0 + 15 * t, 256.0])
        state = board.step(state, target)
        sim.step(target)
    moved = np.linalg.norm(state[2:4] - np.float32([256, 230]))
    assert moved > 40
    # Contacts are not remembered between our steps, which changes little.
    assert np.linalg.norm(state[2:4] - np.array(sim.block.position)) < 0.05 * moved
    assert angle_between(state[4], sim.block.angle) < 0.1


def test_pictures_are_the_packages(board):
    rng = np.random.default_rng(0)
    painter = Painter(board.outline, size=96, draw_goal=True, resampling="linear")
    for _ in range(3):
        state = draw_state(rng)
        sim = package_env(state)
        sim.space.step(1e-9)
        theirs, ours = sim._render(), painter.draw(state)
        assert np.abs(theirs.astype(int) - ours).mean() < 0.4


def test_the_goal_t_and_smooth_resampling_are_options(board):
    state = full_state([60, 60, 420, 420, 0])
    pictures = {
        (goal, how): Painter(board.outline, size=64, draw_goal=goal, resampling=how).draw(state)
        for goal in (True, False)
        for how in ("linear", "smooth")
    }
    green = np.array([144, 238, 144])
    assert (pictures[True, "linear"] == green).all(-1).sum() > 50
    assert not (pictures[False, "linear"] == green).all(-1).any()
    board_picture = Painter(board.outline, size=512, draw_goal=True, resampling="linear").draw(
        state
    )
    means = board_picture.reshape(64, 8, 64, 8, 3).mean((1, 3))
    assert np.abs(pictures[True, "smooth"] - means).max() <= 3  # rounded once per halving
    with pytest.raises(ConfigError, match="resampling is 'cubic'"):
        PushT(resampling="cubic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="image_size is 600"):
        PushT(image_size=600)


def test_success_is_distance_and_angle_either_way_round():
    goal = full_state([100, 100, 200, 200, 0.1])
    near = full_state([109, 109, 209, 209, 0.1])  # 18 px of four coordinates together
    assert is_success(near, goal)
    assert not is_success(full_state([112, 112, 212, 212, 0.1]), goal)
    turns = np.array([0.3, -0.2, 0.1 + 2 * np.pi, 0.1 + np.pi / 9 + 0.01, 0.1 - np.pi / 9 - 0.01])
    states = np.tile(goal, (5, 1)).astype(np.float64)
    states[:, 4] = turns
    assert is_success(states, goal).tolist() == [True, True, True, False, False]
    assert is_success(goal, states).tolist() == [True, True, True, False, False]
    assert angle_between(0.1, 2 * np.pi - 0.1) == pytest.approx(0.2)


def test_a_step_is_a_function_of_the_state_alone(board):
    env = PushT(obs_mode="state")
    episode = next(iter(explorations(env, 5, [0], 40)))
    states, actions = episode.obs["state"], episode.action
    moved = np.linalg.norm(np.diff(states[:, 2:4], axis=0), axis=1) > 1
    assert moved.any()
    other = Board()
    for t in np.flatnonzero(moved):
        target = aim(states[t], actions[t], relative=True)
        np.testing.assert_array_equal(other.step(states[t], target), states[t + 1])


def test_shorter_states_are_completed_and_wrong_ones_refused():
    assert full_state([1, 2, 3, 4, -1.0]).tolist()[5:] == [0] * 5
    assert full_state([1, 2, 3, 4, -1.0])[4] == pytest.approx(2 * np.pi - 1)
    assert full_state(np.ones((2, 7)))[:, 5:].tolist() == [[1, 1, 0, 0, 0]] * 2
    for wrong in ([1, 2, 3], [1, 2, 3, 4, np.nan]):
        with pytest.raises(SpaceError, match="5, 7 or 10 finite numbers"):
            full_state(wrong)
    with pytest.raises(ConfigError, match="unknown reset option 'goall'"):
        PushT(obs_mode="state").reset(options={"goall": [0] * 5})


def test_relative_actions_aim_from_the_agent_and_absolute_ones_at_the_board():
    state = full_state([450, 100, 200, 200, 0])
    np.testing.assert_allclose(aim(state, np.array([0.5, -0.5]), True), [500, 50])
    np.testing.assert_allclose(aim(state, np.array([1.0, -1.0]), True), [512, 0])  # the board ends
    np.testing.assert_allclose(aim(state, np.array([30.0, 40.0]), False), [30, 40])
    one, other = PushT(obs_mode="state"), PushT(obs_mode="state", action_mode="absolute")
    for env in (one, other):
        env.reset(seed=0, options={"state": state[:5]})
    first, second = one.step(np.float32([0.2, 0.1])), other.step(np.float32([470, 110]))
    np.testing.assert_allclose(first[0]["state"], second[0]["state"], atol=1e-4)
    np.testing.assert_array_equal(first[0]["proprio"], first[0]["state"][[0, 1, 5, 6]])
    with pytest.raises(ConfigError, match="action_mode is 'speed'"):
        PushT(action_mode="speed")  # type: ignore[arg-type]


def test_a_seed_repeats_an_episode():
    def start(seed):
        obs, info = PushT(obs_mode="state").reset(seed=seed)
        return np.concatenate([obs["state"], info["goal"]])

    np.testing.assert_array_equal(start(3), start(3))
    assert (start(3) != start(4)).any()


def test_reaching_the_goal_is_rewarded_and_ends_nothing():
    env = PushT(obs_mode="state")
    goal = full_state([100, 100, 300, 300, 1.0])
    env.reset(options={"state": goal, "goal": goal})
    _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, truncated, info["success"]) == (1.0, False, False, True)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("pusht") / "pushes.h5"
    return prepare_push_t(path, episodes=6, steps=30, size=32)


def test_a_recording_restores_states_and_frames_exactly(recording):
    env = make("wm_toolkit/PushT-v0", **recording.metadata["env_options"])
    columns = {name: column.array for name, column in recording.columns.items()}
    begin = int(recording.episode_starts[2])
    board = env.unwrapped
    board.reset(seed=9)
    seen = board.set_state(columns["obs/state"][begin + 7])
    for row in range(begin + 7, begin + 25):
        for key in ("image", "state", "proprio"):
            np.testing.assert_array_equal(seen[key], columns[f"obs/{key}"][row])
        seen = board.step(columns["action"][row])[0]


def test_segments_of_a_recording_are_goals_and_their_actions_reach_them(recording):
    sampler = SegmentGoals(recording, 12, state_key="state")
    starts, actions = sampler.segments(np.random.default_rng(1), 3)
    env = PushT(image_size=32, resampling="smooth")
    obs, states = replay(env, starts, actions)
    assert is_success(states, states).all()
    reach = GoalReaching(env, sampler, budget=12)
    seen, info = reach.reset(seed=4)
    assert seen["goal/image"].shape == (32, 32, 3)
    np.testing.assert_array_equal(seen["goal/state"], info["goal_state"])
    assert obs["image"].shape == (3, 32, 32, 3)


def test_own_goals_show_the_goal_state():
    reach = GoalReaching(PushT(image_size=32), EnvGoals(), budget=5)
    seen, info = reach.reset(seed=0)
    np.testing.assert_array_equal(seen["goal/state"], info["goal_state"])
    expected = PushT(image_size=32).set_state(info["goal_state"])["image"]
    np.testing.assert_array_equal(seen["goal/image"], expected)


def test_exploring_moves_the_block_and_keeps_it_on_the_board():
    env = PushT(obs_mode="state")
    states = np.stack([e.obs["state"] for e in explorations(env, 0, range(25), 75)])
    before, after = states[:, :-25], states[:, 25:]
    moved = np.linalg.norm(before[..., 2:4] - after[..., 2:4], axis=-1) > 20
    turned = angle_between(before[..., 4], after[..., 4]) > np.pi / 9
    assert (moved | turned).mean() > 0.75
    assert is_success(before, after).mean() < 0.03
    assert states[..., :4].min() > 0
    assert states[..., :4].max() < 512


def test_an_episode_depends_on_seed_and_number_alone():
    env = PushT(obs_mode="state")
    several = list(explorations(env, 1, range(3), 10))
    alone = next(iter(explorations(env, 1, [2], 10)))
    np.testing.assert_array_equal(several[2].obs["state"], alone.obs["state"])
    np.testing.assert_array_equal(several[2].action, alone.action)
    assert (several[1].action != alone.action).any()


def test_a_recording_is_made_once_and_says_how(recording, monkeypatch):
    assert recording.metadata["env"] == "wm_toolkit/PushT-v0"
    assert recording.metadata["env_options"] == {
        "obs_mode": "both",
        "action_mode": "relative",
        "image_size": 32,
        "draw_goal": True,
        "resampling": "smooth",
    }
    assert recording.metadata["state_key"] == "state"
    monkeypatch.setattr(prepare, "explorations", None)  # it must not be recorded again
    again = prepare_push_t(recording.path, episodes=6, steps=30, size=32)
    assert isinstance(again, TrajectoryDataset)
    assert again.checksum == recording.checksum
    with pytest.raises(DataError, match="'seed': 0"):
        prepare_push_t(recording.path, episodes=6, steps=30, size=32, seed=1)


def test_the_true_model_dreams_what_the_environment_does(rng):
    env = PushT(obs_mode="state")
    model, shown = env.true_dynamics(Spaces.of(env).blocked(3))
    assert shown == {"obs_mode": "state"}
    starts = np.stack([draw_state(np.random.default_rng(i)) for i in range(2)])
    actions = torch.rand(2, 1, 2, 6, generator=rng) * 2 - 1
    dream = model.rollout(Place(torch.from_numpy(starts)), actions).position[:, 0]
    for row in range(2):
        env.reset(options={"state": starts[row]})
        for block in range(2):
            for raw in actions[row, 0, block].reshape(3, 2).numpy():
                seen = env.step(raw)[0]
            np.testing.assert_array_equal(seen["state"], dream[row, block])
    features = model.features(Place(torch.from_numpy(starts)))
    turned = starts.copy()
    turned[:, 4] += np.pi / 9
    distance = 512 * (features - model.features(Place(torch.from_numpy(turned)))).norm(dim=-1)
    np.testing.assert_allclose(
        distance, 20, rtol=0.01
    )  # the allowed turn counts as the allowed way


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht.envs.pusht", None)
    with pytest.raises(MissingPackageError, match=r"wm_toolkit\[pusht\]"):
        make("wm_toolkit/PushT-v0")
