"""A few rows draw what they would draw in a larger batch, whatever the draw."""

from __future__ import annotations

import pytest
import torch

from wm_toolkit.heads.mixture import Mixture
from wm_toolkit.heads.onehot import OneHot
from wm_toolkit.nn.draws import DrawnAmong

TOTAL = 10
CHANCES = torch.linspace(0.05, 0.95, TOTAL * 4).reshape(TOTAL, 4)
GROUPS = {"one by one": 1, "threes": 3, "all": TOTAL}


def normal(rows, noise):
    return torch.empty(len(rows), 20).normal_(2.0, 3.0, generator=noise)


def uniform_parts(rows, noise):
    return torch.empty(len(rows) * 2, 3).uniform_(1e-12, 1, generator=noise).unflatten(0, (-1, 2))


def of_a_shape(rows, noise):
    both = torch.randn((len(rows), 3), generator=noise), torch.rand(len(rows), 3, generator=noise)
    return torch.cat(both, -1)


def whole_numbers(rows, noise):
    return torch.randint(0, 1000, size=(len(rows),), generator=noise)


def bernoulli(rows, noise):
    return torch.bernoulli(CHANCES[rows], generator=noise)


def choice(rows, noise):
    return OneHot(CHANCES[rows].log()[:, None].repeat(1, 5, 1), (4,)).sample(noise)


def mixture(rows, noise):
    logits = CHANCES[rows][:, None].repeat(1, 3, 1)
    return Mixture(logits, 10 * logits, torch.zeros_like(logits)).sample(noise)


DRAWS = [normal, uniform_parts, of_a_shape, whole_numbers, bernoulli, choice, mixture]


@pytest.mark.parametrize("size", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("draw", DRAWS)
def test_groups_of_any_size_draw_what_all_rows_draw_together(draw, size):
    def seeded():
        return torch.Generator().manual_seed(3)

    noise = seeded()
    everyone = [draw(list(range(TOTAL)), noise) for _ in range(2)]
    assert not torch.equal(*everyone)
    for first in range(0, TOTAL, size):
        rows, noise = list(range(first, min(first + size, TOTAL))), seeded()
        with DrawnAmong(TOTAL, rows):
            for whole in everyone:
                assert torch.equal(draw(rows, noise), whole[rows])


def test_a_row_may_come_up_twice(rng):
    everyone = torch.empty(6, 2).normal_(generator=torch.Generator().manual_seed(0))
    with DrawnAmong(6, [4, 5, 5, 5]):
        drawn = torch.empty(4, 2).normal_(generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, everyone[[4, 5, 5, 5]])


def test_what_is_not_drawn_by_rows_is_as_outside():
    def draws(noise):
        return torch.randperm(7, generator=noise), torch.empty(5).normal_(generator=noise)

    with DrawnAmong(6, [0, 1]):
        inside = draws(torch.Generator().manual_seed(0))
        total = (torch.ones(2, 3) + 1).sum()
    for one, other in zip(inside, draws(torch.Generator().manual_seed(0)), strict=True):
        assert torch.equal(one, other)
    assert total == 12
