"""`wm bench train` measures updates in processes of their own, beside those of a peer."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch

from wm_toolkit.cli import main as cli
from wm_toolkit.cli.benchmarks import (
    BENCHMARKS,
    Benchmark,
    Case,
    dreamer_update,
    measure,
    training,
)
from wm_toolkit.errors import WmError
from wm_toolkit.recipes.dreamer_v3 import Size

ANSWERS = """
import json, sys
print("noise of an import")
print(json.dumps({"parameters": 12}), flush=True)
for number, _ in enumerate(sys.stdin, 1):
    print(json.dumps({"cpu": float(number ** 2), "peak": 2048 * number}), flush=True)
"""


def test_a_worker_says_what_each_update_took_and_the_peak_so_far():
    worker = training.Worker((sys.executable, "-c", ANSWERS))
    for _ in range(3):
        worker.update()
    worker.close()
    assert worker.parameters == 12
    assert worker.cpu == [1.0, 3.0, 5.0]
    assert worker.peak == 6.0


def test_a_worker_that_ends_early_is_named():
    with pytest.raises(WmError, match="ended with status 3"):
        training.Worker((sys.executable, "-c", "raise SystemExit(3)"))


def test_a_peer_that_an_interpreter_does_not_have_is_left_out(monkeypatch):
    monkeypatch.setattr(training, "RIVAL", "a-package-nobody-has")
    assert training.peer_version(sys.executable) is None


@pytest.mark.parametrize("workload", ["vector", "image"])
def test_an_update_moves_the_model_and_writes_its_states_back(workload, monkeypatch):
    monkeypatch.setattr(dreamer_update, "BATCH", 2)
    monkeypatch.setattr(dreamer_update, "LENGTH", 3)
    small = Size(deter=16, units=8, classes=3, depth=1)
    monkeypatch.setitem(dreamer_update.WORKLOADS, workload, small)
    update = dreamer_update.Update(workload)
    before = [p.detach().clone() for p in update.agent.model.parameters()]
    update()
    after = update.agent.model.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    stored = update.batch.extras["deter"]
    assert not stored[:, 0].any(), "the row of context stays as it was"
    assert stored[:, 1:].any(-1).all()


def test_the_workloads_have_the_parameters_that_the_peer_is_measured_with():
    assert dreamer_update.Update("vector").parameters == 2_618_403
    assert dreamer_update.Update("image").parameters == 10_494_158


def test_the_command_hands_the_peers_python_on(capsys, monkeypatch):
    seen = []

    def cases(quick):
        seen.append(os.environ[measure.RIVAL_PYTHON])
        yield Case("one", "ms", 1.5)

    monkeypatch.setenv(measure.RIVAL_PYTHON, "")
    monkeypatch.setitem(BENCHMARKS._items, "toy", Benchmark("toy", "a toy", cases))
    assert cli.main(["bench", "toy", "--json", "--rival", "/peer/python"]) == 0
    assert seen == ["/peer/python"]
    about = json.loads(capsys.readouterr().out.splitlines()[0])
    assert about["command"] == "wm bench toy --json --rival /peer/python"
