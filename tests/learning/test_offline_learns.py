"""Recorded episodes are enough to learn from, in dreams of a frozen model too, and what was learnt lasts online."""

from __future__ import annotations

import json

import pytest
from offline_online import CASES, EPISODES, RESULTS, measure

pytestmark = pytest.mark.learning
CPU_MINUTES = 12


def check(result: dict) -> None:
    scores = result["scores"]
    assert all(score["episodes"] == EPISODES for score in scores.values())
    random, offline, online = (scores[name] for name in ("random", "offline", "online"))
    if "fresh" in scores:
        assert scores["fresh"]["interval"][0] < random["interval"][1], "it knows nothing"
    for name in scores.keys() & {"offline", "behaviour", "online"}:
        assert scores[name]["interval"][0] > random["interval"][1], name
    recorded = scores.get("short", random)
    assert offline["return_mean"] > recorded["return_mean"], "better than who recorded it"
    assert online["interval"][1] > offline["interval"][0], "fine-tuning does not unlearn"
    assert online["return_mean"] > CASES[result["case"]].least


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("case", CASES)
def test_recorded_episodes_teach_and_experience_goes_on_from_there(case, tmp_path):
    check(measure(case, 0, tmp_path))


def test_the_stored_results_hold_what_is_promised():
    results = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert {result["case"] for result in results} == set(CASES)
    for result in results:
        check(result)
        assert result["updates"] == CASES[result["case"]].updates
        assert sum(result["cpu_seconds"].values()) < 60 * CPU_MINUTES
