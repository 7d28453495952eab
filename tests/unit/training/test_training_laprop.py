"""LaProp with adaptive clipping against its formula written out for one tensor."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_toolkit.errors import ConfigError
from wm_toolkit.training.laprop import LaProp, laprop


def by_hand(p, grads, *, lr=0.1, b1=0.9, b2=0.999, eps=1e-20, clip=0.3, least=1e-3):
    m = nu = torch.zeros_like(p)
    for t, g in enumerate(grads, 1):
        if clip is not None:
            g = g * min(1.0, clip * max(least, p.norm().item()) / g.norm().item())
        nu = b2 * nu + (1 - b2) * g**2
        u = g / ((nu / (1 - b2**t)).sqrt() + eps)
        m = b1 * m + (1 - b1) * u
        p = p - lr * m / (1 - b1**t)
    return p


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("clip", [0.3, 0.01, None])
def test_five_updates_follow_the_formula(rng, clip, capturable):
    shapes = [(4, 3), (3,), (2, 2, 2)]
    start = [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]
    grads = [[torch.randn_like(p) * 3 for _ in range(5)] for p in start]
    params = [p.clone().requires_grad_() for p in start]
    optimizer = LaProp(params, 0.1, clip=clip)
    if capturable:
        rate = torch.tensor(0.1, dtype=torch.float64)
        optimizer.param_groups[0].update(capturable=True, lr=rate)
    for step in range(5):
        for p, own in zip(params, grads, strict=True):
            p.grad = own[step].clone()
        optimizer.step()
    for p, first, own in zip(params, start, grads, strict=True):
        assert_close(p.detach(), by_hand(first, own, clip=clip))


def test_the_first_step_has_the_size_of_the_learning_rate_whatever_the_gradient():
    p = torch.zeros(3, requires_grad=True)
    p.grad = torch.tensor([1e-8, -5.0, 3.0])
    LaProp([p], 0.1).step()
    assert_close(p.detach(), torch.tensor([-0.1, 0.1, -0.1]))


def test_a_parameter_at_zero_may_still_move():
    p = torch.zeros(2, requires_grad=True)
    p.grad = torch.tensor([1.0, 0.0])
    LaProp([p], 0.1, clip=0.3).step()
    assert p[0] < 0
    assert p[1] == 0


def test_gradients_are_left_as_they_are():
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.full((2,), 100.0)
    LaProp([p], 0.1).step()
    assert p.grad.tolist() == [100.0, 100.0]


def test_a_saved_optimizer_goes_on_exactly(rng):
    def run(optimizer, p, steps):
        for _ in range(steps):
            p.grad = (p.detach() - 3.0) * 2
            optimizer.step()

    whole = torch.randn(4, generator=rng).requires_grad_()
    half = whole.detach().clone().requires_grad_()
    first, one = laprop(0.05)([half]), laprop(0.05)([whole])
    run(one, whole, 6)
    run(first, half, 3)
    second = laprop(0.05)([half])
    second.load_state_dict(first.state_dict())
    run(second, half, 3)
    assert torch.equal(half, whole)


def test_a_learning_rate_below_zero_is_refused():
    with pytest.raises(ConfigError, match=r"lr is -1"):
        LaProp([torch.zeros(1, requires_grad=True)], -1.0)
