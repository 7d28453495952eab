"""World Models (small): a controller that grew up in dreams alone lives long in the real environment."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("cma")

from dodge_in_the_dream import RESULTS, measure

pytestmark = pytest.mark.learning
FACTOR = 2.5  # of what the random controller lives


def check(result: dict, factor: float) -> None:
    controller, random = result["controller"], result["random"]
    assert controller["episodes"] == random["episodes"] == 100
    assert controller["return_mean"] > factor * random["return_mean"]
    assert controller["interval"][0] > 1.5 * random["interval"][1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_controller_evolved_in_dreams_outlives_the_random_one(seed, tmp_path):
    check(measure(seed, tmp_path), FACTOR)


def test_the_stored_results_of_all_seeds_hold_what_is_promised():
    results = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert [result["seed"] for result in results] == list(range(len(results)))
    for result in results:
        check(result, FACTOR)
        assert result["cpu_seconds"] < 480
        champions = [fitness for _, fitness in result["curves"]["fitness/champion"]]
        assert champions == sorted(champions), "a champion gives way to a better one only"
