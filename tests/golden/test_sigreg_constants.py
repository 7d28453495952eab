"""SIGReg against its closed-form constants (Epps-Pulley with 17 knots on [0, 3])."""

from __future__ import annotations

import math

import pytest
import torch

from wm_toolkit.losses.sigreg import REFERENCE_BATCH, SIGReg, sigreg

# What N(0, sigma^2) and a shifted mean add, per sample, in the limit of many samples.
WRONG_SCALE = {0.5: 0.1512, 0.8: 0.0218, 0.9: 0.00514, 1.1: 0.00450, 1.5: 0.0842, 2.0: 0.2361}
WRONG_MEAN = {0.1: 0.0048, 0.5: 0.1181, 1.0: 0.4443}


def normal_quantiles(count: int) -> torch.Tensor:
    """[count, 1] as Gaussian as `count` points can be."""
    return torch.special.ndtri((torch.arange(count) + 0.5) / count).unsqueeze(-1)


@pytest.fixture
def directions(rng):
    found = torch.randn(6, 256, generator=rng)
    return found / found.norm(dim=0)


@pytest.mark.parametrize("count", [2, 16, 128])
def test_collapse_costs_0402_per_sample(count, directions):
    value = sigreg(torch.zeros(count, 6), directions)
    assert value.item() == pytest.approx(0.40205 * count, rel=1e-4)


@pytest.mark.parametrize("count", [16, 128])
def test_a_true_gaussian_costs_10525_whatever_the_number_of_samples(count, directions, rng):
    z = torch.randn(400, count, 6, generator=rng)
    assert sigreg(z, directions[:, :32]).item() == pytest.approx(1.0525, abs=0.05)


@pytest.mark.parametrize(("sigma", "cost"), WRONG_SCALE.items())
def test_a_wrong_scale_costs_what_the_integral_says(sigma, cost):
    z = sigma * normal_quantiles(20_000)
    value = sigreg(z, torch.ones(1, 1)).item() / len(z)
    assert value == pytest.approx(cost, rel=0.01)


@pytest.mark.parametrize(("shift", "cost"), WRONG_MEAN.items())
def test_a_wrong_mean_costs_what_the_integral_says(shift, cost):
    z = normal_quantiles(20_000) + shift
    value = sigreg(z, torch.ones(1, 1)).item() / len(z)
    assert value == pytest.approx(cost, rel=0.01)


def brute_force(z, directions, knots):
    """One direction, one knot at a time, as the paper writes it."""
    total, dt = 0.0, 3 / (knots - 1)
    for a in directions.T:
        integral = 0.0
        for k in range(knots):
            t = k * dt
            phi = sum(complex(math.cos(t * u), math.sin(t * u)) for u in (z @ a).tolist()) / len(z)
            weight = dt if k in (0, knots - 1) else 2 * dt
            integral += weight * abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)
        total += len(z) * integral
    return total / directions.shape[1]


def test_the_tensor_form_equals_the_sum_over_samples_directions_and_knots(directions, rng):
    z = torch.randn(9, 6, generator=rng) * 0.7 + 0.2
    fast = sigreg(z, directions[:, :5], knots=11).item()
    assert fast == pytest.approx(brute_force(z, directions[:, :5], 11), rel=1e-5)


@pytest.mark.parametrize("count", [8, 32, 128])
def test_the_unbiased_estimator_does_not_depend_on_the_batch_size(count, directions, rng):
    gaussian = torch.randn(40_000 // count, count, 6, generator=rng)
    value = sigreg(gaussian, directions[:, :32], estimator="unbiased").item()
    assert value == pytest.approx(0, abs=0.25)
    narrow = sigreg(0.5 * gaussian, directions[:, :32], estimator="unbiased").item()
    assert narrow == pytest.approx(REFERENCE_BATCH * WRONG_SCALE[0.5], rel=0.05)


def test_independent_tests_are_averaged(directions, rng):
    z = torch.randn(3, 20, 6, generator=rng)
    apart = torch.stack([sigreg(part, directions) for part in z]).mean()
    assert sigreg(z, directions).item() == pytest.approx(apart.item(), rel=1e-5)


def test_the_gradient_leads_out_of_collapse(rng):
    z = (0.05 * torch.randn(64, 4, generator=rng)).requires_grad_()
    regulariser = SIGReg(slices=64)
    before = regulariser(z, rng).item()
    for _ in range(60):
        (grad,) = torch.autograd.grad(regulariser(z, rng), z)
        z = (z - 2.0 * grad).detach().requires_grad_()
    assert before > 20
    assert regulariser(z, rng).item() < 2
    assert z.std(0).mean().item() == pytest.approx(1, abs=0.25)


def test_directions_are_new_at_every_call_and_seeded(rng):
    z = torch.randn(32, 4, generator=rng)
    regulariser = SIGReg(slices=4)
    first, second = regulariser(z, rng).item(), regulariser(z, rng).item()
    assert first != second
    again = regulariser(z, torch.Generator().manual_seed(5)).item()
    assert again == regulariser(z, torch.Generator().manual_seed(5)).item()
