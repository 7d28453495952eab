"""Early stops row by row, warm starts that look nearby, bfloat16 and compiled dreams."""

import dataclasses
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from planning_toys import PointMass, Position

import wm_toolkit
from wm_toolkit.config import from_dict, override, to_dict
from wm_toolkit.errors import ConfigError
from wm_toolkit.planning import rollout
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal
from wm_toolkit.planning.problem import Problem
from wm_toolkit.planning.rollout import score
from wm_toolkit.planning.shooting import RandomShooting
from wm_toolkit.spaces import Spaces

GOAL = torch.tensor([[0.5, -0.25]])
NEAR_AND_FAR = Position(torch.tensor([[0.5, -0.25], [-40.0, 30.0], [0.4, -0.2]]))
STEADY = CEM(horizon=4, samples=128, elites=16, iterations=40, tolerance=0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched(CEM):
    """Keeps the elites of every iteration."""

    seen: list = dataclasses.field(default_factory=list)

    def refit(self, problem, belief, elites, scores):
        self.seen.append((elites, scores))
        return super().refit(problem, belief, elites, scores)


@pytest.fixture
def lewm(rng):
    """A small LeWorldModel whose predictor depends on actions, two states and their goals."""
    image = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    move = gym.spaces.Box(-1, 1, (2,), np.float32)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        size = {"image_size": 32, "layers": 1, "width": 24}
        model = wm_toolkit.build("lewm.small", Spaces({"image": image}, move), **size).model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modulation" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
        seen, goal = torch.randint(0, 256, (2, 2, 32, 32, 3), generator=rng, dtype=torch.uint8)
        state = model.observe(model.initial(2), torch.zeros(2, 2), {"image": seen})
    return model, state, Goal().bind(model, {"goal/image": goal})


def test_a_row_that_has_settled_is_dreamt_no_further(rng):
    """The far row pushes against the bounds and settles first; the others go on without it."""
    model = PointMass()
    plan = STEADY.plan(model, NEAR_AND_FAR, Goal(GOAL), generator=rng)
    spread = plan.record.spread
    below = spread < STEADY.tolerance
    last = below.int().argmax(1)
    assert below.any(1).all()
    assert len(set(last.tolist())) > 1
    dreamt = torch.tensor([[t <= end for t in range(spread.shape[1])] for end in last.tolist()])
    assert model.dreamt == [*(dreamt.sum(0) * 128).tolist(), 3]
    for row, end in enumerate(last.tolist()):
        assert (spread[row, end:] == spread[row, end]).all(), "its record stays as it was"
        assert (plan.record.best[row, end:] == plan.record.best[row, end]).all()


def test_rows_that_settle_at_different_times_keep_their_own_states_goals_and_plans(rng):
    model, goals = PointMass(), torch.tensor([[0.5, 0.0], [0.0, 0.3], [-0.2, 0.1]])
    start = Position(torch.tensor([[0.4, 0.1], [-30.0, 20.0], [0.0, 0.0]]))
    plan = STEADY.plan(model, start, Goal(goals), generator=rng)
    end = start.x + 0.1 * plan.actions.sum(1)
    assert (end[[0, 2]] - goals[[0, 2]]).norm(dim=1).max() < 0.02
    torch.testing.assert_close(plan.actions[1].mean(0), torch.tensor([1.0, -1.0]), rtol=0, atol=0.1)
    torch.testing.assert_close(plan.score, -(end - goals).square().mean(1))


def test_without_a_tolerance_every_row_takes_all_iterations(rng):
    model = PointMass()
    endless = dataclasses.replace(STEADY, tolerance=None, iterations=7)
    plan = endless.plan(model, NEAR_AND_FAR, Goal(GOAL), generator=rng)
    assert plan.record.spread.shape == (3, 7)
    assert model.dreamt == [3 * 128] * 7 + [3]


def test_warm_std_applies_to_known_steps_only(rng):
    planner = CEM(horizon=3, samples=64, elites=8, init_std=2.0, warm_std=0.25)
    warm = torch.tensor([[[0.5, 0.0], [0.1, 0.1]], [[0.0, 0.0], [0.0, 0.0]]])
    problem = rollout_problem(warm, rng)
    belief = planner.begin(problem)
    assert belief.std[0].tolist() == [[0.25] * 2, [0.25] * 2, [2.0] * 2]
    assert (belief.std[1] == 2.0).all()
    assert (dataclasses.replace(planner, warm_std=None).begin(problem).std == 2.0).all()


def rollout_problem(warm, rng):
    model = PointMass()
    return Problem.of(
        model, model.initial(len(warm)), Goal(GOAL), horizon=3, warm_start=warm, generator=rng
    )


def test_a_warm_start_and_a_tolerance_together_save_most_iterations(rng):
    model, goal = PointMass(), Goal(GOAL)
    planner = CEM.fast(horizon=4, samples=128, elites=16)
    cold = planner.plan(model, model.initial(1), goal, generator=rng)
    again = planner.plan(model, model.initial(1), goal, warm_start=cold.actions, generator=rng)
    full = CEM(horizon=4, samples=128, elites=16)
    best = full.plan(model, model.initial(1), goal, generator=rng)
    taken = [plan.record.spread.shape[1] for plan in (again, cold, best)]
    assert taken[0] < taken[1] < taken[2] == 30
    idle = score(model, model.initial(1), torch.zeros(1, 1, 4, 2), goal).item()
    assert again.score.item() > 0.2 * idle


def test_settings_of_speed_survive_json_and_can_be_overridden_by_name():
    planner = CEM.fast(horizon=4, precision="bf16", compile=True)
    assert from_dict(CEM, to_dict(planner)) == planner
    assert override(CEM.fast(4), {"precision": "bf16"}) == CEM.fast(4, precision="bf16")


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"precision": "bf61"}, "bf16"), ({"warm_std": -1.0}, "warm_std is -1.0")],
)
def test_impossible_options_are_named(setting, words):
    with pytest.raises(ConfigError, match=words):
        CEM(horizon=4, **setting)


