"""Layers that do less work than their definition says the same as it, backwards too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from wm_toolkit.nn import conv
from wm_toolkit.nn.conv import DoubledConv, PoolEncoder, UpsampleDecoder, in_parts
from wm_toolkit.nn.dense import NormSiLU, norm_silu
from wm_toolkit.nn.gru import BlockGRU


def plain_norm_silu(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return functional.silu(functional.rms_norm(x, weight.shape, weight, eps))


@pytest.mark.parametrize("shape", [(7, 6), (2, 3, 6), (6,)])
def test_norm_and_silu_at_once_are_norm_then_silu(shape, rng):
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(6, generator=rng, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)
    fast, plain = norm_silu(x, weight, 1e-4), plain_norm_silu(x, weight, 1e-4)
    assert_close(fast, plain)
    found = torch.autograd.grad(fast, [x, weight], grad)
    assert_close(found, torch.autograd.grad(plain, [x, weight], grad))


def test_norm_and_silu_leave_their_input_as_it_was(rng):
    x = torch.randn(3, 6, generator=rng)
    before = x.clone()
    with torch.no_grad():
        NormSiLU(6)(x)
    assert torch.equal(x, before)


def test_a_row_of_zeros_has_a_finite_gradient():
    x = torch.zeros(1, 4, requires_grad=True)
    norm_silu(x, torch.ones(4), 1e-4).sum().backward()
    assert_close(x.grad, torch.full((1, 4), 50.0))  # 0.5 / sqrt(1e-4)


def test_low_precision_comes_out_as_float32(rng):
    x, layer = torch.randn(3, 6, generator=rng).bfloat16(), NormSiLU(6)
    assert_close(layer(x), plain_norm_silu(x.float(), layer.weight, 1e-4))


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1)])
def test_a_convolution_of_a_doubled_map_is_done_on_the_small_one(size, rng):
    layer = DoubledConv(3, 2).double()
    assert layer.bias is not None
    x = torch.randn(2, 3, *size, generator=rng, dtype=torch.float64, requires_grad=True)
    doubled = functional.interpolate(x, scale_factor=2.0, mode="nearest")
    plain = functional.conv2d(doubled, layer.weight, layer.bias, padding=2)
    fast = layer(x)
    assert_close(fast, plain)
    grad = torch.randn(plain.shape, generator=rng, dtype=torch.float64)
    inputs = [x, layer.weight, layer.bias]
    assert_close(
        torch.autograd.grad(fast, inputs, grad),
        torch.autograd.grad(plain, inputs, grad),
    )


@pytest.mark.parametrize("part", [1, 3, 100])
def test_networks_of_images_say_the_same_in_parts_of_any_size(part, rng, monkeypatch):
    monkeypatch.setattr(conv, "PART", part)
    encoder = PoolEncoder(3, 2)
    images = torch.rand(5, 3, 64, 64, generator=rng)
    assert_close(encoder(images), encoder.net(images).flatten(1))
    decoder = UpsampleDecoder(16, 8, 3, depth=2, units=4)
    features = torch.randn(5, 24, generator=rng)
    whole = torch.cat([decoder(row) for row in features.split(1)])
    assert_close(decoder(features), whole)


def test_parts_keep_their_order(rng):
    x = torch.randn(2 * conv.PART + 1, 2, 3, 3, generator=rng)
    assert torch.equal(in_parts(nn.Identity(), x), x)


def test_a_gru_given_its_weights_steps_as_one_that_makes_them(rng):
    gru = BlockGRU(6, 16, groups=4)
    x, h = torch.randn(3, 6, generator=rng), torch.randn(3, 16, generator=rng)
    weights = gru.weights()
    once = [gru(x, h, weights).sum(), gru(x, 2 * h, weights).sum()]
    anew = [gru(x, h).sum(), gru(x, 2 * h).sum()]
    assert_close(once, anew)
    parameters = list(gru.parameters())
    found = torch.autograd.grad(once[0] + once[1], parameters)
    assert_close(found, torch.autograd.grad(anew[0] + anew[1], parameters))
