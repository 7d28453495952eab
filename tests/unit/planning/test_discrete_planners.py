"""Random shooting for every action space, and CEM over choices."""

import dataclasses
import itertools

import gymnasium as gym
import pytest
import torch
from planning_toys import Identity, Linear, PointMass, Position, TwoPeaks

from wm_toolkit.config import from_dict, to_dict
from wm_toolkit.errors import ConfigError, PlanError
from wm_toolkit.planning.base import PLANNERS
from wm_toolkit.planning.categorical import Categorical, CategoricalCEM
from wm_toolkit.planning.objective import Goal, Objective
from wm_toolkit.planning.rollout import score
from wm_toolkit.planning.shooting import RandomShooting

MOVES = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])


def walker() -> Linear:
    """Three choices: right, left, up."""
    return Linear(torch.eye(2), MOVES, gym.spaces.Discrete(3))


@dataclasses.dataclass(frozen=True)
class Code(Objective):
    """A combination lock: every step is worth something only with its own right choice."""

    secret: tuple[int, ...]

    def score(self, model, actions, states):
        right = torch.tensor(self.secret)
        return (actions.argmax(-1) == right).float().cumprod(-1).sum(-1)


def test_shooting_finds_the_best_of_all_plans_when_it_draws_them_all(rng):
    model, goal = walker(), Goal(torch.tensor([[2.0, 1.0]]), mode="sum")
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    plans = torch.nn.functional.one_hot(every, 3).float()[None]
    best = score(model, model.initial(1), plans, goal).amax()
    plan = RandomShooting(horizon=3).plan(model, model.initial(1), goal, generator=rng)
    assert plan.score[0] == best
    assert plan.actions.sum(-1).eq(1).all()


def test_shooting_returns_the_best_of_its_uniform_draws(rng):
    model, (where, height) = Identity(), TwoPeaks().best()
    plan = RandomShooting(horizon=1).plan(model, model.initial(3), TwoPeaks(), generator=rng)
    assert (plan.actions - where).abs().amax() < 0.03
    assert (plan.score > 0.95 * height).all()


def test_shooting_draws_again_in_every_iteration_and_keeps_the_best():
    def reached(iterations):
        model, rng = Identity(), torch.Generator().manual_seed(0)
        planner = RandomShooting(horizon=1, samples=4, iterations=iterations)
        return planner.plan(model, model.initial(1), TwoPeaks(), generator=rng)

    best = reached(30).record.best[0]
    assert (best.diff() >= 0).all()
    assert best[-1] > best[0] == reached(1).score[0]


def test_shooting_searches_bits(rng):
    model, secret = Identity(4, gym.spaces.MultiBinary(4)), torch.tensor([1.0, 0.0, 0.0, 1.0])
    plan = RandomShooting(horizon=1).plan(model, model.initial(1), Goal(secret), generator=rng)
    assert plan.actions.flatten().tolist() == secret.tolist()


def test_shooting_never_does_worse_than_its_warm_start(rng):
    model, goal = PointMass(), Goal(torch.tensor([[0.3, -0.2]]))
    warm = torch.tensor([[0.6, -0.4], [1.0, -0.7], [0.7, -0.5], [0.7, -0.4]])[None]
    planner = RandomShooting(horizon=4, samples=3)
    plan = planner.plan(model, model.initial(1), goal, warm_start=warm, generator=rng)
    assert torch.equal(plan.actions, warm)
    cold = planner.plan(model, model.initial(1), goal, warm_start=0 * warm, generator=rng)
    assert cold.actions.abs().amin() > 0, "zeros mean no warm start, not a plan of zeros"


def test_categorical_cem_opens_a_lock_that_shooting_does_not(rng):
    secret = (2, 0, 1, 1, 0, 2, 2, 1)
    model = walker()
    planner = CategoricalCEM(horizon=8, samples=200, elites=20, iterations=15)
    plan = planner.plan(model, model.initial(2), Code(secret), generator=rng)
    assert plan.actions.argmax(-1).tolist() == [list(secret)] * 2
    assert plan.score.tolist() == [8.0, 8.0]
    blind = RandomShooting(horizon=8, samples=200, iterations=15)
    assert blind.plan(model, model.initial(1), Code(secret), generator=rng).score.item() < 8


