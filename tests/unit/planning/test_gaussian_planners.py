"""CEM, iCEM and MPPI on systems with a known optimum."""

import dataclasses

import gymnasium as gym
import pytest
import torch
from planning_toys import (
    Identity,
    PointMass,
    Position,
    Quadratic,
    TwoPeaks,
    box,
    oscillator,
    published_loop,
    regulate,
    searched,
)

from wm_toolkit.config import from_dict, to_dict
from wm_toolkit.errors import ConfigError, NonFiniteError, PlanError, ShapeError
from wm_toolkit.planning import deadline
from wm_toolkit.planning.base import PLANNERS, Planner
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.gaussian import Gaussian
from wm_toolkit.planning.icem import ICEM
from wm_toolkit.planning.mppi import MPPI
from wm_toolkit.planning.objective import Goal, Objective
from wm_toolkit.planning.problem import select_elites
from wm_toolkit.planning.rollout import score

GOAL = torch.tensor([[0.5, -0.25]])

# One search of each kind, of about the same effort.
SEARCHES = [
    CEM(horizon=6, samples=256, elites=24, iterations=15),
    ICEM(horizon=6, samples=256, elites=24, iterations=15, noise_exponent=1.0),
    MPPI(horizon=6, samples=256, elites=64, iterations=15, min_std=0.0),
]
search = pytest.mark.parametrize("planner", SEARCHES, ids=lambda p: type(p).__name__)


@dataclasses.dataclass(frozen=True)
class Spy(Objective):
    """Hands an objective through and keeps what was scored."""

    inner: Objective
    seen: list = dataclasses.field(default_factory=list)

    def score(self, model, actions, states):
        scores = self.inner.score(model, actions, states)
        self.seen.append((actions.clone(), scores))
        return scores


@search
def test_reaches_the_goal_of_a_linear_system(planner, rng):
    model = PointMass()
    plan = planner.plan(model, model.initial(1), Goal(GOAL), generator=rng)
    final = model.features(model.rollout(model.initial(1), plan.actions[:, None]))[:, 0, -1]
    assert (final - GOAL).norm() < 0.02
    assert plan.score.item() == pytest.approx(-(final - GOAL).square().mean().item(), abs=1e-7)


@search
def test_finds_the_optimum_of_the_linear_quadratic_problem(planner, rng):
    model, objective, start = oscillator(), Quadratic(), torch.tensor([1.0, -0.5])
    optimum = regulate(model, start, 6, objective)
    plan = planner.plan(model, Position(start[None]), objective, generator=rng)
    assert (plan.actions[0] - optimum).abs().amax() < 0.05
    best = score(model, Position(start[None]), optimum[None, None], objective)[0, 0]
    assert best - 0.005 * best.abs() < plan.score[0] <= best + 1e-5


@search
def test_climbs_the_higher_of_two_hills(planner, rng):
    where, height = TwoPeaks().best()
    planner = dataclasses.replace(planner, horizon=1)
    model = Identity()
    plan = planner.plan(model, model.initial(1), TwoPeaks(), generator=rng)
    assert plan.actions.item() == pytest.approx(where, abs=0.01)
    assert plan.score.item() == pytest.approx(height, rel=0.01)


@search
def test_goes_into_the_corner_of_the_bounds_and_never_beyond(planner, rng):
    model, spy = PointMass(bound=0.5), Spy(Goal(torch.tensor([[9.0, -9.0]])))
    plan = planner.plan(model, model.initial(1), spy, generator=rng)
    corner = torch.tensor([0.5, -0.5]).expand(6, 2)
    assert (plan.actions[0] - corner).abs().amax() < 0.01
    assert max(actions.abs().amax().item() for actions, _ in spy.seen) <= 0.5


@search
def test_every_environment_of_a_batch_gets_its_own_plan(planner, rng):
    model = PointMass()
    goals = torch.tensor([[0.5, -0.25], [0.0, 0.3], [-0.4, -0.4]])
    state = Position(torch.tensor([[0.0, 0.0], [0.2, 0.1], [-0.1, 0.1]]))
    plan = planner.plan(model, state, Goal(goals), generator=rng)
    final = model.features(model.rollout(state, plan.actions[:, None]))[:, 0, -1]
    assert (final - goals).norm(dim=-1).amax() < 0.03


