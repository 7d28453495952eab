"""Returns, weights and judged actions of each generation, against plain loops over the papers' code."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_toolkit.agents.behaviour import BehaviourConfig, Dream, score
from wm_toolkit.errors import ConfigError

ROWS, STEPS = 3, 6


@pytest.fixture
def dream(rng):
    def draw(*shape):
        return torch.rand(shape, generator=rng)

    return Dream(
        draw(ROWS, STEPS + 1, 2), draw(ROWS, STEPS, 1), draw(ROWS, STEPS + 1), draw(ROWS, STEPS + 1)
    )


@pytest.fixture
def values(rng):
    return torch.randn(ROWS, STEPS + 1, generator=rng)


def config(returns: str, **options) -> BehaviourConfig:
    return BehaviourConfig(returns=returns, lam=0.8, **options)


def own_returns(dream: Dream, values, first: int, row: int) -> dict[int, float]:
    """R_t = r_t + c_t ((1 - lam) v_{t+1} + lam R_{t+1}), from the last state back to `first`."""
    found, after = {}, float(values[row, STEPS])
    for t in range(STEPS - 1, first - 1, -1):
        mixed = 0.2 * float(values[row, t + 1]) + 0.8 * after
        found[t] = after = float(dream.reward[row, t]) + float(dream.go_on[row, t]) * mixed
    return found


def test_v3_counts_the_next_states_reward_and_weighs_by_the_chance_of_going_on(dream, values):
    found = score(dream, values, config("next"))
    assert found.returns.shape == (ROWS, STEPS)
    for row in range(ROWS):
        after = float(values[row, STEPS])
        for t in range(STEPS - 1, -1, -1):
            go_on = float(dream.go_on[row, t + 1])
            mixed = 0.2 * float(values[row, t + 1]) + 0.8 * after
            after = float(dream.reward[row, t + 1]) + go_on * mixed
            assert float(found.returns[row, t]) == pytest.approx(after, rel=1e-5, abs=1e-6)
    assert_close(found.weight[:, 2], dream.go_on[:, :3].prod(1))
    assert_close(found.aims, found.returns)
    assert_close(found.aim_weight, found.weight)


def test_v2_counts_the_states_own_reward_and_judges_an_action_by_where_it_led(dream, values):
    found = score(dream, values, config("own"))
    assert found.first == 0
    assert found.returns.shape == (ROWS, STEPS)
    assert found.aims.shape == (ROWS, STEPS - 1)
    for row in range(ROWS):
        for t, expected in own_returns(dream, values, 0, row).items():
            assert float(found.returns[row, t]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert_close(found.weight[:, 0], torch.ones(ROWS))
    assert_close(found.weight[:, 3], dream.go_on[:, :3].prod(1))
    assert_close(found.aims, found.returns[:, 1:])
    assert_close(found.aim_weight, found.weight[:, :-1])


def test_v1_leaves_the_state_a_dream_begins_with_out(dream, values):
    found = score(dream, values, config("dreamt"))
    assert found.first == 1
    assert found.returns.shape == found.aims.shape == (ROWS, STEPS - 1)
    for row in range(ROWS):
        for t, expected in own_returns(dream, values, 1, row).items():
            assert float(found.returns[row, t - 1]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert_close(found.aim_weight[:, 0], torch.ones(ROWS))
    assert_close(found.aim_weight[:, 2], dream.go_on[:, 1] * dream.go_on[:, 2])
    other = dream.replace(
        reward=torch.cat([dream.reward[:, :1] + 9, dream.reward[:, 1:]], 1),
        go_on=torch.cat([dream.go_on[:, :1] * 0, dream.go_on[:, 1:]], 1),
    )
    again = score(other, values, config("dreamt"))
    assert_close(again.returns, found.returns)
    assert_close(again.weight, found.weight)


def test_a_discount_of_its_own_is_no_factor_of_the_first_weight(dream, values):
    """V3's preprint: cumprod(gamma c) / gamma."""
    found = score(dream, values, config("next", discount=0.5))
    assert_close(found.weight, dream.go_on[:, :-1].cumprod(1) / 0.5)


def test_weights_carry_no_gradient(dream, values):
    for name in ("next", "own", "dreamt"):
        live = dream.replace(go_on=dream.go_on.clone().requires_grad_())
        found = score(live, values, config(name))
        assert found.returns.requires_grad
        assert not found.weight.requires_grad


def test_who_reinforces():
    auto = BehaviourConfig(estimator="auto")
    assert (auto.reinforced(discrete=True), auto.reinforced(discrete=False)) == (1.0, 0.0)
    both = BehaviourConfig(estimator="both", mix=0.7)
    assert both.reinforced(discrete=True) == both.reinforced(discrete=False) == 0.7


def test_a_dream_too_short_for_its_convention_is_refused():
    assert BehaviourConfig(horizon=1).horizon == 1
    with pytest.raises(ConfigError, match="horizon is 1"):
        BehaviourConfig(horizon=1, returns="own")


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match="but_last"):
        BehaviourConfig(but_last=True)