def test_categorical_cem_plans_for_every_row_and_every_group_of_choices(rng):
    action = gym.spaces.MultiDiscrete([3, 4])
    model = Identity(7, action)
    goals = torch.tensor([[1.0, 0, 0, 0, 0, 0, 1.0], [0, 0, 1.0, 0, 1.0, 0, 0]])
    planner = CategoricalCEM(horizon=2, samples=64, elites=8, iterations=6)
    plan = planner.plan(model, model.initial(2), Goal(goals, mode="sum"), generator=rng)
    assert torch.equal(plan.actions, goals[:, None].expand(2, 2, 7))
    assert plan.record.spread[:, -1].amax() < 0.1 < plan.record.spread[:, 0].amin()


def test_categorical_cem_draws_by_its_probabilities(rng):
    model = walker()
    planner = CategoricalCEM(horizon=1, samples=20_000)
    probs = torch.tensor([[[0.7, 0.25, 0.05]]])
    problem = dataclasses.make_dataclass("P", ["generator"])(rng)
    drawn = planner.propose(problem, Categorical(probs, (3,)), 0)
    assert drawn.mean((0, 1, 2)).tolist() == pytest.approx(probs.flatten().tolist(), abs=0.01)
    assert drawn[0, 0, 0].tolist() == [1, 0, 0], "candidate 0 is the most likely plan"
    assert model.spaces.action_groups == (3,)


def test_categorical_cem_moves_to_the_frequencies_of_the_elites():
    elites = torch.eye(3)[[0, 0, 0, 1]].view(1, 4, 1, 3)
    old = Categorical(torch.tensor([[[0.0, 0.0, 1.0]]]), (3,))
    planner = CategoricalCEM(horizon=1, momentum=0.2, uniform_share=0.1)
    probs = planner.refit(None, old, elites, torch.zeros(1, 4)).probs
    blended = torch.tensor([0.8 * 0.75, 0.8 * 0.25, 0.2])
    assert probs.flatten().tolist() == pytest.approx((0.9 * blended + 0.1 / 3).tolist())


def test_a_warm_start_leans_the_first_draws_and_zeros_leave_them_even(rng):
    model = walker()
    warm = torch.zeros(1, 2, 3)
    warm[0, 0, 1] = 1.0
    planner = CategoricalCEM(horizon=2)
    seen = []

    class Spy(Objective):
        def score(self, model, actions, states):
            seen.append(actions)
            return actions[..., 0].sum(-1)

    planner.plan(model, model.initial(1), Spy(), warm_start=warm, generator=rng)
    frequencies = seen[0].mean((0, 1))
    assert frequencies[0].tolist() == pytest.approx([1 / 6, 4 / 6, 1 / 6], abs=0.08)
    assert frequencies[1].tolist() == pytest.approx([1 / 3] * 3, abs=0.08)


def test_categorical_cem_stops_early_and_honours_seeds():
    def once(seed):
        planner = CategoricalCEM(horizon=3, iterations=100, tolerance=0.05)
        rng = torch.Generator().manual_seed(seed)
        return planner.plan(walker(), Position(torch.zeros(1, 2)), Code((0, 1, 2)), generator=rng)

    plan = once(0)
    assert plan.record.best.shape[1] < 20
    assert torch.equal(plan.record.mean, once(0).record.mean)
    assert not torch.equal(plan.record.mean, once(1).record.mean)


@pytest.mark.parametrize("action", [gym.spaces.MultiBinary(2), gym.spaces.Box(-1, 1, (2,))])
def test_categorical_cem_says_what_suits_other_spaces(action):
    model = Identity(2, action)
    with pytest.raises(PlanError, match=r"use CEM for a Box, RandomShooting for MultiBinary"):
        CategoricalCEM(horizon=1).plan(model, model.initial(1), Goal(torch.zeros(2)))


def test_settings_survive_json_and_names_are_registered():
    for name, planner in (
        ("shooting", RandomShooting(horizon=2, samples=7)),
        ("categorical_cem", CategoricalCEM(horizon=2, uniform_share=0.3)),
    ):
        assert PLANNERS[name] is type(planner)
        assert from_dict(type(planner), to_dict(planner)) == planner
    with pytest.raises(ConfigError, match=r"uniform_share is 2\.0"):
        CategoricalCEM(horizon=2, uniform_share=2.0)
