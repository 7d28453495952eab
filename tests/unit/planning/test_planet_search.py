"""PlaNet's search, as its code has it, by named options of the Gaussian planners."""

from __future__ import annotations

import pytest
import torch
from planning_toys import published_loop, searched

from wm_toolkit.errors import ConfigError
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.gaussian import Gaussian
from wm_toolkit.planning.icem import ICEM
from wm_toolkit.planning.mppi import MPPI

OFFICIAL = {"deviation": "population", "least": "added", "min_std": 1e-3, "mean_candidate": False}
ELITES = torch.tensor([[[[1.0]], [[3.0]]]])
OLD = Gaussian(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))


def refitted(**options) -> float:
    return CEM(horizon=1, **options).refit(None, OLD, ELITES, torch.zeros(1, 2)).std.item()


def test_the_elites_deviate_as_a_sample_or_as_all_there_are():
    assert refitted() == pytest.approx(2**0.5)
    assert refitted(deviation="population") == pytest.approx(1.0)


def test_the_least_deviation_is_a_floor_or_is_added_to_the_variance():
    assert refitted(min_std=0.75, deviation="population") == pytest.approx(1.0)
    assert refitted(min_std=0.75, deviation="population", least="added") == pytest.approx(1.25)
    assert refitted(min_std=2.0, deviation="population") == pytest.approx(2.0)


@pytest.mark.parametrize("kind", [CEM, ICEM, MPPI])
def test_the_mean_is_a_candidate_or_not(kind):
    belief = Gaussian(torch.full((2, 3, 1), 0.5), torch.ones(2, 3, 1))
    planner = kind(horizon=3, samples=64, elites=4)
    assert planner.carried(belief, 0).tolist() == [[[[0.5]] * 3]] * 2
    without = kind(horizon=3, samples=64, elites=4, mean_candidate=False)
    assert without.carried(belief, 0).shape == (2, 0, 3, 1)


def test_icem_without_the_mean_still_keeps_elites_to_the_last_iteration():
    elites = torch.arange(10.0).view(1, 10, 1, 1)
    belief = Gaussian(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), elites)
    planner = ICEM(horizon=1, iterations=2, mean_candidate=False)
    assert planner.carried(belief, 1).flatten().tolist() == [0.0, 1.0, 2.0]


def test_the_search_equals_planets_loop_draw_for_draw():
    """The elites' moments, std = sqrt(variance + 1e-6); the mean is no candidate."""
    mean = published_loop(lambda e: (e.var(0, correction=0) + 1e-6).sqrt(), mean_candidate=False)
    assert torch.allclose(searched(**OFFICIAL), mean, atol=1e-6)
    assert not torch.allclose(searched(min_std=1e-3), mean)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"least": "flor"}, "CEM.least is 'flor'. Did you mean 'floor'"),
        ({"deviation": "sample"}, "CEM.deviation is 'sample'"),
    ],
)
def test_unknown_options_are_named(settings, said):
    with pytest.raises(ConfigError, match=said):
        CEM(horizon=1, **settings)
