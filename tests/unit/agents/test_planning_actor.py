"""Receding-horizon control, row by row."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from wm_toolkit.agents.actors import PlanningActor, RandomActor
from wm_toolkit.errors import ConfigError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.base import Plan
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.objective import Goal, Objective
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct

HORIZON = 4


@dataclasses.dataclass(frozen=True)
class Point(Struct):
    x: Tensor


class Plane(WorldModel[Point]):
    """A point moved by a tenth of each action; counts the observations it encodes."""

    def __init__(self) -> None:
        vector = gym.spaces.Box(-9, 9, (2,), np.float32)
        super().__init__(Spaces({"vector": vector}, gym.spaces.Box(-1, 1, (2,), np.float32)))
        self.encoded = 0

    def initial(self, batch_size):
        return Point(torch.zeros(batch_size, 2))

    def observe(self, state, action, obs, *, generator=None):
        self.encoded += len(action)
        return Point(obs["vector"])

    def imagine(self, state, action, *, generator=None):
        return Point(state.x + 0.1 * action)

    def features(self, state):
        return state.x

    def loss(self, batch):
        return {}


@dataclasses.dataclass
class Script:
    """Writes down every call; the plan of call c at step h is 10 c + h + state / 1000."""

    calls: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def plan(self, model, state, objective, *, warm_start=None, generator=None):
        steps = torch.arange(HORIZON) + 10.0 * (1 + len(self.calls))
        actions = steps.view(1, -1, 1) + state.x[:, None] / 1000
        self.calls.append({"rows": state.x[:, 0].tolist(), "warm": warm_start, "goal": objective})
        return Plan(actions, torch.zeros(len(state)))


class Episode:
    """Drives an actor and keeps its memory."""

    def __init__(self, actor: PlanningActor, rows: int = 2) -> None:
        self.actor, self.rows = actor, rows
        self.memory = actor.initial(rows)
        self.state = Point(torch.arange(rows)[:, None].expand(rows, 2).float())
        self.goal = torch.zeros(rows, 2)

    def act(self, first: tuple[int, ...] = ()) -> Any:
        is_first = torch.zeros(self.rows, dtype=torch.bool)
        is_first[list(first)] = True
        obs = {"vector": self.state.x, "goal/vector": self.goal}
        decision, self.memory = self.actor.act(self.state, obs, self.memory, is_first=is_first)
        return decision

    def actions(self, first: tuple[int, ...] = ()) -> list[float]:
        return [round(a, 4) for a in self.act(first).action[:, 0].tolist()]


def scripted(**options: Any) -> tuple[Script, Episode]:
    script = Script()
    return script, Episode(PlanningActor(Plane(), script, Goal(), **options))


@pytest.mark.parametrize(
    ("replan_every", "expected"),
    [
        (1, [10, 20, 30, 40, 50, 60]),
        (2, [10, 11, 20, 21, 30, 31]),
        (4, [10, 11, 12, 13, 20, 21]),
        (9, [10, 11, 12, 13, 20, 21]),
    ],
)
def test_that_many_actions_of_every_plan_are_executed(replan_every, expected):
    script, episode = scripted(replan_every=replan_every)
    assert [episode.actions()[0] for _ in range(6)] == expected
    assert len(script.calls) == len({a // 10 for a in expected})


def test_a_search_begins_from_the_rest_of_the_last_plan():
    script, episode = scripted(replan_every=3)
    for _ in range(4):
        episode.act()
    assert script.calls[0]["warm"] is None
    assert script.calls[1]["warm"][0, :, 0].tolist() == [13, 0, 0, 0]
    script, episode = scripted(replan_every=1)
    episode.act()
    episode.act()
    assert script.calls[1]["warm"][0, :, 0].tolist() == [11, 12, 13, 0]


def test_without_warm_start_every_search_begins_afresh():
    script, episode = scripted(warm_start=False)
    episode.act()
    episode.act()
    assert script.calls[1]["warm"] is None


def test_a_row_that_begins_an_episode_is_planned_for_alone():
    script, episode = scripted(replan_every=4)
    assert episode.actions() == [10.0, 10.001]
    assert episode.actions(first=(1,)) == [11.0, 20.001]
    assert script.calls[1]["rows"] == [1.0]
    assert script.calls[1]["warm"].eq(0).all(), "the old episode's plan is forgotten"
    # The rows keep their own rhythm: row 0 replans after its fourth action, row 1 after its own.
    assert [episode.actions() for _ in range(4)] == [
        [12.0, 21.001],
        [13.0, 22.001],
        [30.0, 23.001],
        [31.0, 40.001],
    ]
    assert [call["rows"] for call in script.calls] == [[0, 1], [1], [0], [1]]


def test_an_action_says_whether_it_ends_its_plan():
    _, episode = scripted(replan_every=3)
    ends = [episode.act(first).ends_plan.tolist() for first in ((), (), (), (), (1,), ())]
    # Row 1 begins anew at the fifth step, so its plan ends two steps later than that of row 0.
    assert ends == [[False] * 2, [False] * 2, [True] * 2, [False] * 2, [False] * 2, [True, False]]


def test_only_a_plan_for_all_rows_is_reported():
    _, episode = scripted(replan_every=2)
    assert episode.act().plan.actions.shape == (2, HORIZON, 2)
    assert episode.act(first=(0,)).plan is None
    assert episode.act().plan is None, "row 1 alone is due"


def test_the_goal_is_encoded_once_while_it_stays_the_same():
    script, episode = scripted()
    for _ in range(5):
        episode.act()
    assert episode.actor.model.encoded == 2
    assert all(call["goal"] is script.calls[0]["goal"] for call in script.calls)


def test_a_new_goal_is_encoded_and_its_row_planned_for_at_once():
    script, episode = scripted(replan_every=4)
    episode.act()
    episode.goal = torch.tensor([[0.0, 0.0], [5.0, 6.0]])
    assert episode.actions() == [11.0, 20.001]
    assert script.calls[1]["rows"] == [1.0]
    assert script.calls[1]["goal"].features.tolist() == [[5.0, 6.0]]
    assert episode.actions() == [12.0, 21.001]
    assert episode.memory.objective.features.tolist() == [[0.0, 0.0], [5.0, 6.0]]


def test_a_goal_given_as_features_needs_no_observation():
    script = Script()
    actor = PlanningActor(Plane(), script, Goal(torch.ones(2)), replan_every=2)
    memory, first = actor.initial(2), torch.tensor([True, True])
    for step in range(3):
        state = Point(torch.zeros(2, 2))
        _, memory = actor.act(state, {"vector": state.x}, memory, is_first=first & (step == 0))
    assert len(script.calls) == 2
    assert actor.model.encoded == 0


@pytest.mark.parametrize(
    "planner",
    [
        CEM(horizon=3, samples=64, elites=8, iterations=5, execute="best"),
        GradientPlanner(horizon=3, samples=4, iterations=30, learning_rate=0.2),
    ],
)
def test_acting_in_closed_loop_takes_every_row_to_its_own_goal(planner, rng):
    goals = torch.tensor([[0.6, -0.3], [-0.2, 0.5], [0.0, 0.1]])
    actor = PlanningActor(Plane(), planner, Goal(mode="sum"))
    x, memory = torch.zeros(3, 2), actor.initial(3)
    for step in range(12):
        obs = {"vector": x, "goal/vector": goals}
        first = torch.full((3,), step == 0)
        decision, memory = actor.act(Point(x), obs, memory, is_first=first, generator=rng)
        assert decision.action.abs().amax() <= 1
        x = x + 0.1 * decision.action
    assert (x - goals).norm(dim=-1).amax() < 0.05


def test_an_objective_without_goal_is_bound_to_the_present_observation():
    bound = []

    class Watchful(Objective):
        def bind(self, model, obs, *, generator=None):
            bound.append(obs["vector"][0, 0].item())
            return self

    actor = PlanningActor(Plane(), Script(), Watchful())
    memory = None
    for step in range(2):
        obs = {"vector": torch.full((1, 2), float(step))}
        _, memory = actor.act(Point(obs["vector"]), obs, memory, is_first=torch.tensor([False]))
    assert bound == [0.0, 1.0]


def test_executing_nothing_of_a_plan_is_refused():
    with pytest.raises(ConfigError, match="replan_every is 0"):
        PlanningActor(Plane(), Script(), Goal(), replan_every=0)


def test_random_actions_fill_the_bounds(rng):
    actor = RandomActor(Plane())
    decision, _ = actor.act(None, {}, None, is_first=torch.ones(4000).bool(), generator=rng)
    assert decision.action.mean(0).tolist() == pytest.approx([0, 0], abs=0.03)
    assert decision.action.std(0).tolist() == pytest.approx([1 / 3**0.5] * 2, abs=0.03)
    assert decision.action.abs().amax() <= 1
