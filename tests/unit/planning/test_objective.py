"""Objectives against numbers worked out by hand and against brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_toys import Column, Identity, PointMass, Position

from wm_toolkit.errors import MissingGoalError, MissingHeadError, PlanError
from wm_toolkit.planning.objective import (
    ActionCost,
    Goal,
    Objective,
    Reward,
    Survival,
    Weighted,
)

# Two candidates of three steps for one environment; the goal is the origin.
PATHS = Position(
    torch.tensor([[[[3.0, 4.0], [0.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]]])
)
ACTIONS = torch.tensor([[[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 0.0], [0, 0]]]])
ORIGIN = torch.zeros(1, 2)


def with_heads(*names: str) -> Identity:
    model = Identity(3)
    for name in names:
        model.heads[name] = Column(("reward", "continue", "value").index(name))
    return model


def test_goal_last_is_minus_the_mean_square_of_the_last_step():
    assert Goal(ORIGIN).score(PointMass(), ACTIONS, PATHS).tolist() == [[-2.0, -2.0]]


def test_goal_sum_adds_the_distances_of_all_steps():
    score = Goal(ORIGIN, mode="sum").score(PointMass(), ACTIONS, PATHS)
    assert score.tolist() == [[-(12.5 + 0.5 + 2.0), -(0.5 + 0.0 + 2.0)]]


def test_goal_all_weighs_later_steps_by_powers_of_the_base():
    score = Goal(ORIGIN, mode="all").score(PointMass(), ACTIONS, PATHS)
    expected = [-(12.5 + 2 * 0.5 + 4 * 2.0) / 7, -(0.5 + 0.0 + 4 * 2.0) / 7]
    assert score[0].tolist() == pytest.approx(expected)


def test_goal_closest_takes_the_best_step_and_a_share_of_the_mean():
    score = Goal(ORIGIN, mode="closest", haste=0.0).score(PointMass(), ACTIONS, PATHS)
    assert score.tolist() == [[-0.5, 0.0]]
    hasty = Goal(ORIGIN, mode="closest", haste=0.1).score(PointMass(), ACTIONS, PATHS)
    assert hasty[0].tolist() == pytest.approx([-0.5 - 0.1 * 15 / 3, -0.1 * 2.5 / 3])


def test_goal_l2_is_the_euclidean_distance():
    score = Goal(ORIGIN, mode="sum", metric="l2").score(PointMass(), ACTIONS, PATHS)
    assert score[0].tolist() == pytest.approx([-(5.0 + 1.0 + 2.0), -(1.0 + 0.0 + 2.0)], abs=1e-5)


def test_l2_has_a_finite_gradient_at_the_goal():
    here = torch.zeros(1, 1, 1, 2, requires_grad=True)
    score = Goal(ORIGIN, metric="l2").score(PointMass(), torch.zeros(1, 1, 1, 2), Position(here))
    (gradient,) = torch.autograd.grad(score.sum(), here)
    assert gradient.isfinite().all()


def test_step_by_step_the_rewards_and_the_value_of_a_goal_add_up_to_its_score():
    for mode in ("last", "sum"):
        goal = Goal(ORIGIN, mode=mode)
        model, total = PointMass(), torch.zeros(1)
        for t in range(3):
            total += goal.reward(model, ACTIONS[:, 0, t], PATHS[:, 0, t])
        total += goal.value(model, PATHS[:, 0, -1])
        assert total == goal.score(model, ACTIONS, PATHS)[:, 0]


def test_every_row_has_its_own_goal_and_selecting_rows_keeps_them_apart():
    goal = Goal(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), metric="l2")
    states = Position(torch.zeros(2, 5, 1, 2))
    score = goal.score(PointMass(), torch.zeros(2, 5, 1, 2), states)
    assert torch.allclose(score, torch.tensor([[0.0], [-5.0]]).expand(2, 5), atol=1e-5)
    chosen = goal.select(torch.tensor([1]))
    assert chosen.distance(PointMass(), Position(torch.zeros(1, 2))).item() == pytest.approx(5.0)
    assert goal.select(slice(1, 2)).features.tolist() == [[3.0, 4.0]]


def test_bind_encodes_the_goal_observation_without_a_gradient():
    model = PointMass()
    bound = Goal().bind(model, {"vector": torch.ones(2, 2), "goal/vector": torch.full((2, 2), 7.0)})
    assert bound.features.tolist() == [[7.0, 7.0]] * 2
    assert not bound.features.requires_grad
    assert bound.bind(model, {}) is bound


def test_a_goal_that_is_nowhere_to_be_found_says_what_there_is():
    with pytest.raises(MissingGoalError, match=r"starts with 'goal/'; got \['vector'\]"):
        Goal().bind(PointMass(), {"vector": torch.ones(1, 2)})
    with pytest.raises(MissingGoalError, match="call bind"):
        Goal().score(PointMass(), ACTIONS, PATHS)
    with pytest.raises(MissingGoalError, match="3 goals for 1 rows"):
        Goal(torch.zeros(3, 2)).score(PointMass(), ACTIONS, PATHS)


def test_action_cost_is_minus_the_mean_square_of_every_action():
    assert ActionCost().score(PointMass(), ACTIONS, PATHS).tolist() == [[-1.5, -2.0]]


def test_reward_discounts_from_the_second_reward_on_and_bootstraps_after_the_last():
    model = with_heads("reward", "value")
    states = Position(torch.tensor([[[[1.0, 0, 0], [2.0, 0, 0], [4.0, 0, 10.0]]]]))
    actions = torch.zeros(1, 1, 3, 3)
    score = Reward(gamma=0.5).score(model, actions, states)
    assert score.item() == 1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 10
    alone = Reward(gamma=0.5, bootstrap="none").score(model, actions, states)
    assert alone.item() == 1 + 0.5 * 2 + 0.25 * 4


def test_what_comes_after_a_terminal_state_is_worth_nothing():
    model = with_heads("reward", "continue", "value")
    states = Position(torch.tensor([[[[1.0, 1, 0], [2.0, 0, 0], [4.0, 1, 100.0]]]]))
    score = Reward(gamma=0.5).score(model, torch.zeros(1, 1, 3, 3), states)
    assert score.item() == 1 + 0.5 * 2


def test_survival_is_the_expected_discounted_number_of_steps_alive():
    model = with_heads("continue")
    states = Position(torch.tensor([[[[0, 1.0, 0], [0, 0.5, 0], [0, 0.5, 0]]]]))
    score = Survival(gamma=1.0).score(model, torch.zeros(1, 1, 3, 3), states)
    assert score.item() == 1 + 0.5 + 0.25


def test_a_missing_head_is_named():
    with pytest.raises(MissingHeadError, match="no 'reward' head"):
        Reward().score(Identity(3), torch.zeros(1, 1, 1, 3), Position(torch.zeros(1, 1, 1, 3)))
    with pytest.raises(MissingHeadError, match="no 'value' head"):
        Reward(bootstrap="value").value(with_heads("reward"), Position(torch.zeros(1, 3)))


def test_weighted_adds_scores_rewards_and_values_of_its_parts():
    model = PointMass()
    both = Weighted([(2.0, Goal(ORIGIN)), (0.5, ActionCost())])
    assert both.score(model, ACTIONS, PATHS).tolist() == [[2 * -2.0 - 0.75, 2 * -2.0 - 1.0]]
    step = Position(torch.tensor([[2.0, 0.0]]))
    assert both.reward(model, torch.tensor([[1.0, 1.0]]), step).tolist() == [-0.5]
    assert both.value(model, step).tolist() == [-4.0]
    assert both.discount(model, step) == 1.0


def test_weighted_binds_and_selects_every_part():
    goals = {"goal/vector": torch.tensor([[1.0, 0.0], [2.0, 0.0]])}
    bound = Weighted([(1.0, Goal()), (1.0, ActionCost())]).bind(PointMass(), goals)
    assert bound.select(torch.tensor([1])).parts[0][1].features.tolist() == [[2.0, 0.0]]


def test_weighted_of_nothing_is_refused():
    with pytest.raises(PlanError, match="at least one"):
        Weighted([])


def test_the_plain_objective_is_worth_nothing():
    assert Objective().score(PointMass(), ACTIONS, PATHS).tolist() == [[0.0, 0.0]]


@settings(deadline=None, max_examples=40)
@given(
    horizon=st.integers(1, 6),
    gamma=st.floats(0, 1, width=32),
    numbers=st.lists(st.floats(0, 1, width=32), min_size=36, max_size=36),
)
def test_score_equals_a_walk_along_every_candidate(horizon, gamma, numbers):
    table = torch.tensor(numbers[: 2 * horizon * 3]).view(1, 2, horizon, 3)
    model = with_heads("reward", "continue", "value")
    score = Reward(gamma=gamma).score(model, torch.zeros(1, 2, horizon, 3), Position(table))
    for candidate in range(2):
        total, alive = 0.0, 1.0
        for reward, goes_on, _ in table[0, candidate].tolist():
            total += alive * reward
            alive *= gamma * goes_on
        total += alive * table[0, candidate, -1, 2].item()
        assert math.isclose(score[0, candidate].item(), total, rel_tol=1e-4, abs_tol=1e-5)
