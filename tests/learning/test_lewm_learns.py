"""LeWorldModel (small) learns TwoRooms well enough to reach goals it never saw."""

from __future__ import annotations

import json

import pytest
from lewm_two_rooms import RESULTS, measure

pytestmark = pytest.mark.learning


def check(result: dict, success: float) -> None:
    assert result["near"]["success_rate"] >= success
    assert result["near"]["start_solved_rate"] < 0.2
    assert result["sigreg"] < 3
    assert result["probe_r2"] > 0.95
    assert result["open_loop"][4] < 0.3 * result["copy_last"][4]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_model_trained_from_scratch_reaches_held_out_goals(seed, tmp_path):
    check(measure(seed, tmp_path, opposite=False), success=0.9)


def test_the_stored_results_of_three_seeds_hold_what_is_promised():
    results = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert [result["seed"] for result in results] == [0, 1, 2]
    for result in results:
        check(result, success=0.85)
        assert result["cpu_seconds"]["total"] < 360
        assert result["near_random"]["success_rate"] < 0.6
        assert result["near_oracle"]["success_rate"] == 1.0
    mean = sum(result["near"]["success_rate"] for result in results) / 3
    assert mean >= 0.9
