"""Lambda-returns against the definition; the return scale against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_toolkit.losses.returns import ReturnScale, lambda_return


def mixed_n_step_returns(reward, discount, value, lam, start):
    """(1 - lam) sum_n lam^(n-1) G_n + lam^(N-1) G_N, each G_n written out."""
    steps = len(reward) - start
    total = 0.0
    for n in range(1, steps + 1):
        gained, factor = 0.0, 1.0
        for k in range(n):
            gained += factor * reward[start + k]
            factor *= discount[start + k]
        gained += factor * value[start + n - 1]
        total += gained * (lam ** (n - 1) if n == steps else (1 - lam) * lam ** (n - 1))
    return total


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_lambda_return_is_the_mixture_of_all_n_step_returns(rng, lam):
    reward, value = torch.randn(2, 3, 6, generator=rng, dtype=torch.float64)
    discount = torch.rand(3, 6, generator=rng, dtype=torch.float64)
    expected = [
        [mixed_n_step_returns(reward[b], discount[b], value[b], lam, t) for t in range(6)]
        for b in range(3)
    ]
    assert_close(lambda_return(reward, discount, value, lam), torch.tensor(expected).double())


def test_nothing_counts_behind_a_terminal_state():
    reward = torch.tensor([[1.0, 2.0, 100.0]])
    discount = torch.tensor([[0.9, 0.0, 0.9]])
    value = torch.tensor([[0.0, 50.0, 50.0]])
    assert_close(lambda_return(reward, discount, value, 1.0)[:, :2], torch.tensor([[2.8, 2.0]]))


def test_the_return_scale_is_the_average_range_and_never_below_one():
    scale, returns = ReturnScale(rate=0.5), torch.linspace(0, 100, 101)
    assert scale.scale == 1
    assert_close(scale.update(returns), torch.tensor(45.0))  # 0.5 (95 - 5)
    assert_close(scale.update(returns), torch.tensor(67.5))
    assert ReturnScale(rate=1.0).update(0.001 * returns) == 1


def test_the_return_scale_is_saved_with_its_owner():
    scale = ReturnScale(rate=0.5)
    scale.update(torch.linspace(0, 100, 101))
    other = ReturnScale(rate=0.5)
    other.load_state_dict(scale.state_dict())
    assert other.scale == scale.scale
