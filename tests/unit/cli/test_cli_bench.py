"""Benchmarks print the agreed keys and compare in the right direction."""

from __future__ import annotations

import json
import multiprocessing

import gymnasium as gym
import numpy as np
import torch

from wm_toolkit.cli import main as cli
from wm_toolkit.cli.benchmarks import BENCHMARKS, Benchmark, Case, data, measure, planning
from wm_toolkit.cli.benchmarks.measure import Spent, compare, operations
from wm_toolkit.planning.cem import CEM
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.jobs import prepare_two_rooms
from wm_toolkit.training.seeding import own_stream

KEYS = ["benchmark", "case", "unit", "ours", "peer_name", "peer", "floor", "ratio"]
MORE = ["wall", "peer_wall", "note"]


def test_a_ratio_above_one_means_ours_is_better():
    assert Case("a", "windows/CPU-s", 30.0, 40.0, "them", 10.0).ratio == 3.0
    assert Case("a", "ms", 10.0, 5.0, "them", 30.0).ratio == 3.0
    assert Case("a", "ms", 10.0, 5.0, "them", None).ratio is None


def test_bench_prints_one_json_object_per_case(capsys, monkeypatch):
    def cases(quick):
        assert quick
        yield Case("one", "ms", 1.5, 0.5)
        yield Case("two", "frames/s", 4.0, 9.0, "peer 1.0", 2.0)

    monkeypatch.setitem(BENCHMARKS._items, "toy", Benchmark("toy", "a toy", cases))
    assert cli.main(["bench", "toy", "--quick", "--json"]) == 0
    about, *lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert about["command"] == "wm bench toy --json --quick"
    assert about["threads"] == 1
    assert about["versions"]["torch"] == torch.__version__
    assert about["date"].endswith("+00:00")
    assert [list(line) for line in lines] == [KEYS + MORE, KEYS + MORE]
    assert lines[0]["benchmark"] == "toy"
    assert lines[0]["ratio"] is None
    assert lines[1]["ratio"] == 2.0


def test_operations_counts_multiplications_and_additions_backward_too():
    a, b = torch.rand(3, 4), torch.rand(4, 5, requires_grad=True)
    assert operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert operations(lambda: (a @ b).sum().backward()) == 2 * (2 * 3 * 4 * 5)


def test_rivals_take_turns_and_the_median_ignores_a_slow_repeat(monkeypatch):
    order, ticks = [], iter([0.0, 1.0, 1.0, 3.0, 10.0, 11.0, 11.0, 13.0, 20.0, 99.0, 99.0, 101.0])
    monkeypatch.setattr(measure, "now", lambda: Spent(2 * (tick := next(ticks)), tick))
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = compare(works, 3)
    assert order == ["a", "b"] * 4, "one turn to warm up, three that count"
    assert found == {"a": Spent(2.0, 1.0), "b": Spent(4.0, 2.0)}


def test_the_time_of_child_processes_counts():
    before = measure.now()
    child = multiprocessing.get_context("spawn").Process(target=sum, args=(range(10_000_000),))
    child.start()
    child.join()
    assert (measure.now() - before).cpu > 0.05


def test_windows_of_frames_are_measured_beside_every_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SOME", 0)
    files = data.Files(tmp_path, 64, 30)
    cases = list(data.measure(files, files.data.windows(4, frame_skip=5), 0, repeats=1))
    assert {case.unit for case in cases} == {"windows/CPU-s"}
    assert all(case.ours > 0 and case.floor > 0 for case in cases)
    assert [case.peer is None for case in cases] == [files.rival is None] * len(cases)
    assert len(cases) == (1 if files.rival is None else 2)


def test_enlarged_frames_repeat_their_pixels(tmp_path):
    small = prepare_two_rooms(tmp_path / "small.h5", episodes=2, steps=3)
    large = data.enlarged(small, tmp_path / "large.h5", 224)
    frames, before = large.episode(1).obs["image"], small.episode(1).obs["image"]
    assert frames.shape == (4, 224, 224, 3)
    assert (frames[:, 7::7, 3::7] == before[:, 2::2, 0::2][:, : frames[:, 7::7].shape[1]]).all()


def test_both_plan_from_the_same_images_and_a_missing_peer_leaves_its_columns_empty(monkeypatch):
    """A tiny model stands in for the published one: what is measured does not depend on its size."""
    with own_stream(0):
        model = build("lewm.small", _spaces(), image_size=32, layers=1, width=24).model.eval()
    monkeypatch.setattr(planning, "SIZE", 32)
    search = CEM(horizon=2, samples=8, elites=4, iterations=5)
    pair = planning.Pair(model, None, search, 2)
    cases = list(pair.measure({"float32": 1e9, "bf16": 2e9}, 1))
    assert [case.case for case in cases] == [
        "CEM 8x5x2, 2 environments, float32",
        "CEM 8x5x2, 2 environments, bf16",
    ]
    assert cases[0].floor == 2 * cases[1].floor > 0
    assert [case.ratio for case in cases] == [None, None]
    assert cases[0].note.startswith("distance to the goal")
    assert pair.operations() == measure.operations(lambda: pair.our_plan("float32")), "of all 5"


def _spaces() -> Spaces:
    image = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    return Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32)).blocked(5)
