"""Benchmarks print the agreed keys and compare in the right direction."""

from __future__ import annotations

import json

import pytest
import torch

from wm_toolkit.cli import main as cli
from wm_toolkit.cli.benchmarks import BENCHMARKS, Benchmark, Case, operations, seconds

KEYS = ["benchmark", "case", "unit", "ours", "peer_name", "peer", "floor", "ratio"]


def test_a_ratio_above_one_means_ours_is_better():
    assert Case("a", "windows/s", 30.0, 40.0, "them", 10.0).ratio == 3.0
    assert Case("a", "ms", 10.0, 5.0, "them", 30.0).ratio == 3.0
    assert Case("a", "ms", 10.0, 5.0, "them", None).ratio is None


def test_bench_prints_one_json_object_per_case(capsys, monkeypatch):
    def cases(quick):
        assert quick
        yield Case("one", "ms", 1.5, 0.5)
        yield Case("two", "frames/s", 4.0, 9.0, "peer 1.0", 2.0)

    monkeypatch.setitem(BENCHMARKS._items, "toy", Benchmark("toy", "a toy", cases))
    assert cli.main(["bench", "toy", "--quick", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(line) for line in lines] == [KEYS, KEYS]
    assert lines[0]["benchmark"] == "toy"
    assert lines[0]["ratio"] is None
    assert lines[1]["ratio"] == 2.0


def test_operations_counts_multiplications_and_additions_backward_too():
    a, b = torch.rand(3, 4), torch.rand(4, 5, requires_grad=True)
    assert operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert operations(lambda: (a @ b).sum().backward()) == 2 * (2 * 3 * 4 * 5)


def test_the_median_ignores_a_slow_repeat(monkeypatch):
    ticks = iter([0.0, 1.0, 10.0, 11.0, 20.0, 99.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    assert seconds(lambda: None, 3) == pytest.approx(1.0)


def test_the_data_benchmark_measures_ours_the_peer_and_the_floor():
    cases = list(BENCHMARKS["data"].run(True))
    assert [case.unit for case in cases] == ["windows/s"] * 4
    assert all(case.ours > 0 and case.floor > 0 for case in cases)
    assert cases[0].peer > 0
    names = [case.peer_name.split()[0] for case in cases]
    assert names == ["h5py", "stable-worldmodel"] * 2
