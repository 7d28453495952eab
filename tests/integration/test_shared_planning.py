"""Two processes that share a search out make the plan of one; two that share episodes find what one finds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wm_toolkit import CEM, ICEM, MPPI, Goal, evaluate
from wm_toolkit.agents.actors import PlanningActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.envs.true_rooms import TrueRooms
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning import deadline
from wm_toolkit.planning.categorical import CategoricalCEM
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.shared import shared_candidates
from wm_toolkit.planning.shooting import RandomShooting
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct
from wm_toolkit.training.config import EvaluationConfig
from wm_toolkit.training.launch import launch, make_accelerator, world

SEARCH = {"horizon": 3, "samples": 65, "iterations": 4}
PLANNERS = {
    "cem": CEM(**SEARCH, elites=8),
    "best": CEM(**SEARCH, elites=8, execute="best"),
    "icem": ICEM(**SEARCH, elites=8),
    "mppi": MPPI(**SEARCH, elites=16),
    "shooting": RandomShooting(**SEARCH),
    "gradient": GradientPlanner(horizon=3, samples=5, iterations=4),
    "categorical": CategoricalCEM(**SEARCH, elites=8),
    "noisy": CEM(**SEARCH, elites=8),
    "one candidate": RandomShooting(horizon=3, samples=1),
    "settled": CEM(**{**SEARCH, "iterations": 50}, elites=8, tolerance=0.1),
    "hurried": CEM(**{**SEARCH, "iterations": 50}, elites=8, time_limit=10.0),
}
BOX, CHOICES = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(3)


@dataclasses.dataclass(frozen=True)
class Point(Struct):
    x: Tensor


class Bent(WorldModel[Point]):
    """x' = tanh(W [x, a]) with fixed weights and, if `noise`, a draw on top; counts what it dreams."""

    def __init__(self, action: gym.Space, noise: float = 0.0) -> None:
        super().__init__(Spaces({"vector": gym.spaces.Box(-9, 9, (4,), np.float32)}, action))
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(5)
            self.mix = nn.Linear(4 + self.spaces.action_width, 4)
        self.noise, self.dreamt = noise, 0

    def initial(self, batch_size: int) -> Point:
        return Point(torch.zeros(batch_size, 4))

    def observe(self, state, action, obs, *, generator=None) -> Point:
        return Point(obs["vector"])

    def imagine(self, state, action, *, generator=None) -> Point:
        self.dreamt += len(action)
        x = self.mix(torch.cat([state.x, action], -1)).tanh()
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=generator)
        return Point(x)

    def features(self, state) -> Tensor:
        return state.x

    def loss(self, batch):
        return {}


def search(name: str, seed: int = 0) -> tuple[dict[str, Tensor], int]:
    """Plan, warm-started, for three rows; the plan, and how many steps were dreamt."""
    model = Bent(
        CHOICES if name == "categorical" else BOX, noise=0.1 * float(name == "noisy")
    ).eval()
    rng = torch.Generator().manual_seed(1)
    state = Point(torch.randn(3, 4, generator=rng))
    goal = Goal(torch.randn(3, 4, generator=rng).tanh(), mode="sum")
    warm = torch.zeros(3, 2, model.spaces.action_width)
    plan = PLANNERS[name].plan(
        model, state, goal, warm_start=warm, generator=torch.Generator().manual_seed(seed)
    )
    found = {"actions": plan.actions, "score": plan.score, "best": plan.record.best}
    return {key: value.detach() for key, value in found.items()}, model.dreamt


def search_together(folder: Path) -> None:
    make_accelerator("no", 2)
    rank, _ = world()
    # The clocks disagree: to the first process an iteration takes three seconds, to the other none.
    ticks = iter(range(0, 1000, 3)) if rank == 0 else iter([0] * 1000)
    deadline.clock = lambda: float(next(ticks))
    with shared_candidates():
        found = {name: search(name) for name in PLANNERS}
        own_noise, _ = search("cem", seed=rank)
    found["own noise"] = own_noise, 0
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of two processes found by searching together."""
    folder = tmp_path_factory.mktemp("searches")
    launch(search_together, 2, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", PLANNERS)
def test_both_processes_hold_the_same_plan_to_the_bit(together, name):
    (first, _), (second, _) = (found[name] for found in together)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize("name", [n for n in PLANNERS if n not in ("noisy", "hurried")])
def test_two_processes_plan_what_one_plans(together, name):
    alone, _ = search(name)
    for key, value in alone.items():
        torch.testing.assert_close(together[0][name][0][key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_each_process_dreams_about_half_of_it(together):
    for name in ("cem", "icem", "mppi", "shooting", "categorical"):
        _, whole = search(name)
        parts = [found[name][1] for found in together]
        assert sum(parts) == whole, name
        assert max(parts) < 0.52 * whole, name


def test_the_first_process_decides_when_time_is_up(together):
    # Three seconds an iteration and ten in all: a third would end at nine, the score of the plan later.
    assert together[0]["hurried"][0]["best"].shape == (3, 2)


def test_the_first_process_s_noise_counts(together):
    for found in together:
        assert torch.equal(found["own noise"][0]["actions"], together[0]["cem"][0]["actions"])


def test_alone_nothing_is_shared():
    plain, dreamt = search("cem")
    with shared_candidates():
        same, also = search("cem")
    assert torch.equal(plain["actions"], same["actions"])
    assert dreamt == also


# -- episodes ----------------------------------------------------------------------------------------
def walker() -> Agent:
    """Plans with few candidates in the true dynamics of TwoRooms, so that it fails now and then."""
    with gym.make("wm_toolkit/TwoRooms-v0", obs_mode="position") as env:
        seen = Spaces.of(env)
    spaces = dataclasses.replace(seen, observation={"position": seen.observation["vector"]})
    model = TrueRooms(spaces.blocked(5))
    planner = CEM(horizon=4, samples=16, elites=4, iterations=2, noise_exponent=2.0)
    return Agent(model, PlanningActor(model, planner, Goal(), replan_every=2))


def protocol(group: int | None) -> EvaluationConfig:
    return EvaluationConfig(
        episodes=23,
        budget=30,
        goals="env",
        frame_skip=5,
        env="wm_toolkit/TwoRooms-v0",
        env_options={"obs_mode": "both"},
        group=group,
    )


GROUPS = {"shared episodes": 6, "shared candidates": None}


def evaluate_together(folder: Path) -> None:
    make_accelerator("no", 2)
    rank, _ = world()
    found = {n: evaluate(walker(), None, protocol(g), processes=2) for n, g in GROUPS.items()}
    plain = {name: dataclasses.replace(e, films=()) for name, e in found.items()}
    torch.save({name: (e.records, timeless(e)) for name, e in plain.items()}, folder / f"{rank}.pt")


def timeless(evaluation) -> dict:
    return {k: v for k, v in evaluation.to_json().items() if not k.endswith("_ms")}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodes")
    launch(evaluate_together, 2, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("how", GROUPS)
def test_two_processes_find_exactly_the_episodes_of_one(evaluated, how):
    one = evaluate(walker(), None, protocol(GROUPS[how]))
    assert 0 < one.success_rate < 1
    assert one.success_rate_at_replan < one.success_rate
    for found in evaluated:
        records, row = found[how]
        assert records == one.records
        assert row == timeless(one)
