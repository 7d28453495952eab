"""Distributions within [-1, 1]: densities against integrals, moments and draws against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_toolkit.heads.bounded import TanhNormal, TruncatedNormal
from wm_toolkit.heads.normal import Normal
from wm_toolkit.heads.policy import TanhPolicy, TruncatedPolicy
from wm_toolkit.heads.squared import ScalarHead, squared
from wm_toolkit.heads.twohot import symlog

GRID = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
STEP = 2 / 20_000


def truncated(loc: float, scale: float) -> TruncatedNormal:
    return TruncatedNormal(
        torch.tensor([loc], dtype=torch.float64), torch.tensor([scale], dtype=torch.float64)
    )


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.3), (0.8, 0.1), (-0.99, 2.1)])
def test_a_truncated_normal_is_a_density_with_the_moments_it_says(loc, scale):
    found = truncated(loc, scale)
    log_density = found.log_prob(GRID.unsqueeze(-1))
    density = log_density.exp()
    assert float(torch.trapezoid(density, dx=STEP)) == pytest.approx(1, abs=1e-5)
    mean = torch.trapezoid(density * GRID, dx=STEP)
    assert_close(found.mean[0], mean, atol=1e-5, rtol=0)
    entropy = -torch.trapezoid(density * log_density, dx=STEP)
    assert_close(found.entropy(), entropy, atol=1e-5, rtol=0)
    assert_close(found.mode[0], GRID[density.argmax()], atol=STEP, rtol=0)


def test_a_wide_truncated_normal_is_uniform():
    found = truncated(0.0, 1e3)
    assert float(found.entropy()) == pytest.approx(math.log(2), abs=1e-5)
    assert float(found.mean) == pytest.approx(0, abs=1e-6)


def test_truncated_draws_stay_inside_and_have_its_moments(rng):
    found = TruncatedNormal(torch.full((40_000, 1), 0.6), torch.full((40_000, 1), 0.5))
    drawn = found.sample(rng)
    assert drawn.abs().max() < 1
    assert_close(drawn.mean(), found.mean[0, 0], atol=0.01, rtol=0)


def test_a_truncated_draw_moves_with_its_parameters_as_its_quantile_does():
    """The pathwise gradient is that of the inverse distribution function at a fixed rank."""
    loc = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)

    def draw(a, b):
        return TruncatedNormal(a, b).sample(torch.Generator().manual_seed(3))

    assert torch.autograd.gradcheck(draw, (loc, scale))


def test_a_tanh_normal_is_a_density():
    base = Normal(
        torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    )
    density = TanhNormal(base).log_prob(GRID.unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density, dx=STEP)) == pytest.approx(1, abs=1e-3)


def test_tanh_normal_agrees_with_torchs_transformed_distribution(rng):
    mean, std = torch.randn(5, 2, generator=rng), torch.rand(5, 2, generator=rng) + 0.2
    found = TanhNormal(Normal(mean, std))
    x = found.sample(rng).clamp(-0.999, 0.999)
    other = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, std), torch.distributions.TanhTransform()
    )
    assert_close(found.log_prob(x), other.log_prob(x).sum(-1), rtol=1e-4, atol=1e-4)


def test_the_mode_of_a_tanh_normal_is_its_likeliest_draw_and_the_same_every_time(rng):
    narrow = TanhNormal(Normal(torch.tensor([[0.5, -1.0]]), torch.full((1, 2), 1e-3)))
    assert_close(narrow.mode, torch.tensor([[0.5, -1.0]]).tanh(), atol=3e-3, rtol=0)
    wide = TanhNormal(Normal(torch.zeros(3, 2), torch.ones(3, 2)))
    assert torch.equal(wide.mode, wide.mode)
    drawn, log_prob = wide._drawn()
    assert_close(wide.log_prob(drawn), log_prob, rtol=1e-3, atol=1e-3)
    assert_close(wide.log_prob(wide.mode), log_prob.max(0).values, rtol=1e-3, atol=1e-3)


def test_the_entropy_of_a_narrow_tanh_normal_is_that_of_its_base():
    base = Normal(torch.zeros(1, 1), torch.full((1, 1), 0.01))
    assert_close(TanhNormal(base).entropy(), base.entropy(), atol=0.15, rtol=0)


class Fixed(nn.Module):
    """The numbers themselves."""

    def forward(self, x):
        return x


def test_v1s_policy_follows_its_formula():
    raw = torch.tensor([[7.0, -20.0, 0.0, 1.0]])
    base = TanhPolicy(Fixed())(raw).base
    assert_close(base.mean, 5 * (raw[:, :2] / 5).tanh())
    assert float(base.std[0, 0]) == pytest.approx(5.0 + 1e-4, rel=1e-5)
    shift = math.log(math.exp(5) - 1)
    assert float(base.std[0, 1]) == pytest.approx(math.log1p(math.exp(1 + shift)) + 1e-4, rel=1e-5)


def test_v2s_policy_follows_its_formula():
    raw = torch.tensor([[0.5, 0.0, 0.0, 2.0]])
    found = TruncatedPolicy(Fixed())(raw)
    assert_close(found.loc, raw[:, :2].tanh())
    assert_close(found.scale, torch.tensor([[1.1, 2 / (1 + math.exp(-1)) + 0.1]]))


def test_half_the_squared_error_is_the_likelihood_but_for_a_constant(rng):
    raw, target = torch.randn(4, 3, generator=rng), torch.randn(4, 3, generator=rng)
    found = squared(raw, scale=0.5)
    assert_close(found.loss(target), -found.log_prob(target) - 1.5 * math.log(2 * math.pi))
    assert_close(squared(raw).loss(target), (raw - target).square().sum(-1))
    squashed = squared(raw, squash=True)
    assert_close(squashed.loss(target), (raw - symlog(target)).square().sum(-1))
    assert_close(symlog(squashed.mean), raw)


def test_a_scalar_head_keeps_every_row(rng):
    features, target = torch.randn(4, 3, 2, generator=rng), torch.randn(4, 3, generator=rng)
    head = ScalarHead(nn.Linear(2, 1))
    out = head(features)
    assert_close(out.mean, head.net(features)[..., 0])
    assert_close(out.loss(target), 0.5 * (out.mean - target).square())
