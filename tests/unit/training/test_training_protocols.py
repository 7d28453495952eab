"""Published protocols: their numbers, whom they suit, and that an agent that adopts one is saved so."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest

from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.errors import ConfigError, UnknownNameError
from wm_toolkit.planning.objective import Goal
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.baselines import random_agent
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.protocols import PROTOCOLS

# episodes, seed, goals, offset, budget; candidates, iterations, elites, horizon, executed; alpha
PUBLISHED = {
    "dino_wm.pusht": (50, 99, "dataset", 25, 250, 300, 30, 30, 5, 5, 1.0),
    "dino_wm.point_maze": (50, 99, "env", 25, 250, 300, 10, 30, 5, 5, 0.0),
    "dino_wm.wall": (50, 99, "env", 25, 250, 300, 10, 30, 5, 5, 1.0),
    "lewm.pusht": (50, 42, "dataset", 25, 50, 300, 30, 30, 5, 5, None),
    "lewm.tworoom": (50, 42, "dataset", 25, 50, 300, 10, 30, 5, 5, None),
    "lewm.reacher": (50, 42, "dataset", 25, 50, 300, 10, 30, 5, 5, None),
    "lewm.cube": (50, 42, "dataset", 25, 50, 300, 10, 30, 5, 5, None),
    "jepa_wms.pusht": (96, 1, "dataset", 30, 30, 300, 30, 10, 6, 6, 0.1),
    "jepa_wms.point_maze": (96, 1, "env", 30, 30, 300, 30, 10, 6, 6, 0.1),
    "jepa_wms.wall": (96, 1, "env", 30, 30, 300, 30, 10, 6, 6, 0.1),
}
SMALL = {"image_size": 16, "patch": 8, "width": 12, "layers": 1, "embedding": 8}


def agent(env: str = "wm_toolkit/TwoRooms-v0", **evaluation) -> Agent:
    image = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    spaces = Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32))
    made = build("lewm.small", spaces.blocked(5), decoder=False, **SMALL)
    own = EvaluationConfig(**{"env": env, "frame_skip": 5, "seed": 7, "holdout": 0.3, **evaluation})
    made.info["evaluation"] = dataclasses.asdict(own)
    return made


def test_every_protocol_says_what_was_published():
    assert set(PROTOCOLS.names()) == set(PUBLISHED)
    for name, expected in PUBLISHED.items():
        p = PROTOCOLS[name]
        e, s = p.evaluation, p.planner
        goals = (e.episodes, e.seed, e.goals, e.goal_offset, e.budget)
        search = (s.samples, s.iterations, s.elites, s.horizon, p.replan_every, p.alpha)
        assert goals + search == expected, name
        assert (e.frame_skip, s.init_std, s.min_std, s.execute, s.momentum) == (5, 1, 0, "mean", 0)
        assert p.name == name


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("lewm", "lewm.pusht"),
        ("dino_wm", "dino_wm.pusht"),
        ("dino_wm.point_maze", "dino_wm.point_maze"),
        ("dino_wm.wall", "dino_wm.wall"),
        ("dino_wm.jepa_wms", "jepa_wms.pusht"),
    ],
)
def test_a_published_recipe_is_measured_by_its_published_protocol(recipe, name):
    config, protocol = recipe_config(recipe), PROTOCOLS[name]
    assert protocol.alpha in (None, getattr(config, "alpha", None))
    assert config.planner == protocol.planner
    assert config.replan_every == protocol.replan_every
    assert config.goal_mode == protocol.goal_mode
    assert config.evaluation == protocol.evaluation


def test_what_cannot_be_kept_is_named():
    for name in PROTOCOLS.names():
        if name.startswith("dino_wm"):
            assert "goes on until all 50 goals are reached" in PROTOCOLS[name].deviation
            assert "10 plans" in PROTOCOLS[name].deviation
    assert "TwoRooms stands for Wall" in PROTOCOLS["dino_wm.wall"].deviation
    assert PROTOCOLS["lewm.pusht"].deviation == ""


def test_an_agent_that_adopts_a_protocol_plans_by_it_and_is_saved_so(tmp_path):
    mine = agent(env_options={"obs_mode": "both"}, group=10)
    found = PROTOCOLS["lewm.tworoom"].adopt(mine)
    assert (found.seed, found.budget, found.published) == (42, 50, "lewm.tworoom")
    # What belongs to the data and the machine stays the agent's own.
    assert (found.holdout, found.group, found.env_options) == (0.3, 10, {"obs_mode": "both"})
    mine.save_pretrained(tmp_path / "model")
    for one in (mine, Agent.from_pretrained(tmp_path / "model")):
        assert isinstance(one.actor, PlanningActor)
        assert one.actor.planner == PROTOCOLS["lewm.tworoom"].planner
        assert one.actor.replan_every == 5
        assert isinstance(one.actor.objective, Goal)
        assert one.actor.objective.mode == "last"
        assert one.info["evaluation"] == dataclasses.asdict(found)
    assert "published as lewm.tworoom" in (tmp_path / "model" / "README.md").read_text()


def test_the_weight_of_proprioception_reaches_a_model_that_has_one():
    mine = agent()
    mine.model.alpha = 1.0
    PROTOCOLS["jepa_wms.wall"].adopt(mine)
    assert mine.model.alpha == 0.1
    PROTOCOLS["lewm.tworoom"].adopt(mine)
    assert mine.model.alpha == 0.1


def test_an_agent_that_does_not_plan_keeps_acting_as_it_does():
    walker = random_agent(agent())
    actor = walker.actor
    assert PROTOCOLS["dino_wm.wall"].adopt(walker).budget == 250
    assert walker.actor is actor


def test_a_protocol_of_another_environment_or_rhythm_is_refused():
    with pytest.raises(ConfigError, match=r"'lewm.pusht' measures in an environment 'pusht'"):
        PROTOCOLS["lewm.pusht"].adopt(agent())
    PROTOCOLS["lewm.pusht"].adopt(agent("wm_toolkit/PushT-v0"))
    PROTOCOLS["lewm.reacher"].adopt(agent("dmc/reacher-easy"))
    PROTOCOLS["dino_wm.point_maze"].adopt(agent("wm_toolkit/PointMaze-v0"))
    cube = {"task": "visual-cube-single-v0"}
    PROTOCOLS["lewm.cube"].adopt(agent("wm_toolkit/OGBench-v0", env_options=cube))
    with pytest.raises(ConfigError, match="decides every 5 steps, the agent every 2"):
        PROTOCOLS["lewm.tworoom"].adopt(agent(frame_skip=2))
    nobody = agent()
    nobody.info.clear()
    with pytest.raises(ConfigError, match="which environment it was made for"):
        PROTOCOLS["lewm.tworoom"].adopt(nobody)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'lewm\.pusht'"):
        PROTOCOLS["lewm.pushtt"]
