"""Divergences against torch's, gradients on the right side only, free nats in their three forms."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.testing import assert_close

from wm_toolkit.losses.kl import free, kl_categorical, kl_normal, two_sided
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Belief(Struct):
    log_probs: Tensor


def kl(a: Belief, b: Belief) -> Tensor:
    return kl_categorical(a.log_probs, b.log_probs)


def test_gaussian_divergence_agrees_with_torch(rng):
    mean, other = torch.randn(2, 4, 5, 3, generator=rng)
    std, other_std = torch.rand(2, 4, 5, 3, generator=rng) + 0.1
    expected = kl_divergence(
        Independent(Normal(mean, std), 1), Independent(Normal(other, other_std), 1)
    )
    assert_close(kl_normal(mean, std, other, other_std), expected)


def test_categorical_divergence_agrees_with_torch(rng):
    a, b = torch.randn(2, 4, 5, 3, 7, generator=rng).log_softmax(-1)
    expected = kl_divergence(
        Independent(Categorical(logits=a), 1), Independent(Categorical(logits=b), 1)
    )
    assert_close(kl_categorical(a, b), expected)


def test_each_side_learns_from_its_own_term_only(rng):
    posterior, prior = (torch.randn(2, 3, 4, generator=rng).requires_grad_() for _ in range(2))
    beliefs = Belief(posterior.log_softmax(-1)), Belief(prior.log_softmax(-1))
    dynamics, representation = two_sided(kl, *beliefs)
    assert_close(dynamics, representation)
    to_posterior, to_prior = torch.autograd.grad(
        dynamics.sum(), (posterior, prior), allow_unused=True, retain_graph=True
    )
    assert to_posterior is None
    assert to_prior.abs().max() > 0
    to_posterior, to_prior = torch.autograd.grad(
        representation.sum(), (posterior, prior), allow_unused=True
    )
    assert to_prior is None
    assert to_posterior.abs().max() > 0


def test_free_nats_are_counted_per_state_on_the_mean_or_subtracted():
    divergence = torch.tensor([[0.5, 4.0], [2.0, 0.0]])
    assert_close(free(divergence, 1.0, "each"), torch.tensor([[1.0, 4.0], [2.0, 1.0]]))
    assert_close(free(divergence, 1.0, "subtract"), torch.tensor([[0.0, 3.0], [1.0, 0.0]]))
    assert_close(free(divergence, 1.0, "mean"), torch.full((2, 2), 1.625))
    assert_close(free(divergence, 3.0, "mean"), torch.full((2, 2), 3.0))


def test_a_state_inside_its_free_nats_learns_nothing():
    divergence = torch.tensor([[0.5, 4.0]], requires_grad=True)
    free(divergence, 1.0).sum().backward()
    assert divergence.grad.tolist() == [[0.0, 1.0]]
