"""Adapters end to end: recorded by `wm collect`, described by the data, evaluated from their own data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wm_toolkit.agents.actors import RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.cli.main import main
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.headless import offscreen_backend, prepare_headless
from wm_toolkit.envs.make import make
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.evaluate import evaluate

prepare_headless()
drawn = pytest.mark.skipif(
    offscreen_backend() is None, reason="neither EGL nor OSMesa is installed"
)

RECORDED = {
    "push t": (
        "wm_toolkit/PushT-v0",
        {"image_size": 24, "resampling": "smooth"},
        {"action_mode": "relative", "draw_goal": True, "obs_mode": "both"},
    ),
    "point maze": (
        "wm_toolkit/PointMaze-v0",
        {"image_size": 16, "fast_render": True, "action_repeat": 5},
        {"maze": "umaze", "camera": "top", "draw_goal": False, "obs_mode": "both"},
    ),
    "maze of OGBench": (
        "wm_toolkit/OGBench-v0",
        {"image_size": 16, "fast_render": True},
        {"task": "pointmaze-medium-v0", "obs_mode": "both", "action_repeat": 1},
    ),
    "rendered": (
        "wm_toolkit/Rendered-v0",
        {"image_size": 16, "env": "CartPole-v1"},
        {"obs_mode": "both", "fast_render": False},
    ),
    "reacher": (
        "dmc/reacher-easy",
        {"image_size": 16, "fast_render": True, "action_repeat": 4},
        {"camera": 0, "vectors": "flat", "obs_mode": "both"},
    ),
    "cartpole": (
        "dmc/cartpole-swingup",
        {"image_size": 16, "fast_render": True, "action_repeat": 4},
        {"camera": 0, "vectors": "flat", "obs_mode": "both"},
    ),
}


def record(which, path, episodes=3, steps=8):
    """Run `wm collect` and open what it wrote."""
    name, options, _ = RECORDED[which]
    words = [f"{key}={value}" for key, value in options.items()]
    counts = ["--episodes", str(episodes), "--max-steps", str(steps), "--seed", "7"]
    seen = ["--extras", "state"] if which == "reacher" else []  # the others observe it
    assert main(["collect", name, str(path), *counts, *seen, "--set", *words]) == 0
    return TrajectoryDataset.load(path)


@drawn
@pytest.mark.parametrize("which", RECORDED)
def test_a_recording_says_how_it_was_made_and_can_be_made_again(which, tmp_path):
    data = record(which, tmp_path / "data.h5")
    name, given, defaults = RECORDED[which]
    assert data.metadata["env"] == name
    assert data.metadata["env_options"] == {**defaults, **given}
    assert data.columns["obs/image"].array.dtype == np.uint8
    env = make(name, **data.metadata["env_options"])
    rows = [env.reset(seed=7 + 1)[0]]
    begin = int(data.episode_starts[1])
    for row in range(begin, begin + 8):
        rows.append(env.step(data.columns["action"].array[row])[0])
    for offset, obs in enumerate(rows):
        for key, value in obs.items():
            np.testing.assert_array_equal(value, data.columns[f"obs/{key}"].array[begin + offset])
    env.close()


@drawn
@pytest.mark.parametrize("which", ["push t", "point maze", "maze of OGBench", "reacher"])
def test_states_of_a_recording_are_restored_in_evaluation(which, tmp_path):
    """Goals are the recorded frames themselves, so a replay of the recorded actions succeeds."""
    data = record(which, tmp_path / "data.h5")
    name = data.metadata["env"]
    protocol = EvaluationConfig(
        episodes=2,
        goal_offset=6,
        budget=6,
        env=name,
        env_options=data.metadata["env_options"],
        frame_skip=2,
    )
    env = make(name, **data.metadata["env_options"])
    begin = int(data.episode_starts[2])
    stored = {name: column.array for name, column in data.columns.items()}
    states = stored.get("obs/state", stored.get("state"))
    start, goal = states[begin], states[begin + 6]
    env.reset(options={"state": start, "goal": goal})
    for row in range(begin, begin + 6):
        obs, _, _, _, info = env.step(stored["action"][row])
    assert info["success"]
    np.testing.assert_array_equal(obs["image"], stored["obs/image"][begin + 6])
    spaces = Spaces.of(env).blocked(2)
    env.close()
    model = make_model(spaces)
    found = evaluate(Agent(model, RandomActor(model)), data, protocol)
    assert found.episodes == 2


SMALL = (
    "image_size=16 patch=8 width=12 layers=1 heads=3 embedding=8 decoder=false train.batch_size=4 "
    "planner.samples=4 planner.elites=2 planner.iterations=1 "
    "evaluation.episodes=2 evaluation.holdout=0.4 evaluation.budget=10 evaluation.goal_offset=5"
)


@drawn
@pytest.mark.parametrize("which", ["push t", "point maze"])
def test_a_recording_trains_a_model_that_is_measured_in_its_environment(which, tmp_path, capsys):
    record(which, tmp_path / "data.h5", steps=26)
    run = str(tmp_path / "run")
    words = ["--data", str(tmp_path / "data.h5"), "--run", run, "--updates", "1", "--no-oracle"]
    assert main(["train", "lewm.small", *words, "--set", *SMALL.split()]) == 0
    capsys.readouterr()
    assert main(["eval", run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["episodes"] == 2
    assert len(found["success_by_step"]) == 11
    assert set(found["baselines"]) == {"random", "oracle"}
    about = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["evaluation"]
    assert about["state_key"] == "state"
    assert about["env"] == RECORDED[which][0]
    assert about["env_options"].items() >= RECORDED[which][1].items()


def make_model(spaces):
    """Any model will do for an actor that looks at spaces alone."""
    from wm_toolkit.envs.true_model import TrueModel

    class Still(TrueModel):
        def move(self, state, action):
            return state

    return Still(spaces, "proprio")
