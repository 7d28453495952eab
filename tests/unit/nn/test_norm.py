"""Batch statistics are those of the whole batch, and right at evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wm_toolkit.nn.norm import BatchNorm, fresh_statistics


def test_one_process_computes_what_torch_computes(rng):
    ours, theirs = BatchNorm(5), nn.BatchNorm1d(5)
    x = torch.randn(4, 3, 5, generator=rng) * 3 + 1
    assert torch.equal(ours(x), theirs(x.view(12, 5)).view(4, 3, 5))
    assert torch.equal(ours.running_var, theirs.running_var)


def test_fresh_statistics_are_the_plain_average_over_the_passes(rng):
    net = nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Dropout(0.5))
    batches = [torch.randn(64, 3, generator=rng) * 2 + 1 for _ in range(5)]
    for batch in batches:  # training moves the statistics, with a lag
        net(batch)
    net[2].p = 0.3
    with torch.no_grad(), fresh_statistics(net):
        for batch in batches:
            net(batch)
    hidden = torch.stack([net[0](batch) for batch in batches])
    torch.testing.assert_close(net[1].running_mean, hidden.mean((0, 1)))
    torch.testing.assert_close(net[1].running_var, hidden.var(1).mean(0))
    assert net.training
    assert net[2].training
    assert net[1].momentum == 0.1


def test_dropout_is_off_while_statistics_are_estimated():
    net = nn.Sequential(nn.Dropout(0.9), BatchNorm(2))
    with fresh_statistics(net):
        net(torch.ones(8, 2) * 3)
    assert net[1].running_mean.tolist() == pytest.approx([3, 3])
