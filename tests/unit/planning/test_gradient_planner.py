"""Gradient ascent through the model."""

import dataclasses
from functools import partial

import gymnasium as gym
import pytest
import torch
from planning_toys import Identity, PointMass, Position, Quadratic, TwoPeaks, oscillator, regulate

from wm_toolkit.config import from_dict, to_dict
from wm_toolkit.errors import ConfigError, NonFiniteError, PlanError
from wm_toolkit.planning import deadline
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.objective import Goal, Objective
from wm_toolkit.planning.rollout import score

GOAL = torch.tensor([[0.3, -0.2]])


@pytest.mark.parametrize(
    "optimizer",
    [
        "Adam",
        partial(torch.optim.SGD, lr=0.2, momentum=0.8),
        partial(torch.optim.AdamW, lr=0.1, betas=(0.9, 0.995), weight_decay=0.0),
        partial(torch.optim.LBFGS, lr=1.0),
    ],
)
def test_any_optimizer_finds_the_optimum_of_the_linear_quadratic_problem(optimizer, rng):
    model, objective = oscillator(), Quadratic()
    start = Position(torch.tensor([[1.0, -0.5], [-0.7, 0.2]]))
    planner = GradientPlanner(horizon=5, samples=2, iterations=150, optimizer=optimizer)
    plan = planner.plan(model, start, objective, generator=rng)
    for b in range(2):
        optimum = regulate(model, start.x[b], 5, objective)
        assert (plan.actions[b] - optimum).abs().amax() < 0.02
        best = score(model, start[b : b + 1], optimum[None, None], objective).item()
        assert plan.score[b].item() == pytest.approx(best, rel=1e-3)


def test_the_bounds_hold_after_every_step(rng):
    seen = []

    class Spy(PointMass):
        def rollout(self, state, actions, *, generator=None):
            seen.append(actions.detach().abs().amax().item())
            return super().rollout(state, actions, generator=generator)

    model = Spy(bound=0.5)
    planner = GradientPlanner(horizon=3, iterations=20, learning_rate=0.3, noise_std=0.5)
    plan = planner.plan(model, model.initial(1), Goal(torch.tensor([[9.0, -9.0]])), generator=rng)
    assert torch.allclose(plan.actions[0], torch.tensor([0.5, -0.5]).expand(3, 2))
    assert len(seen) == 21
    assert max(seen) <= 0.5


def test_one_start_sticks_on_the_lower_hill_and_many_find_the_higher(rng):
    where, height = TwoPeaks().best()
    model = Identity()
    one = GradientPlanner(horizon=1, samples=1, learning_rate=0.02)
    assert one.plan(model, model.initial(1), TwoPeaks(), generator=rng).score.item() < 1.1
    many = dataclasses.replace(one, samples=32)
    plan = many.plan(model, model.initial(1), TwoPeaks(), generator=rng)
    assert plan.actions.item() == pytest.approx(where, abs=0.01)
    assert plan.score.item() == pytest.approx(height, abs=0.01)


@pytest.mark.parametrize("trained", [True, False])
def test_the_model_is_left_without_gradients_and_with_its_flags(trained, rng):
    model = PointMass()
    model.gain.requires_grad_(trained)
    with torch.no_grad():
        GradientPlanner(horizon=2, iterations=3).plan(
            model, model.initial(1), Goal(GOAL), generator=rng
        )
    assert model.gain.grad is None
    assert model.gain.requires_grad is trained


def test_the_flags_come_back_even_when_the_search_fails(rng):
    model = PointMass()
    with pytest.raises(PlanError, match="use a sampling planner such as CEM"):
        GradientPlanner(horizon=2).plan(model, model.initial(1), Objective(), generator=rng)
    assert model.gain.requires_grad


def test_a_warm_start_is_the_first_start_and_nothing_better_is_lost(rng):
    model, objective = oscillator(), Quadratic()
    start = Position(torch.tensor([[1.0, -0.5]]))
    optimum = regulate(model, start.x[0], 4, objective)[None]
    # Steps far too large: every step leads away from the optimum.
    planner = GradientPlanner(horizon=4, samples=1, iterations=3, learning_rate=5.0)
    plan = planner.plan(model, start, objective, warm_start=optimum, generator=rng)
    assert torch.equal(plan.actions, optimum)
    assert plan.record.best.shape == (1, 4), "three steps, and the plans after the last"
    assert plan.record.best[0].unique().numel() == 1


def test_seeds_are_honoured_and_a_memory_cap_changes_nothing():
    def once(seed, **changes):
        model, generator = PointMass(), torch.Generator().manual_seed(seed)
        planner = GradientPlanner(horizon=3, iterations=5, noise_std=0.01, **changes)
        return planner.plan(model, model.initial(3), Goal(GOAL), generator=generator).actions

    assert torch.equal(once(0), once(0))
    assert not torch.equal(once(0), once(1))
    assert torch.allclose(once(0), once(0, memory_bytes=5_000), atol=1e-6)


def test_it_stops_when_nothing_moves_or_time_is_up(rng, monkeypatch):
    model = PointMass()
    still = GradientPlanner(horizon=3, iterations=2000, tolerance=1e-3)
    plan = still.plan(model, model.initial(1), Goal(GOAL), generator=rng)
    assert plan.record.best.shape[1] < 1000
    assert plan.score.item() == pytest.approx(0.0, abs=1e-3)
    ticks = iter(range(1000))
    monkeypatch.setattr(deadline, "clock", lambda: float(next(ticks)))
    hurried = dataclasses.replace(still, tolerance=None, time_limit=6.5)
    plan = hurried.plan(model, model.initial(1), Goal(GOAL), generator=rng)
    assert plan.record.best.shape[1] == 5 + 1


def test_a_start_that_diverges_is_left_behind(rng):
    class Cliff(Objective):
        def reward(self, model, action, state):
            x = state.x[..., 0]
            return torch.where(x > 0.1, torch.nan, 1.0) * -(x + 0.5).square()

    model = Identity()
    planner = GradientPlanner(horizon=1, samples=16, iterations=60)
    plan = planner.plan(model, model.initial(1), Cliff(), generator=rng)
    assert plan.actions.item() == pytest.approx(-0.5, abs=0.02)
    with pytest.raises(NonFiniteError, match=r"row \[0\]"):
        planner.plan(model, model.initial(1), Goal(torch.tensor([torch.nan])), generator=rng)


def test_discrete_actions_are_refused(rng):
    model = Identity(3, gym.spaces.Discrete(3))
    with pytest.raises(PlanError, match="use CategoricalCEM or RandomShooting"):
        GradientPlanner(horizon=1).plan(model, model.initial(1), Goal(torch.zeros(3)))


def test_an_unknown_optimizer_brings_close_matches():
    with pytest.raises(ConfigError, match=r"no optimizer 'Adan'\. Did you mean 'Adam'"):
        GradientPlanner(horizon=1, optimizer="Adan")


def test_settings_with_a_named_optimizer_survive_json():
    planner = GradientPlanner(horizon=4, optimizer="SGD", learning_rate=1.0, noise_std=0.003)
    assert from_dict(GradientPlanner, to_dict(planner)) == planner
