"""Every registered planner on every family it applies to, and the checker on broken planners."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from families import FAMILIES, cem, state_of

from wm_toolkit.errors import PlanError
from wm_toolkit.planning.base import PLANNERS, Planner
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import ActionCost, Goal, Reward, Survival, Weighted
from wm_toolkit.planning.rollout import score
from wm_toolkit.testing import CheckError, check_planner

DISCRETE_ONLY = {"categorical_cem"}
ANY_ACTION = {"shooting"}
SMALL = {"horizon": 3, "samples": 12, "elites": 4, "iterations": 2}


def small(name: str) -> Planner:
    kind = PLANNERS[name]
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in SMALL.items() if key in fields})


def applies(planner: str, discrete: bool) -> bool:
    return planner in ANY_ACTION or (planner in DISCRETE_ONLY) == discrete


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        yield


def posed(name: str, objective=None):
    """A model of the family, states, and the objective bound to its observations."""
    family = FAMILIES[name]
    model, obs = family.model(family.spaces()).eval(), family.obs()
    bound = (objective or family.objective).bind(
        model, obs, generator=torch.Generator().manual_seed(0)
    )
    return model, state_of(model, obs), bound


CASES = [(planner, family) for planner in PLANNERS.names() for family in FAMILIES]


@pytest.mark.parametrize(("planner", "family"), CASES)
def test_every_planner_keeps_the_contract_on_every_family_or_says_why_not(planner, family):
    model, state, objective = posed(family)
    if applies(planner, model.spaces.discrete):
        passed = check_planner(small(planner), model, state, objective)
        assert len(passed) == 5 + bool(model.spaces.action_groups)
    else:
        with pytest.raises(PlanError, match="action space is"):
            small(planner).plan(model, state, objective)


OBJECTIVES = {
    "reward": Reward(),
    "reward without value": Reward(bootstrap="none"),
    "survival": Survival(),
    "goal last": Goal(),
    "goal sum": Goal(mode="sum"),
    "goal all": Goal(mode="all"),
    "weighted": Weighted([(1.0, Reward()), (0.5, Goal()), (0.1, ActionCost())]),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_be_planned_for_in_one_model(name):
    """The recurrent toy has reward and continue heads, and features to compare with a goal's."""
    model, state, objective = posed("rssm", OBJECTIVES[name])
    planner = CEM(horizon=3, samples=64, elites=8, iterations=4, execute="best")
    plan = planner.plan(model, state, objective, generator=torch.Generator().manual_seed(0))
    idle = torch.zeros(len(state), 32, 3, 2)
    generator = torch.Generator().manual_seed(1)
    lazy = score(model, state, idle, objective, generator=generator).mean(1)
    assert (plan.score > lazy).all()


def test_reward_heads_of_muzero_and_dreamer4_are_planned_for_with_and_without_a_value():
    model, state, objective = posed("muzero", Reward(bootstrap="value"))
    torch.nn.init.normal_(model.heads["value"].net[-1].weight)
    plan = PLANNERS["shooting"](horizon=2, samples=40).plan(
        model, state, objective, generator=torch.Generator().manual_seed(0)
    )
    states = model.rollout(state, plan.actions.unsqueeze(1))
    value = model.predict("value", states).mean[:, 0, -1]
    torch.testing.assert_close(plan.score, 0.99**2 * value, rtol=1e-4, atol=1e-5)


class Unbounded(CEM):
    def propose(self, problem, belief, iteration):
        free = dataclasses.replace(
            problem, low=torch.full_like(problem.low, -9), high=torch.full_like(problem.high, 9)
        )
        return super().propose(free, belief, iteration)


class Unseeded(CEM):
    def plan(self, model, state, objective, *, warm_start=None, generator=None):
        return super().plan(model, state, objective, warm_start=warm_start)


class Careless(CEM):
    def plan(self, model, state, objective, *, warm_start=None, generator=None):
        model.train()
        return super().plan(model, state, objective, warm_start=warm_start, generator=generator)


class FirstRowOnly(CEM):
    def plan(self, model, state, objective, *, warm_start=None, generator=None):
        found = super().plan(model, state, objective, warm_start=warm_start, generator=generator)
        return found[:1]


class Meddling(CEM):
    def plan(self, model, state, objective, *, warm_start=None, generator=None):
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return super().plan(model, state, objective, warm_start=warm_start, generator=generator)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Unbounded, "plans stay inside the action bounds.*the (lower|upper) bound"),
        (Unseeded, "the same seed gives the same plan"),
        (Careless, "the mode was changed"),
        (FirstRowOnly, r"plans are \[B, H, A\] and finite"),
        (Meddling, "changed the model's weights"),
    ],
)
def test_a_broken_planner_is_found_out(broken, complaint):
    with pytest.raises(CheckError, match=complaint):
        check_planner(broken(**SMALL), *posed("lewm"))


def test_a_plan_of_half_choices_is_found_out():
    class Undecided(type(small("categorical_cem"))):  # type: ignore[misc]
        def centre(self, problem, belief):
            return belief.probs

    with pytest.raises(CheckError, match="a choice is not one-hot"):
        check_planner(Undecided(**SMALL), *posed("muzero"))


def test_environments_and_candidates_are_one_batch():
    model, state, objective = posed("lewm")
    sizes = []
    model.predictor.register_forward_hook(lambda *_: sizes.append(-1))
    dream = type(model).rollout

    def spy(state, actions, *, generator=None):
        sizes.append(tuple(actions.shape[:2]))
        return dream(model, state, actions, generator=generator)

    model.rollout = spy
    cem().plan(model, state, objective, generator=torch.Generator().manual_seed(0))
    assert sizes == [(4, 12), (4, 12), (4, 1)]
