"""The Dreamer family learns small tasks from rewards, seed after seed, beside random actions."""

from __future__ import annotations

import json

import planners
import pytest
from imagination import CASES, RESULTS, measure

pytestmark = pytest.mark.learning
SEEDS = (0, 1, 2)
CPU_MINUTES = 10


def check(result: dict) -> None:
    agent, random = result["agent"], result["random"]
    assert agent["episodes"] == 20
    assert agent["return_mean"] > CASES[result["case"]].least
    assert agent["interval"][0] > random["interval"][1]


@pytest.mark.timeout(1500)
def test_dreamer_v1_swings_the_pendulum_up_from_scratch(tmp_path):
    check(measure("dreamer_v1_pendulum", 0, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_every_case_reaches_its_return_from_scratch(name, seed, tmp_path):
    check(measure(name, seed, tmp_path))


def test_the_stored_results_of_three_seeds_hold_what_is_promised():
    results = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    stored = {(result["case"], result["seed"]) for result in results}
    assert stored >= {(name, seed) for name in CASES for seed in SEEDS}
    for result in results:
        check(result)
        assert result["cpu_seconds"] < 60 * CPU_MINUTES
        steps = [step for step, _ in result["curve"]]
        assert steps == sorted(steps)
        assert len(steps) >= 5


def test_every_planner_finds_its_way_in_a_learnt_dream():
    known = planners.RESULTS.read_text().splitlines()
    found = {row["case"]: row["agent"] for row in map(json.loads, known)}
    for case in ("planet_pendulum", "dreamer_v3_pendulum"):
        random = found[f"{case}/random"]
        for name in planners.PLANNERS:
            played = found[f"{case}/{name}"]
            assert played["episodes"] == 20
            assert played["interval"][0] > random["interval"][1], (case, name)
        searching = [found[f"{case}/{name}"]["return_mean"] for name in ("cem", "mppi", "gradient")]
        assert min(searching) > -350, case
        assert min(searching) > found[f"{case}/shooting"]["return_mean"] + 100, (
            "one try is not enough"
        )