@search
def test_the_same_seed_gives_the_same_plan_and_another_seed_another(planner):
    def once(seed):
        model, generator = PointMass(), torch.Generator().manual_seed(seed)
        return planner.plan(model, model.initial(2), Goal(GOAL), generator=generator).actions

    torch.manual_seed(1)
    first = once(3)
    torch.manual_seed(2)
    assert torch.equal(first, once(3))
    assert not torch.equal(first, once(4))


@search
def test_a_memory_cap_does_not_change_the_plan(planner):
    def once(memory_bytes):
        model, generator = PointMass(), torch.Generator().manual_seed(0)
        small = dataclasses.replace(planner, memory_bytes=memory_bytes)
        return small.plan(model, model.initial(3), Goal(GOAL), generator=generator).actions

    assert torch.allclose(once(2**30), once(20_000), atol=1e-5)


@search
def test_the_record_shows_a_search_that_narrows_and_never_loses_its_best(planner, rng):
    model = PointMass()
    record = planner.plan(model, model.initial(2), Goal(GOAL), generator=rng).record
    assert record.best.shape == record.mean.shape == record.spread.shape == (2, 15)
    assert (record.best.diff(dim=1) >= 0).all()
    assert (record.spread[:, -1] < 0.3 * record.spread[:, 0]).all()
    assert (record.mean[:, -1] > record.mean[:, 0]).all()


@search
def test_a_warm_start_saves_iterations(planner):
    model, objective = oscillator(), Quadratic()
    start = Position(torch.tensor([[1.0, -0.5]]))
    short = dataclasses.replace(planner, iterations=1, samples=64)
    optimum = regulate(model, start.x[0], 6, objective)[None]

    def regret(warm_start):
        generator = torch.Generator().manual_seed(0)
        plan = short.plan(model, start, objective, warm_start=warm_start, generator=generator)
        return (score(model, start, optimum[None], objective)[:, 0] - plan.score).item()

    assert regret(optimum) < 0.5 * regret(None)
    assert regret(torch.zeros_like(optimum)) == regret(None), "zeros mean no warm start"


@search
def test_stops_early_once_the_spread_is_below_the_tolerance(planner, rng):
    model = PointMass()
    quick = dataclasses.replace(planner, iterations=200, tolerance=0.05)
    record = quick.plan(model, model.initial(2), Goal(GOAL, mode="sum"), generator=rng).record
    done = record.spread.shape[1]
    assert 1 < done < 200
    assert (record.spread[:, -1] < 0.05).all()
    assert (record.spread[:, :-1] >= 0.05).any(0).all()


