"""`wm bench launches` counts what an update asks of its device."""

from __future__ import annotations

import torch

from wm_toolkit.cli.benchmarks import dreamer_update, launches
from wm_toolkit.recipes.dreamer_v3 import SIZES, Size

CPU = torch.device("cpu")


def test_operations_that_compute_count_and_views_do_not():
    x = torch.ones(4, 3)
    assert launches.launches(lambda: x.t()[1:].reshape(-1, 2), CPU) == 1, "the reshape copies"
    assert launches.launches(lambda: x.t()[1:], CPU) == 0
    assert launches.launches(lambda: x.add_(1) + 2, CPU) == 2
    weight = torch.ones(3, requires_grad=True)
    assert launches.launches(lambda: (x @ weight).sum().backward(), CPU) > 3, "backward, too"


def test_an_update_is_counted_and_timed(monkeypatch):
    monkeypatch.setattr(dreamer_update, "BATCH", 2)
    monkeypatch.setattr(dreamer_update, "LENGTH", 3)
    monkeypatch.setitem(SIZES, "1m", Size(deter=16, units=8, classes=3, depth=1))
    (case,) = launches.run(True)
    assert case.ours > 0
    assert "launched one by one" in case.case
    assert int(case.note.split()[0].replace(",", "")) > 1000
