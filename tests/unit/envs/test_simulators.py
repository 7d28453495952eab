"""PointMaze, OGBench, DeepMind Control and rendered environments: seeds, exact states, success, pictures."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm_toolkit.envs import headless
from wm_toolkit.envs.goal import GoalReaching
from wm_toolkit.envs.goals import EnvGoals
from wm_toolkit.envs.headless import offscreen_backend, prepare_headless
from wm_toolkit.envs.make import make
from wm_toolkit.envs.registration import register_envs
from wm_toolkit.envs.rendered import RenderedImages
from wm_toolkit.errors import ConfigError, MissingPackageError, SpaceError, UnknownNameError

prepare_headless()
drawn = pytest.mark.skipif(
    offscreen_backend() is None, reason="neither EGL nor OSMesa is installed"
)

STATES = {
    "point maze": ("wm_toolkit/PointMaze-v0", {"obs_mode": "state"}),
    "point maze of OGBench": ("wm_toolkit/OGBench-v0", {"obs_mode": "state"}),
    "cube": ("wm_toolkit/OGBench-v0", {"obs_mode": "state", "task": "cube-single-v0"}),
    "cartpole": ("dmc/cartpole-swingup", {"obs_mode": "state", "action_repeat": 2}),
    "walker": ("dmc/walker-walk", {"obs_mode": "state", "vectors": "dict"}),
    "reacher": ("dmc/reacher-easy", {"obs_mode": "state", "action_repeat": 2}),
}


@functools.cache
def made(which: str) -> gym.Env:
    """One of each for the whole file: an arm takes seconds to build."""
    name, options = STATES[which]
    return make(name, **options).unwrapped


@pytest.fixture(params=[which for which in STATES if which != "cube"])
def simulator(request):
    return made(request.param)


@pytest.fixture(params=["point maze", "point maze of OGBench", "cube", "reacher"])
def goal_env(request):
    return made(request.param)


def test_the_checker_accepts_every_adapter(simulator):
    check_env(simulator, skip_render_check=True)  # one picture costs more than all of this


def test_a_seed_repeats_an_episode_and_another_does_not(simulator):
    def episode(seed):
        simulator.action_space.seed(0)
        rows = [simulator.reset(seed=seed)[0]]
        rows += [simulator.step(simulator.action_space.sample())[0] for _ in range(4)]
        return np.concatenate([np.ravel(value) for row in rows for value in row.values()])

    np.testing.assert_array_equal(episode(5), episode(5))
    assert (episode(5) != episode(6)).any()


def test_recorded_actions_repeat_what_they_did(goal_env):
    goal_env.reset(seed=2)
    goal_env.action_space.seed(0)
    actions = [goal_env.action_space.sample() for _ in range(8)]
    done = [goal_env.step(action) for action in actions]
    seen, states = [step[0] for step in done], [step[4]["state"] for step in done]
    goal_env.reset(seed=3)
    assert_same(goal_env.set_state(states[2]), seen[2])
    np.testing.assert_array_equal(goal_env.get_state(), states[2])
    for action, expected in zip(actions[3:], seen[3:]):
        assert_same(goal_env.step(action)[0], expected)


def assert_same(obs, expected):
    assert obs.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(obs[key], value)


def test_the_goal_is_a_state_and_standing_there_is_success(goal_env):
    _, info = goal_env.reset(seed=0)
    assert not info["success"]
    goal = info["goal"]
    _, info = goal_env.reset(options={"state": goal, "goal": goal})
    assert info["success"]
    np.testing.assert_array_equal(info["state"], goal)
    _, reward, terminated, truncated, info = goal_env.step(np.zeros(goal_env.action_space.shape))
    assert (terminated, truncated, info["success"]) == (False, False, True)
    assert reward == 1.0 or "discount" in info  # the suite keeps its own rewards
    reach = GoalReaching(goal_env, EnvGoals(), budget=3)
    seen, info = reach.reset(seed=1)
    np.testing.assert_array_equal(seen["goal/proprio"][:2], info["goal_state"][:2])
    with pytest.raises(SpaceError, match="state has shape"):
        goal_env.set_state(np.zeros(3))


def test_a_point_maze_is_solved_within_half_a_cell_of_x_and_y_alone():
    env = make("wm_toolkit/PointMaze-v0", obs_mode="state").unwrapped
    goal = np.array([1.0, 1.0, 0.0, 0.0])
    assert env.is_success(np.array([1.3, 0.61, 5.0, 5.0]), goal)
    assert not env.is_success(np.array([1.3, 0.59, 0.0, 0.0]), goal)


def test_a_point_maze_moves_as_the_package_does():
    env = make("wm_toolkit/PointMaze-v0", obs_mode="state", action_repeat=5).unwrapped
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

    theirs = PointMazeEnv()
    env.reset(seed=4)
    theirs.reset(seed=4)
    for action in np.random.default_rng(0).uniform(-1, 1, (6, 2)):
        ours = env.step(action)[0]["state"]
        for _ in range(5):
            expected = theirs.step(action)[0]["observation"]
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    theirs.close()


def test_a_reacher_is_there_when_each_joint_is_within_a_twentieth_of_a_radian():
    env = made("reacher")
    goal = np.array([3.12, 0.5, 0, 0, 0.1, 0.1])
    assert env.is_success(np.add(goal, [0.049, -0.049, 9, 9, 1, 1]), goal)
    assert not env.is_success(np.add(goal, [0, 0.051, 0, 0, 0, 0]), goal)
    assert env.is_success(np.subtract(goal, [2 * np.pi, 0, 0, 0, 0, 0]), goal)
    assert env.is_success(np.array([-3.14, 0.5, 0, 0, 0, 0]), goal)


def test_a_reacher_with_goals_moves_and_pays_as_the_suite_does():
    from wm_toolkit.envs.dmc import DmControl

    plain = DmControl("reacher", "easy", obs_mode="state", action_repeat=2)
    env = made("reacher")
    begin, expected = env.reset(seed=1)[0]["proprio"], plain.reset(seed=1)[0]["proprio"]
    np.testing.assert_allclose(begin, expected, atol=1e-6)
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 2)):
        obs, reward, *_ = env.step(action)
        expected, paid, *_ = plain.step(action)
        np.testing.assert_allclose(obs["proprio"], expected["proprio"], atol=1e-5)
        assert reward == paid
    with pytest.raises(SpaceError, match=r"shape \(4,\), expected \(6,\)"):
        env.reset(options={"state": np.zeros(4)})
    with pytest.raises(ConfigError, match="unknown reset option 'gaol'"):
        env.reset(options={"gaol": np.zeros(6)})


def test_ogbench_leaves_neither_files_nor_handles_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make("wm_toolkit/OGBench-v0", obs_mode="state").close()  # what it opens once and for all
    before = len(os.listdir("/proc/self/fd"))
    make("wm_toolkit/OGBench-v0", obs_mode="state").close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not list(tmp_path.iterdir())


def test_ogbench_leaves_the_global_stream_of_numpy_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    env = make("wm_toolkit/OGBench-v0", obs_mode="state")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_proprioception_of_an_arm_leaves_the_cube_out():
    env = made("cube")
    seen, info = env.reset(seed=0)
    state, moved = info["state"], info["state"].copy()
    at = env.cubes[0]
    moved[at : at + 2] += 0.05
    other = env.set_state(moved)
    np.testing.assert_array_equal(other["proprio"], seen["proprio"])
    assert (other["state"] != state).sum() == 2
    assert not env.is_success(moved, state)


def test_dm_control_ends_at_its_time_limit_by_truncation():
    env = make("dmc/cartpole-swingup", obs_mode="state", action_repeat=250)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_dm_control_terminates_where_the_discount_is_zero(monkeypatch):
    env = make("dmc/reacher-easy", obs_mode="state", action_repeat=3).unwrapped
    env.reset(seed=0)
    calls = iter([None, 0.0])
    monkeypatch.setattr(env._suite_env.task, "get_termination", lambda physics: next(calls))
    _, _, terminated, truncated, info = env.step(np.zeros(2))
    assert (terminated, truncated, info["discount"]) == (True, False, 0.0)
    assert info["repeats"] == 2


def test_rewards_of_repeated_actions_are_summed():
    once = make("dmc/cartpole-balance", obs_mode="state")
    thrice = make("dmc/cartpole-balance", obs_mode="state", action_repeat=3)
    for env in (once, thrice):
        env.reset(seed=1)
    action = np.float32([0.3])
    single = [once.step(action) for _ in range(3)]
    obs, reward, *_, info = thrice.step(action)
    assert reward == pytest.approx(sum(row[1] for row in single))
    assert info["repeats"] == 3
    np.testing.assert_array_equal(obs["proprio"], single[-1][0]["proprio"])


def test_vectors_of_dm_control_are_joined_or_kept_by_name():
    flat = make("dmc/reacher-easy", obs_mode="state").reset(seed=0)[0]
    named = make("dmc/reacher-easy", obs_mode="state", vectors="dict").reset(seed=0)[0]
    assert sorted(named) == ["position", "to_target", "velocity"]
    joined = np.concatenate([named[key] for key in ("position", "to_target", "velocity")])
    np.testing.assert_array_equal(flat["proprio"], joined)


def test_every_task_of_the_suite_has_an_id():
    from dm_control import suite

    register_envs()
    ours = {name for name in gym.registry if name.startswith("dmc/")}
    assert ours == {f"dmc/{domain}-{task}" for domain, task in suite.ALL_TASKS}


def test_wrong_names_and_options_are_answered_with_what_there_is():
    with pytest.raises(UnknownNameError, match="'dmc/cartpole-swingup'"):
        make("dmc/cartpole-swingupp")
    with pytest.raises(UnknownNameError, match="'pointmaze-large-v0'"):
        make("wm_toolkit/OGBench-v0", task="pointmaze-larg-v0")
    with pytest.raises(ConfigError, match="maze is 'tiny'"):
        make("wm_toolkit/PointMaze-v0", maze="tiny")
    with pytest.raises(ConfigError, match="action_repeat is 0"):
        make("dmc/reacher-easy", action_repeat=0)
    with pytest.raises(ConfigError, match="obs_mode is 'pixels'"):
        make("wm_toolkit/PointMaze-v0", obs_mode="pixels")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("wm_toolkit/PointMaze-v0", "gymnasium_robotics.envs.maze.maps", "pointmaze"),
        ("wm_toolkit/OGBench-v0", "ogbench", "ogbench"),
        ("dmc/reacher-easy", "dm_control.suite", "dmc"),
    ],
)
def test_without_the_package_the_extra_is_named(name, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf"wm_toolkit\[{extra}\]"):
        make(name)


# -- pictures --------------------------------------------------------------------------------------


@drawn
def test_a_maze_seen_from_above_shows_where_the_ball_is():
    env = make("wm_toolkit/PointMaze-v0", image_size=48, fast_render=True).unwrapped
    env.reset(seed=0)

    def green_middle(x, y):
        picture = env.set_state(np.array([x, y, 0.0, 0.0]))["image"].astype(int)
        rows, columns = np.nonzero(picture[..., 1] - picture[..., [0, 2]].max(-1) > 25)
        return columns.mean(), rows.mean()

    left, right, up = green_middle(-1, -1), green_middle(1, -1), green_middle(1, 1)
    assert right[0] - left[0] > 10
    assert abs(right[1] - left[1]) < 2
    assert right[1] - up[1] > 10
    same = env.set_state(np.array([1.0, 1.0, 0.0, 0.0]))["image"]
    np.testing.assert_array_equal(same, env.set_state(np.array([1.0, 1.0, 0.0, 0.0]))["image"])
    env.close()


@drawn
def test_fast_rendering_changes_pixels_a_little_and_is_among_the_settings():
    pictures = {}
    for fast in (False, True):
        env = make("dmc/cartpole-swingup", obs_mode="image", image_size=32, fast_render=fast)
        pictures[fast] = env.reset(seed=0)[0].astype(int)
        assert env.get_wrapper_attr("settings")["fast_render"] is fast
        env.close()
    difference = np.abs(pictures[True] - pictures[False])
    assert 0 < difference.mean() < 15


@drawn
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*infinity")  # CartPole's own bounds
def test_the_checker_accepts_rendered_images():
    env = make("wm_toolkit/Rendered-v0", env="CartPole-v1", image_size=16)
    check_env(env, skip_render_check=True)  # what it draws is the inner environment's
    env.close()


@drawn
def test_rendered_images_stand_beside_vectors_of_any_environment():
    pytest.importorskip("pygame")
    env = make("wm_toolkit/Rendered-v0", env="CartPole-v1", image_size=40)
    obs, _ = env.reset(seed=0)
    assert {key: (v.shape, v.dtype) for key, v in obs.items()} == {
        "image": ((40, 40, 3), np.uint8),
        "state": ((4,), np.float32),
    }
    assert env.observation_space.contains(obs)
    large = make("CartPole-v1", render_mode="rgb_array")
    large.reset(seed=0)
    whole = large.render().astype(float)
    means = whole.reshape(40, 10, 40, 15, 3).mean((1, 3))
    assert np.abs(obs["image"] - means).max() <= 1
    large.close()
    env.close()


def test_what_an_environment_draws_with_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = make("wm_toolkit/Rendered-v0", env="CartPole-v1", image_size=16)
    with pytest.raises(MissingPackageError, match=r"CartPole.* cannot draw: .*pip install"):
        env.reset(seed=0)


def test_an_environment_that_does_not_draw_is_refused():
    with pytest.raises(ConfigError, match="render_mode None"):
        RenderedImages(gym.make("CartPole-v1"))
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    with pytest.raises(ConfigError, match="has no model"):
        RenderedImages(env, fast_render=True)


@drawn
def test_the_interpreter_ends_without_a_word_when_nobody_closed_the_pictures():
    code = (
        "from wm_toolkit.envs.make import make\n"
        "one = make('dmc/reacher-easy', image_size=16); one.reset(seed=0)\n"
        "two = make('wm_toolkit/PointMaze-v0', image_size=16); two.reset(seed=0)\n"
        "print(one.reset()[0]['image'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(16, 16, 3)", done.stderr
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


# -- headless --------------------------------------------------------------------------------------


@pytest.fixture
def no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "SDL_VIDEODRIVER"):
        monkeypatch.setenv(name, "set, so that it is restored")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.parametrize(
    ("libraries", "chosen"), [(["egl", "osmesa"], "egl"), (["osmesa"], "osmesa"), ([], None)]
)
def test_egl_is_preferred_to_osmesa(no_display, monkeypatch, libraries, chosen):
    monkeypatch.setattr(headless, "_has_library", libraries.__contains__)
    prepare_headless()
    assert os.environ.get("MUJOCO_GL") == chosen
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"


def test_what_the_user_chose_and_a_display_win(no_display, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    prepare_headless()
    assert (os.environ["MUJOCO_GL"], os.environ["SDL_VIDEODRIVER"]) == ("osmesa", "x11")
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setenv("DISPLAY", ":0")
    prepare_headless()
    assert "MUJOCO_GL" not in os.environ


def test_no_maze_file_is_left_behind():
    env = make("wm_toolkit/PointMaze-v0", obs_mode="state").unwrapped
    assert not Path(env.base.tmp_xml_file_path).exists()