class Clock:
    """One second passes between two looks at it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@search
@pytest.mark.parametrize(("limit", "done"), [(0.001, 1), (6.5, 5), (1000.0, 15)])
def test_the_time_limit_ends_the_search_in_time_but_not_before_one_iteration(
    planner, limit, done, rng, monkeypatch
):
    monkeypatch.setattr(deadline, "clock", Clock())
    model = PointMass()
    limited = dataclasses.replace(planner, time_limit=limit)
    record = limited.plan(model, model.initial(1), Goal(GOAL), generator=rng).record
    assert record.best.shape[1] == done


@search
def test_candidates_that_make_the_model_diverge_count_as_the_worst(planner, rng):
    @dataclasses.dataclass(frozen=True)
    class Cliff(Objective):
        def reward(self, model, action, state):
            x = state.x[..., 0]
            nan = torch.where(x > 0, torch.nan, -(x + 0.5).square())
            return torch.where(x > 0.5, torch.inf, nan)

    planner = dataclasses.replace(planner, horizon=1)
    model = Identity()
    plan = planner.plan(model, model.initial(1), Cliff(), generator=rng)
    assert plan.actions.item() == pytest.approx(-0.5, abs=0.02)
    assert plan.record.mean.isfinite().all()


@search
def test_rows_where_nothing_is_finite_are_named(planner, rng):
    model = PointMass()
    goals = torch.tensor([[0.0, 0.0], [torch.nan, 0.0], [0.0, torch.nan]])
    with pytest.raises(NonFiniteError, match=r"row \[1, 2\] has a finite score \(Goal in PointM"):
        planner.plan(model, model.initial(3), Goal(goals), generator=rng)


@search
def test_discrete_actions_are_refused_with_a_way_out(planner):
    model = Identity(3, gym.spaces.Discrete(3))
    with pytest.raises(PlanError, match=r"Discrete\(3\); use CategoricalCEM or RandomShooting"):
        planner.plan(model, model.initial(1), Goal(torch.zeros(3)))


@search
def test_a_warm_start_is_padded_or_cut_and_must_fit(planner, rng):
    model = PointMass()
    for length in (1, 6, 9):
        warm = torch.full((2, length, 2), 0.3)
        plan = planner.plan(model, model.initial(2), Goal(GOAL), warm_start=warm, generator=rng)
        assert plan.actions.shape == (2, 6, 2)
    with pytest.raises(ShapeError, match=r"\(2, 6, 3\), expected \[B, H, A\] with B = 2 .* A = 2"):
        planner.plan(model, model.initial(2), Goal(GOAL), warm_start=torch.zeros(2, 6, 3))


@search
def test_the_settings_survive_json_and_are_found_by_name(planner):
    assert from_dict(type(planner), to_dict(planner)) == planner
    assert isinstance(planner, Planner)
    assert PLANNERS[type(planner).__name__.lower()] is type(planner)


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_no_iteration_of_cem_falls_below_its_current_mean(exponent, rng):
    spy, model = Spy(TwoPeaks()), Identity()
    planner = CEM(horizon=3, samples=12, elites=4, iterations=40, noise_exponent=exponent)
    planner.plan(model, model.initial(4), spy, generator=rng)
    mean = torch.zeros(4, 3, 1)
    assert len(spy.seen) == 41, "forty iterations, and the plan that is returned"
    for actions, scores in spy.seen[:-1]:
        assert torch.allclose(actions[:, 0], mean, atol=1e-6), "candidate 0 is the current mean"
        assert (scores.amax(1) >= scores[:, 0]).all()
        elites = actions[torch.arange(4)[:, None], scores.topk(4, dim=1).indices]
        mean = elites.mean(1)
    assert torch.allclose(spy.seen[-1][0][:, 0], mean, atol=1e-6)


def test_cem_refits_to_mean_and_unbiased_deviation_with_momentum_and_floor():
    elites = torch.tensor([[[[1.0]], [[3.0]]]])
    old = Gaussian(torch.tensor([[[10.0]]]), torch.tensor([[[4.0]]]))
    scores = torch.zeros(1, 2)
    plain = CEM(horizon=1).refit(None, old, elites, scores)
    assert (plain.mean.item(), plain.std.item()) == pytest.approx((2.0, 2**0.5))
    slow = CEM(horizon=1, momentum=0.25).refit(None, old, elites, scores)
    expected = (0.75 * 2 + 0.25 * 10, 0.75 * 2**0.5 + 0.25 * 4)
    assert (slow.mean.item(), slow.std.item()) == pytest.approx(expected)
    wide = CEM(horizon=1, min_std=3.0).refit(None, old, elites, scores)
    assert wide.std.item() == 3.0


def test_the_plan_is_the_mean_or_the_best_ever_scored(rng):
    model, start = oscillator(), Position(torch.tensor([[1.0, -0.5]]))
    for execute in ("mean", "best"):
        spy = Spy(Quadratic())
        planner = CEM(horizon=6, samples=40, elites=5, iterations=3, execute=execute)
        plan = planner.plan(model, start, spy, generator=rng)
        everything = torch.cat([scores.flatten() for _, scores in spy.seen])
        expected = spy.seen[-1][1].item() if execute == "mean" else everything.max().item()
        assert plan.score.item() == expected


def test_icem_scores_fewer_candidates_every_iteration_but_twice_the_elites(rng):
    model = PointMass()
    planner = ICEM(horizon=2, samples=100, elites=10, iterations=6, decay=2.0)
    planner.plan(model, model.initial(1), Goal(GOAL), generator=rng)
    assert model.dreamt == [100, 50, 25, 20, 20, 20, 1]


def test_icem_scores_a_share_of_the_elites_again_and_the_mean_first_and_last(rng):
    model, spy = PointMass(), Spy(Goal(GOAL))
    planner = ICEM(horizon=2, samples=40, elites=10, iterations=3, keep_elites=0.3, decay=1.0)
    warm = torch.full((1, 2, 2), 0.1)
    planner.plan(model, model.initial(1), spy, warm_start=warm, generator=rng)
    (first, first_scores), (second, second_scores), (third, _), _ = spy.seen
    assert torch.equal(first[:, 0], warm)
    assert torch.equal(second[0, :3], first[0, first_scores[0].topk(3).indices])
    assert torch.equal(third[0, 1:4], second[0, second_scores[0].topk(3).indices])


def test_mppi_weighs_candidates_by_the_exponential_of_their_score():
    planner = MPPI(horizon=1, temperature=0.5, temperature_unit="score", min_std=0.0)
    scores = torch.tensor([[0.0, -1.0, -torch.inf]])
    weights = planner.weights(scores)
    expected = torch.tensor([1.0, 0.1353353, 0.0]) / 1.1353353
    assert torch.allclose(weights[0], expected)
    belief = planner.refit(
        None,
        Gaussian(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)),
        torch.tensor([[[[1.0]], [[3.0]], [[99.0]]]]),
        scores,
    )
    mean = float(expected[0] + 3 * expected[1])
    variance = float(expected[0] * (1 - mean) ** 2 + expected[1] * (3 - mean) ** 2)
    assert belief.mean.item() == pytest.approx(mean)
    assert belief.std.item() == pytest.approx(variance**0.5)


def test_mppi_weights_do_not_depend_on_the_scale_of_the_objective():
    scores = torch.tensor([[3.0, 2.0, 0.5, -torch.inf]])
    small, large = MPPI(horizon=1).weights(scores), MPPI(horizon=1).weights(1000 * scores + 7)
    assert torch.allclose(small, large)
    assert small[0, 3] == 0
    assert MPPI(horizon=1).weights(torch.zeros(1, 4)).tolist() == [[0.25] * 4]


def test_mppi_keeps_a_fixed_deviation_if_asked(rng):
    model = PointMass()
    planner = MPPI(horizon=2, samples=64, deviation="fixed", init_std=0.3)
    record = planner.plan(model, model.initial(1), Goal(GOAL), generator=rng).record
    assert record.spread[0].tolist() == pytest.approx([0.3] * 6)


def test_a_bound_that_excludes_zero_moves_the_first_mean_inside(rng):
    action = gym.spaces.Box(2.0, 4.0, (1,), "float32")
    model, spy = Identity(1, action), Spy(Goal(torch.zeros(1)))
    model.spaces = dataclasses.replace(model.spaces, scaling="none")
    plan = CEM(horizon=1, samples=20, elites=5).plan(model, model.initial(1), spy, generator=rng)
    assert plan.actions.item() == pytest.approx(2.0, abs=1e-3)
    assert min(actions.min().item() for actions, _ in spy.seen) >= 2.0


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (CEM, {"elites": 1}, r"CEM.elites is 1, expected in \[2, inf\)"),
        (CEM, {"samples": 20}, "elites is 30, expected at most samples = 20"),
        (CEM, {"iterations": 0}, "iterations is 0"),
        (CEM, {"momentum": 1.0}, "momentum is 1.0"),
        (CEM, {"execute": "man"}, "CEM.execute is 'man'. Did you mean 'mean'"),
        (CEM, {"init_std": float("nan")}, "init_std is nan"),
        (ICEM, {"decay": 0.5}, "decay is 0.5"),
        (ICEM, {"keep_elites": 2.0}, "keep_elites is 2.0"),
        (MPPI, {"temperature": 0.0}, "temperature is 0.0"),
        (MPPI, {"deviation": "fix"}, "MPPI.deviation is 'fix'. Did you mean 'fixed'"),
    ],
)
def test_impossible_settings_are_named(kind, settings, words):
    with pytest.raises(ConfigError, match=words):
        kind(horizon=3, **settings)


def test_unbounded_actions_are_not_clipped(rng):
    model = Identity(1, box(1, torch.inf))
    plan = CEM(horizon=1, samples=64, elites=8, init_std=3.0).plan(
        model, model.initial(1), Goal(torch.tensor([7.0])), generator=rng
    )
    assert plan.actions.item() == pytest.approx(7.0, abs=0.01)


def test_cem_equals_the_published_loop_draw_for_draw():
    """DINO-WM's planner, one environment at a time."""
    mean = published_loop(lambda elites: elites.std(0), mean_candidate=True)
    assert torch.allclose(searched(execute="mean"), mean, atol=1e-6)


def test_elites_come_best_first_and_the_best_stands_in_for_worthless_ones():
    candidates = torch.arange(4.0).view(1, 4, 1, 1).expand(2, 4, 1, 1)
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.0], [-torch.inf, 5.0, -torch.inf, -torch.inf]])
    values, elites = select_elites(candidates, scores, 3)
    assert values.tolist() == [[3.0, 2.0, 1.0], [5.0, -torch.inf, -torch.inf]]
    assert elites.flatten(1).tolist() == [[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]]
