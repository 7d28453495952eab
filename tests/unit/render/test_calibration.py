"""Calibration has known values for predictions whose truth is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_toolkit.errors import ShapeError
from wm_toolkit.render.calibration import fit, reliability


def test_a_calibrated_head_has_no_error_but_that_of_sampling(rng):
    chance = torch.rand(40_000, generator=rng)
    happened = torch.rand(40_000, generator=rng) < chance
    found = reliability(chance, happened)
    assert found.ece < 0.01
    assert found.brier == pytest.approx(1 / 6, abs=0.005)  # E[p (1 - p)] of uniform p
    assert found.rate == pytest.approx(0.5, abs=0.01)
    assert len(found.bins.count) == 10


def test_a_constant_head_is_off_by_its_distance_from_the_rate():
    found = reliability(torch.full((10,), 0.8), torch.arange(10) < 5)
    assert found.ece == pytest.approx(0.3)
    assert found.brier == pytest.approx((0.2**2 + 0.8**2) / 2)
    assert found.bins.predicted == pytest.approx([0.8])
    assert (found.bins.happened, found.bins.count) == ((0.5,), (10,))


def test_certainty_that_comes_true_is_in_the_last_bin_and_right():
    found = reliability(torch.ones(3), torch.ones(3, dtype=torch.bool))
    assert (found.ece, found.brier, found.bins.predicted) == (0.0, 0.0, (1.0,))


# Never on the border of two intervals, where rounding would decide.
CHANCES = st.integers(0, 49).map(lambda number: (number + 0.5) / 50)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(CHANCES, st.booleans()), min_size=1, max_size=40))
def test_the_error_is_the_sum_over_intervals(pairs):
    total = 0.0
    for i in range(5):
        inside = [(p, happened) for p, happened in pairs if i / 5 < p < (i + 1) / 5]
        gap = sum(p for p, _ in inside) - sum(happened for _, happened in inside)
        total += abs(gap) / len(pairs)
    chance, happened = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert reliability(chance, happened, bins=5).ece == pytest.approx(total, abs=1e-6)


def test_rewards_that_are_foretold_exactly_fit_perfectly(rng):
    rewards = torch.randn(50, generator=rng)
    found = fit(rewards, rewards)
    assert (found.r2, found.bias, found.mse) == (1.0, 0.0, 0.0)
    assert found.bins.predicted == found.bins.happened
    assert found.bins.count == (5,) * 10
    assert list(found.bins.predicted) == sorted(found.bins.predicted)


def test_the_mean_explains_nothing_and_a_shift_is_the_bias(rng):
    rewards = torch.randn(50, generator=rng)
    mean = fit(rewards.mean().expand(50), rewards)
    assert mean.r2 == pytest.approx(0, abs=1e-6)
    assert mean.mse == pytest.approx(float(rewards.var(unbiased=False)))
    assert fit(rewards + 2, rewards).bias == pytest.approx(2)


def test_rewards_that_never_change_have_no_r2():
    found = fit(torch.tensor([0.9, 1.1]), torch.ones(2))
    assert found.r2 is None
    assert found.mse == pytest.approx(0.01)


@pytest.mark.parametrize("measure", [fit, reliability])
def test_predictions_without_outcomes_are_refused(measure):
    with pytest.raises(ShapeError, match=r"predictions have shape \(2,\) and outcomes \(3,\)"):
        measure(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ShapeError, match="n at least 1"):
        measure(torch.zeros(0), torch.zeros(0))
