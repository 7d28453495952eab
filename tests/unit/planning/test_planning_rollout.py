"""Scoring candidates in pieces."""

import pytest
import torch
from planning_toys import Linear, PointMass, Position, box

from wm_toolkit.errors import PlanError, ShapeError
from wm_toolkit.planning import rollout
from wm_toolkit.planning.objective import ActionCost, Goal, Objective, Weighted
from wm_toolkit.planning.rollout import STATES_PER_STEP, score, score_and_gradient


def problem(rng, size=5, candidates=7, horizon=3):
    state = Position(torch.randn(size, 2, generator=rng))
    actions = torch.randn(size, candidates, horizon, 2, generator=rng)
    goal = Goal(torch.randn(size, 2, generator=rng), mode="sum")
    return state, actions, Weighted([(1.0, goal), (0.1, ActionCost())])


def bytes_for(rows: int, horizon: int = 3) -> int:
    """Memory for that many candidates of the point mass: two floats of state, two of action."""
    return rows * 16 * STATES_PER_STEP * (horizon + 1)


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 13, 14, 34, 35])
def test_scores_do_not_depend_on_how_the_candidates_are_cut(rows, rng):
    state, actions, objective = problem(rng)
    whole = score(PointMass(), state, actions, objective)
    cut = score(PointMass(), state, actions, objective, memory_bytes=bytes_for(rows))
    assert torch.allclose(cut, whole, rtol=1e-6)


def test_score_is_the_walk_of_every_candidate_from_its_own_state_to_its_own_goal(rng):
    state, actions, _ = problem(rng, size=2, candidates=2)
    goals = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    scores = score(PointMass(), state, actions, Goal(goals))
    for b in range(2):
        for n in range(2):
            end = state.x[b] + 0.1 * actions[b, n].sum(0)
            assert scores[b, n].item() == pytest.approx(-(end - goals[b]).square().mean().item())


@pytest.mark.parametrize(
    ("rows", "batches"),
    [(35, [35]), (34, [14, 21]), (14, [7, 14, 14]), (7, [7] * 5), (4, [3, 4] * 5), (0, [1] * 35)],
)
def test_no_batch_exceeds_the_memory_cap_and_all_are_about_even(rows, batches, rng):
    state, actions, objective = problem(rng)
    model = PointMass()
    score(model, state, actions, objective, memory_bytes=max(1, bytes_for(rows)))
    assert sorted(model.dreamt) == sorted(batches)


@pytest.mark.parametrize(
    ("stochastic", "batches"),
    [(False, [14, 21]), (True, [35])],
    ids=["deterministic", "stochastic"],
)
def test_a_cpu_takes_pieces_that_its_caches_hold_unless_noise_would_change(
    stochastic, batches, rng, monkeypatch
):
    monkeypatch.setattr(rollout, "CPU_BYTES", bytes_for(14))
    monkeypatch.setattr(rollout, "CPU_ROWS", 21)
    state, actions, objective = problem(rng)
    model = PointMass()
    model.stochastic = stochastic
    score(model, state, actions, objective)
    assert sorted(model.dreamt) == batches


def test_scoring_builds_no_graph(rng):
    state, actions, objective = problem(rng)
    assert not score(PointMass(), state, actions.requires_grad_(), objective).requires_grad


@pytest.mark.parametrize("rows", [3, 35])
def test_the_gradient_is_the_derivative_of_the_score_however_it_is_cut(rows, rng):
    state, actions, _ = problem(rng)
    goals = torch.randn(5, 2, generator=rng)
    model = PointMass()
    with torch.no_grad():
        scores, gradient = score_and_gradient(
            model, state, actions, Goal(goals), memory_bytes=bytes_for(rows)
        )
    end = state.x[:, None] + 0.1 * actions.sum(2)
    # d/da of -mean((x + 0.1 sum a - g)^2) is the same for every step.
    expected = -0.1 * (end - goals[:, None])
    assert torch.allclose(gradient, expected[:, :, None].expand_as(gradient), atol=1e-6)
    assert torch.allclose(scores, score(model, state, actions, Goal(goals)))
    assert model.gain.grad is None


def test_a_score_without_a_gradient_is_explained(rng):
    state, actions, _ = problem(rng)
    with pytest.raises(PlanError, match="Objective in PointMass has no gradient"):
        score_and_gradient(PointMass(), state, actions, Objective())


@pytest.mark.parametrize("shape", [(5, 7, 3), (4, 7, 3, 2), (5, 7, 3, 1)])
def test_candidates_of_the_wrong_shape_are_refused(shape, rng):
    state, _, objective = problem(rng)
    with pytest.raises(ShapeError, match=r"expected \[B, N, H, A\] with B = 5"):
        score(PointMass(), state, torch.zeros(shape), objective)


def test_nan_is_handed_on_for_the_planner_to_judge():
    model = Linear(torch.eye(2) * torch.nan, torch.eye(2), box(2))
    scores = score(model, Position(torch.ones(1, 2)), torch.zeros(1, 3, 1, 2), Goal(torch.ones(2)))
    assert scores.isnan().all()