def test_bfloat16_agrees_in_scores_and_elites_and_leaves_everything_as_it_was(lewm):
    model, state, objective = lewm
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for precision in ("float32", "bf16"):
        planner = Watched(horizon=4, samples=200, elites=40, iterations=1, precision=precision)
        generator = torch.Generator().manual_seed(3)
        plan = planner.plan(model, state, objective, generator=generator)
        assert plan.actions.dtype == plan.score.dtype == torch.float32
        found[precision] = planner.seen[0]
    (exact, scores), (rounded, rounded_scores) = found["float32"], found["bf16"]
    assert not torch.equal(scores, rounded_scores), "matrix products in bfloat16 round"
    torch.testing.assert_close(rounded_scores, scores, rtol=0.03, atol=1e-3)
    for row in range(2):
        same = {tuple(e) for e in exact[row].flatten(1).tolist()} & {
            tuple(e) for e in rounded[row].flatten(1).tolist()
        }
        assert len(same) >= 36, "nine elites of ten are the same"
    assert not torch.is_autocast_enabled("cpu")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_compiled_dreams_give_the_same_plan(monkeypatch):
    """The tracing part of the compiler, which needs no C++ compiler."""
    calls = []
    traced = torch.compile(rollout._dream, backend="eager")

    def compiled():
        calls.append(1)
        return traced

    monkeypatch.setattr(rollout, "_compiled", compiled)
    model = PointMass()
    plans = [
        CEM(horizon=3, samples=32, elites=8, iterations=3, compile=compile).plan(
            model, NEAR_AND_FAR, Goal(GOAL), generator=torch.Generator().manual_seed(0)
        )
        for compile in (False, True)
    ]
    torch.testing.assert_close(plans[1].actions, plans[0].actions, rtol=0, atol=1e-5)
    assert len(calls) == 3, "once an iteration; the one plan that is returned is scored as it is"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_whole_compiler_gives_the_same_plan(lewm):
    model, state, objective = lewm
    plans = [
        CEM(horizon=3, samples=32, elites=8, iterations=2, compile=compile).plan(
            model, state, objective, generator=torch.Generator().manual_seed(0)
        )
        for compile in (False, True)
    ]
    torch.testing.assert_close(plans[1].actions, plans[0].actions, rtol=0, atol=1e-5)


def test_a_planner_without_a_belief_takes_the_options_too(lewm):
    model, state, objective = lewm
    plans = [
        RandomShooting(horizon=3, samples=64, precision=precision).plan(
            model, state, objective, generator=torch.Generator().manual_seed(0)
        )
        for precision in ("float32", "bf16")
    ]
    torch.testing.assert_close(plans[0].score, plans[1].score, rtol=0.03, atol=1e-3)
