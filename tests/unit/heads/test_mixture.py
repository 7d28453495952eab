"""Mixtures of Gaussians against torch's own, and what a temperature does to them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as td

from wm_toolkit.heads.base import Output
from wm_toolkit.heads.mixture import Mixture, MixtureHead


def mixture(rng, *lead, width=3, components=5, shared=False):
    logits = (*lead, components) if shared else (*lead, width, components)
    shape = (*lead, width, components)
    draw = [torch.randn(s, generator=rng) for s in (logits, shape, shape)]
    return Mixture(draw[0], draw[1], 0.3 * draw[2])


def of_torch(found: Mixture) -> td.MixtureSameFamily:
    """One mixture for every number, or one over all numbers."""
    normal = td.Normal(found.means, found.log_std.exp())
    if found.shared:
        normal = td.Independent(td.Normal(found.means.mT, found.log_std.exp().mT), 1)
    return td.MixtureSameFamily(td.Categorical(logits=found.logits), normal)


def test_the_likelihood_is_that_of_torch_with_a_mixture_for_every_number(rng):
    found = mixture(rng, 4, 2)
    x = torch.randn(4, 2, 3, generator=rng)
    torch.testing.assert_close(found.log_prob(x), of_torch(found).log_prob(x).sum(-1))
    torch.testing.assert_close(found.loss(x), -found.log_prob(x) / 3)


def test_the_likelihood_is_that_of_torch_with_one_choice_for_all_numbers(rng):
    found = mixture(rng, 4, 2, shared=True)
    x = torch.randn(4, 2, 3, generator=rng)
    torch.testing.assert_close(found.log_prob(x), of_torch(found).log_prob(x))


@pytest.mark.parametrize("shared", [False, True])
def test_mean_and_deviation_are_those_of_torch(rng, shared):
    found = mixture(rng, 4, shared=shared)
    theirs = of_torch(found)
    torch.testing.assert_close(found.mean, theirs.mean)
    torch.testing.assert_close(found.std, theirs.variance.sqrt())


@pytest.mark.parametrize("shared", [False, True])
def test_draws_have_the_mixtures_mean_and_deviation(rng, shared):
    found = mixture(rng, 1, shared=shared)
    many = Mixture(
        *(x.expand(40_000, *x.shape[1:]) for x in (found.logits, found.means, found.log_std))
    )
    drawn = many.sample(rng)
    torch.testing.assert_close(drawn.mean(0), found.mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), found.std[0], atol=0.05, rtol=0)


def test_a_shared_choice_draws_all_numbers_from_one_component(rng):
    means = torch.tensor([-1.0, 1.0]).expand(1000, 3, 2)
    found = Mixture(torch.zeros(1000, 2), means, torch.full_like(means, -9.0))
    signs = found.sample(rng).sign()
    assert (signs == signs[:, :1]).all()
    assert 0.4 < (signs[:, 0] > 0).float().mean() < 0.6


def test_the_mode_is_the_likeliest_of_the_components_means():
    means = torch.tensor([[[0.0, 5.0], [1.0, -3.0]]])
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    found = Mixture(logits, means, torch.zeros(1, 2, 2))
    assert found.mode.tolist() == [[0.0, -3.0]]
    shared = Mixture(torch.tensor([[0.0, 1.0]]), means, torch.zeros(1, 2, 2))
    assert shared.mode.tolist() == [[5.0, -3.0]]


@given(st.floats(0.1, 5.0))
def test_temperature_multiplies_the_variance_of_a_single_gaussian(temperature):
    one = Mixture(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 0.5))
    hot = one.tempered(temperature)
    assert hot.mean.item() == pytest.approx(2.0)
    assert hot.std.item() == pytest.approx(math.exp(0.5) * math.sqrt(temperature), rel=1e-5)


def test_temperature_evens_the_weights_out_and_cold_keeps_the_likeliest(rng):
    found = mixture(rng, 2)
    weights = found.logits.softmax(-1)
    assert (found.tempered(3.0).logits.softmax(-1).amax(-1) < weights.amax(-1)).all()
    cold = found.tempered(1e-4)
    best = found.means.gather(-1, found.logits.argmax(-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(cold.sample(rng), best, atol=0.05, rtol=0)


def test_temperature_one_changes_nothing(rng):
    found = mixture(rng, 2)
    torch.testing.assert_close(found.tempered(1.0).logits, found.logits)
    torch.testing.assert_close(found.tempered(1.0).log_std, found.log_std)


def test_the_entropys_bound_is_exact_for_one_gaussian_and_above_it_for_a_mixture(rng):
    one = mixture(rng, 3, components=1)
    torch.testing.assert_close(
        one.entropy(), of_torch(one).component_distribution.entropy().sum((-2, -1))
    )
    several = mixture(rng, 1)
    many = Mixture(
        *(x.expand(20_000, *x.shape[1:]) for x in (several.logits, several.means, several.log_std))
    )
    estimate = -many.log_prob(many.sample(rng)).mean()
    assert several.entropy().item() > estimate.item()


@pytest.mark.parametrize("shared", [False, True])
def test_the_head_gives_an_output_of_its_width_and_learns_two_modes(rng, shared):
    head = MixtureHead(2, 1, components=2, shared=shared)
    torch.nn.init.zeros_(head.net.weight)
    with torch.no_grad():  # logits and deviations alike, means apart
        head.net.bias.copy_(torch.tensor([0.0, 0.0, -0.1, 0.1, 0.0, 0.0]))
    target = torch.tensor([-1.0, 1.0]).repeat(50).unsqueeze(-1)
    features = torch.ones(100, 2)
    assert isinstance(head(features), Output)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        head(features).loss(target).mean().backward()
        optimizer.step()
    found = head(features[:1])
    assert found.means.sort().values.flatten().tolist() == pytest.approx([-1, 1], abs=0.2)
    assert found.mean.item() == pytest.approx(0, abs=0.1)
