"""One-hot vectors kept as indices behave as the tensor they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from wm_toolkit.nn.choices import Choices
from wm_toolkit.structs import stack, unbind

CLASSES, GROUPS, FRONT = 4, 3, 5


def one_hot(rng: torch.Generator, *lead: int) -> torch.Tensor:
    index = torch.randint(0, CLASSES, (*lead, GROUPS), generator=rng)
    return functional.one_hot(index, CLASSES).float().flatten(-2)


def choices_of(drawn: torch.Tensor) -> Any:
    """Any, for functions of torch are declared to take tensors alone."""
    return Choices.of(drawn, CLASSES)


def test_choices_of_a_tensor_stand_for_it(rng):
    drawn = one_hot(rng, 2, 6)
    choices = choices_of(drawn)
    assert choices.index.shape == (2, 6, GROUPS)
    assert torch.equal(choices.tensor, drawn)


def test_numbers_put_in_front_stand_in_front(rng):
    front, drawn = torch.randn(6, FRONT, generator=rng), one_hot(rng, 6)
    joined: Any = torch.cat([front[:, :2], front[:, 2:], choices_of(drawn)], -1)
    again: Any = torch.cat([front, joined], -1)
    assert isinstance(joined, Choices)
    assert torch.equal(joined.tensor, torch.cat([front, drawn], -1))
    assert torch.equal(again.tensor, torch.cat([front, front, drawn], -1))


def test_a_network_says_and_learns_the_same_from_indices(rng):
    front, drawn = torch.randn(2, 6, FRONT, generator=rng), one_hot(rng, 2, 6)
    plain = torch.cat([front, drawn], -1)
    coded: Any = torch.cat([front, choices_of(drawn)], -1)
    for bias in (True, False):
        net = nn.Sequential(nn.Linear(FRONT + GROUPS * CLASSES, 7, bias=bias), nn.SiLU())
        assert_close(net(coded), net(plain))
        found = torch.autograd.grad(net(coded).square().sum(), list(net.parameters()))
        assert_close(
            found,
            torch.autograd.grad(net(plain).square().sum(), list(net.parameters())),
        )


def test_choices_without_numbers_in_front_multiply_alike(rng):
    drawn, layer = one_hot(rng, 6), nn.Linear(GROUPS * CLASSES, 7)
    assert_close(layer(choices_of(drawn)), layer(drawn))
    assert_close(
        functional.linear(choices_of(drawn), layer.weight),
        drawn @ layer.weight.T,
    )


def test_any_other_function_of_torch_is_given_the_tensor(rng):
    drawn = one_hot(rng, 6)
    choices = choices_of(drawn)
    assert torch.equal(torch.tanh(choices), drawn.tanh())
    assert torch.equal(torch.cat([choices, drawn], 0), torch.cat([drawn, drawn], 0))
    assert torch.equal(torch.where(drawn > 0, choices, 0.0), drawn)


def test_choices_are_records(rng):
    steps = [choices_of(one_hot(rng, 6)) for _ in range(3)]
    stacked = stack(steps, 1)
    assert torch.equal(stacked.tensor, torch.stack([step.tensor for step in steps], 1))
    assert torch.equal(stacked[:2, 1].tensor, steps[1].tensor[:2])
    assert torch.equal(unbind(stacked, 1)[2].index, steps[2].index)
    assert not stacked.detach().requires_grad
