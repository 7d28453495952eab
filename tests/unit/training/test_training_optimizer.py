import math

import pytest
import torch
from torch import nn

from wm_toolkit.errors import ConfigError
from wm_toolkit.training.optimizer import adamw, constant, cooldown, warmup_cosine


def test_warmup_rises_linearly_and_the_cosine_ends_at_its_last_value():
    factor = warmup_cosine(total=110, warmup=10, last=0.1)
    assert [factor(u) for u in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert factor(60) == pytest.approx(0.1 + 0.9 * 0.5)
    assert factor(35) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(110) == factor(10_000) == pytest.approx(0.1)


def test_a_constant_schedule_stays_at_one_after_its_warmup():
    assert [constant()(u) for u in (0, 99)] == [1.0, 1.0]
    assert [constant(4)(u) for u in (0, 1, 3, 50)] == [0.25, 0.5, 1.0, 1.0]


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(ConfigError, match="warmup is 10 of 10"):
        warmup_cosine(10, 10)


def test_matrices_decay_and_vectors_are_spared():
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = adamw(0.1, weight_decay=0.5)(module.parameters())
    groups = {
        tuple(p.shape for p in g["params"]): g["weight_decay"] for g in optimizer.param_groups
    }
    assert groups == {((2, 3),): 0.5, ((2,), (2,), (2,)): 0.0}
    everything = adamw(0.1, weight_decay=0.5, decay="all")(module.parameters())
    assert [g["weight_decay"] for g in everything.param_groups] == [0.5]


def test_decay_shrinks_a_weight_without_gradient_by_the_decoupled_rule():
    weight = nn.Parameter(torch.ones(1, 1))
    optimizer = adamw(0.1, weight_decay=0.5)([weight])
    weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert float(weight.detach()) == pytest.approx(1 - 0.1 * 0.5)


def test_a_cooldown_is_flat_and_then_a_straight_line_to_zero():
    factor = cooldown(60, share=0.5)
    assert [factor(update) for update in (0, 30, 45, 60, 99)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    with pytest.raises(ConfigError, match="share is 0"):
        cooldown(60, share=0)
