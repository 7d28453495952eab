"""Head outputs against torch.distributions and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as td

from wm_toolkit.errors import ConfigError
from wm_toolkit.heads.bernoulli import Bernoulli, BernoulliHead
from wm_toolkit.heads.image import Image, ImageHead
from wm_toolkit.heads.normal import Normal, NormalHead, Regression
from wm_toolkit.heads.onehot import OneHot, OneHotHead
from wm_toolkit.heads.twohot import (
    TwoHot,
    TwoHotHead,
    symexp,
    symlog,
    symmetric_bins,
    two_hot,
)

DRAWS = 20_000


def randn(rng, *shape):
    return torch.randn(shape, generator=rng)


# -- Normal ------------------------------------------------------------------------------------------
def test_a_normal_is_the_independent_gaussian_of_torch(rng):
    mean, std, x = randn(rng, 4, 3), randn(rng, 4, 3).exp(), randn(rng, 4, 3)
    ours, theirs = Normal(mean, std), td.Independent(td.Normal(mean, std), 1)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.loss(x), -theirs.log_prob(x))
    assert torch.equal(ours.mode, mean)


def test_a_scalar_normal_keeps_every_row(rng):
    mean, std, x = randn(rng, 4), randn(rng, 4).exp(), randn(rng, 4)
    ours, theirs = Normal(mean, std, event=0), td.Normal(mean, std)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


def test_normal_draws_have_its_moments_and_carry_gradients(rng):
    mean = torch.tensor([1.0, -2.0], requires_grad=True)
    std = torch.tensor([0.5, 2.0], requires_grad=True)
    draws = Normal(mean.expand(DRAWS, 2), std.expand(DRAWS, 2)).sample(rng)
    torch.testing.assert_close(draws.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.std(0), std, atol=0.05, rtol=0)
    draws.mean(0).sum().backward()
    assert mean.grad.tolist() == pytest.approx([1, 1])
    assert std.grad.abs().max() < 0.05  # the mean of the noise


def test_regression_is_the_plain_squared_error(rng):
    mean, x = randn(rng, 4, 3), randn(rng, 4, 3)
    out = Regression(mean, torch.ones_like(mean))
    torch.testing.assert_close(out.loss(x), (mean - x).square().mean(-1))
    scalar = Regression(mean[:, 0], torch.ones(4), 0)
    torch.testing.assert_close(scalar.loss(x[:, 0]), (mean - x)[:, 0].square())


@pytest.mark.parametrize("width", [None, 1, 3])
def test_a_learned_deviation_never_falls_below_its_floor(width, rng):
    head = NormalHead(5, width, learned_std=True, min_std=0.2)
    torch.nn.init.constant_(head.net[-1].bias, -50)
    out = head(randn(rng, 4, 5))
    assert out.std.shape == ((4,) if width is None else (4, width))
    torch.testing.assert_close(out.std, torch.full_like(out.std, 0.2), atol=1e-4, rtol=0)
    assert out.entropy().shape == (4,)


# -- Bernoulli ---------------------------------------------------------------------------------------
def test_a_bernoulli_is_that_of_torch(rng):
    logit = randn(rng, 4, 3) * 3
    ours, theirs = Bernoulli(logit), td.Bernoulli(logits=logit)
    x = theirs.sample()
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.mode, (theirs.mean > 0.5).float())
    draws = Bernoulli(logit[0].expand(DRAWS, 3)).sample(rng)
    torch.testing.assert_close(draws.mean(0), theirs.mean[0], atol=0.02, rtol=0)


def test_a_soft_target_is_weighed_between_the_two_outcomes():
    out = Bernoulli(torch.tensor(0.7))
    hit, miss = out.loss(torch.tensor(1.0)), out.loss(torch.tensor(0.0))
    torch.testing.assert_close(out.loss(torch.tensor(0.25)), 0.25 * hit + 0.75 * miss)


def test_a_certain_bernoulli_stays_finite():
    out = Bernoulli(torch.tensor([-200.0, 200.0]))
    assert torch.isfinite(out.loss(torch.tensor([1.0, 0.0]))).all()
    assert out.entropy().tolist() == pytest.approx([0, 0], abs=1e-6)


def test_a_bernoulli_head_has_one_number_per_row(rng):
    assert BernoulliHead(6, hidden=(4,))(randn(rng, 2, 3, 6)).mean.shape == (2, 3)


# -- OneHot ------------------------------------------------------------------------------------------
def test_groups_are_independent_categoricals(rng):
    logits = randn(rng, 5, 7)
    out, parts = OneHot(logits, (3, 4)), logits.split((3, 4), -1)
    theirs = [td.OneHotCategorical(logits=part) for part in parts]
    x = torch.cat([one.sample() for one in theirs], -1)
    expected = sum(t.log_prob(p) for t, p in zip(theirs, x.split((3, 4), -1), strict=True))
    torch.testing.assert_close(out.log_prob(x), expected)
    torch.testing.assert_close(out.entropy(), sum(t.entropy() for t in theirs))
    torch.testing.assert_close(out.mean, torch.cat([t.probs for t in theirs], -1))
    assert torch.equal(out.mode, torch.cat([t.mode for t in theirs], -1))


def test_one_hot_draws_have_the_probabilities_as_frequencies(rng):
    out = OneHot(torch.tensor([0.0, 1.0, -1.0]).expand(DRAWS, 3), (3,))
    draws = out.sample(rng)
    assert (draws.sum(-1) == 1).all()
    torch.testing.assert_close(draws.mean(0), out.mean[0], atol=0.02, rtol=0)


def test_the_gradient_of_a_draw_is_that_of_the_probabilities(rng):
    logits = randn(rng, 5, 7).requires_grad_()
    weight = randn(rng, 5, 7)
    out = OneHot(logits, (3, 4))
    (straight,) = torch.autograd.grad((out.sample(rng) * weight).sum(), logits)
    (through,) = torch.autograd.grad((out.mean * weight).sum(), logits)
    torch.testing.assert_close(straight, through)
    assert straight.abs().sum() > 0


def test_cross_entropy_to_probabilities_is_least_at_themselves(rng):
    out = OneHot(randn(rng, 1, 4), (4,))
    own = out.loss(out.mean)
    torch.testing.assert_close(own, out.entropy())
    other = OneHot(randn(rng, 1, 4), (4,))
    assert other.loss(out.mean) > own


def test_a_one_hot_head_covers_its_groups(rng):
    assert OneHotHead(6, (3, 2), hidden=(4,))(randn(rng, 2, 6)).mean.sum(-1).tolist() == (
        pytest.approx([2, 2])
    )


# -- TwoHot ------------------------------------------------------------------------------------------
@given(st.floats(-1e4, 1e4, allow_nan=False))
def test_symexp_undoes_symlog(x):
    value = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(value)), value, rtol=1e-9, atol=1e-9)
    assert symlog(value).item() == pytest.approx(math.copysign(math.log1p(abs(x)), x))


@given(st.floats(-12, 12), st.integers(2, 41))
def test_the_two_hot_code_has_mass_on_two_neighbours_and_the_number_as_its_mean(x, count):
    bins = torch.linspace(-10, 10, count, dtype=torch.float64)
    code = two_hot(torch.tensor(x, dtype=torch.float64), bins)
    assert code.sum().item() == pytest.approx(1)
    assert (code >= 0).all()
    used = code.nonzero().squeeze(-1)
    assert len(used) <= 2
    assert int(used.max() - used.min()) <= 1
    assert (code @ bins).item() == pytest.approx(min(max(x, -10), 10), abs=1e-9)


@pytest.mark.parametrize("scale", ["linear", "symlog", "symexp"])
@pytest.mark.parametrize("value", [-7.5, 0.0, 0.3, 9.0])
def test_a_number_survives_coding_and_reading(scale, value):
    bins = symmetric_bins(101, 10.0, scale=scale)
    x = torch.tensor(value)
    code = two_hot(symlog(x) if scale == "symlog" else x, bins)
    out = TwoHot(code.clamp_min(1e-30).log(), bins, "symlog" if scale == "symlog" else "none")
    assert out.mean.item() == pytest.approx(value, abs=1e-4)


def test_the_default_bins_are_those_of_dreamer_v3():
    """255 bins at symexp of an even grid on [-20, 20]: steps of 0.15748, ends at 4.85e8."""
    bins = TwoHotHead(2).bins
    assert (len(bins), bins[127].item()) == (255, 0.0)
    assert bins[128].item() == pytest.approx(0.1706, abs=1e-4)
    assert bins[-1].item() == pytest.approx(4.85e8, rel=1e-3)
    assert torch.equal(bins, -bins.flip(0))


def test_the_expectation_of_a_mixture_is_in_environment_units_only_with_symexp_bins():
    """Half 0 and half symexp(2): 'symexp' reads their mean, 'symlog' the symexp of the mean code."""
    raw = TwoHot(torch.tensor([-99.0, 0.0, 0.0]), symmetric_bins(3, 2.0, scale="symexp"))
    assert raw.mean.item() == pytest.approx(math.expm1(2) / 2)
    squashed = TwoHot(torch.tensor([-99.0, 0.0, 0.0]), symmetric_bins(3, 2.0), "symlog")
    assert squashed.mean.item() == pytest.approx(math.expm1(1))


def test_minimising_the_loss_finds_the_mean_of_the_targets():
    bins = torch.linspace(-5, 5, 11)
    logits = torch.zeros(11, requires_grad=True)
    targets = torch.tensor([-1.5, 0.5, 4.0])
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        TwoHot(logits.expand(3, 11), bins).loss(targets).mean().backward()
        optimizer.step()
    assert TwoHot(logits, bins).mean.item() == pytest.approx(targets.mean().item(), abs=0.02)


@pytest.mark.parametrize("bins", [255, 256, 41])
@pytest.mark.parametrize("scale", ["linear", "symlog", "symexp"])
def test_a_fresh_head_reads_exactly_zero(scale, bins, rng):
    out = TwoHotHead(8, hidden=(16,), bins=bins, scale=scale)(randn(rng, 4, 8))
    assert out.mean.tolist() == [0.0] * 4


def test_two_hot_likelihood_entropy_and_draws_are_those_of_its_categorical(rng):
    bins = torch.linspace(-2, 2, 5)
    logits = randn(rng, 3, 5)
    out, theirs = TwoHot(logits, bins), td.Categorical(logits=logits)
    torch.testing.assert_close(out.entropy(), theirs.entropy())
    on_bins = torch.tensor([0, 2, 4])
    torch.testing.assert_close(out.log_prob(bins[on_bins]), theirs.log_prob(on_bins))
    torch.testing.assert_close(out.mean, (theirs.probs * bins).sum(-1))
    assert torch.equal(out.mode, bins[theirs.probs.argmax(-1)])
    draws = TwoHot(logits[0].expand(DRAWS, 5), bins).sample(rng)
    assert draws.mean().item() == pytest.approx(out.mean[0].item(), abs=0.03)


# -- Image -------------------------------------------------------------------------------------------
def test_an_image_is_a_gaussian_of_unit_deviation_over_its_pixels(rng):
    mean, x = torch.rand(2, 4, 4, 3, generator=rng), torch.rand(2, 4, 4, 3, generator=rng)
    out, theirs = Image(mean), td.Independent(td.Normal(mean, torch.ones_like(mean)), 3)
    torch.testing.assert_close(out.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(out.entropy(), theirs.entropy())
    torch.testing.assert_close(out.loss(x), (mean - x).square().mean((-3, -2, -1)))


def test_bytes_are_read_as_shares_of_255_and_written_back():
    picture = torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3) * 5
    out = Image(picture.float() / 255)
    assert out.loss(picture).item() == 0
    assert torch.equal(out.uint8, picture)
    assert Image(torch.full((1, 1, 1, 3), 1.7)).uint8.max() == 255


def test_an_image_head_paints_every_size_that_is_four_times_a_power_of_two(rng):
    for size in (8, 16, 64):
        assert ImageHead(6, size)(randn(rng, 2, 3, 6)).mean.shape == (2, 3, size, size, 3)


@pytest.mark.parametrize("size", [(56, 56), (48, 32), (3, 5)])
def test_an_image_head_paints_other_sizes_and_adds_its_picture_pixel_by_pixel(size, rng):
    head = ImageHead(6, size)
    plain = head(randn(rng, 2, 3, 6)).mean - 0.5
    assert plain.shape == (2, 3, *size, 3)
    assert plain.std() > 0
    for parameter in head.net.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        head.background.copy_(torch.rand(head.background.shape, generator=rng))
    assert torch.equal(head(randn(rng, 2, 6)).mean[1], head.background)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ConfigError, match=r"size is \(8, 0\) px"):
        ImageHead(6, (8, 0))
