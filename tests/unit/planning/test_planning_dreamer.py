"""Every planner on models of the Dreamer family: better than chance, and with gradients that arrive."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from dreamer_toys import (
    SPACES,
    FirstFeature,
    categorical_dreamer,
    gaussian_dreamer,
    sequences,
)
from torch import Tensor, nn

from wm_toolkit.batch import Batch
from wm_toolkit.heads.bernoulli import Bernoulli
from wm_toolkit.heads.normal import NormalHead, Regression
from wm_toolkit.models.dreamer import Dreamer
from wm_toolkit.planning.base import Planner
from wm_toolkit.planning.categorical import CategoricalCEM
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.gradient import GradientPlanner
from wm_toolkit.planning.icem import ICEM
from wm_toolkit.planning.mppi import MPPI
from wm_toolkit.planning.noise import random_actions
from wm_toolkit.planning.objective import Reward
from wm_toolkit.planning.rollout import score, score_and_gradient
from wm_toolkit.planning.shooting import RandomShooting
from wm_toolkit.testing.check_planner import check_planner
from wm_toolkit.testing.check_world_model import check_world_model

RETURN = Reward(gamma=1.0, bootstrap="none")
HORIZON = 6
PLANNERS: dict[str, Planner] = {
    "cem": CEM(horizon=HORIZON, samples=64, elites=8, iterations=5),
    "icem": ICEM(horizon=HORIZON, samples=64, elites=8, iterations=5, noise_exponent=0.0),
    "mppi": MPPI(horizon=HORIZON, samples=64, elites=8, iterations=5, init_std=1.0),
    "gradient": GradientPlanner(horizon=HORIZON, samples=8, iterations=25, learning_rate=0.2),
    "shooting": RandomShooting(horizon=HORIZON, samples=256),
}


def state_of(model: Dreamer, rows: int = 2):
    """Filtered states [rows] to plan from."""
    batch = sequences(model.spaces, torch.Generator().manual_seed(1), rows=rows, length=4)
    with torch.no_grad():
        return model.observe_sequence(batch, generator=torch.Generator().manual_seed(1))[:, -1]


def expected_return(model: Dreamer, state, actions: Tensor, objective=RETURN) -> Tensor:
    """[B, N] scores of plans [B, N, H, A], the mean over 64 dreams of each."""
    size, count = actions.shape[:2]
    many = actions.repeat_interleave(64, 1)
    noise = torch.Generator().manual_seed(123)
    scores = score(model, state, many, objective, generator=noise)
    return scores.view(size, count, 64).mean(-1)


def drifting(rng: torch.Generator, rows: int = 32, length: int = 10) -> Batch:
    """x' = x + 0.3 (a_0 + a_1), and the reward is x: the best plan pushes as hard as it can."""
    action = torch.rand(rows, length, 2, generator=rng) * 2 - 1
    x = torch.zeros(rows, length)
    x[:, 1:] = 0.3 * action.sum(-1)[:, :-1].cumsum(1)
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    ended = torch.zeros_like(first)
    return Batch({"vector": x.unsqueeze(-1).expand(-1, -1, 3)}, action, first, x, ended, ended)


@pytest.fixture(scope="module", params=[categorical_dreamer, gaussian_dreamer])
def learnt(request) -> Dreamer:
    """A small model after two seconds of training on the drifting point."""
    rng, model = torch.Generator().manual_seed(0), request.param().train()
    model.heads["reward"] = NormalHead(model.rssm.width)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(100):
            optimizer.zero_grad()
            sum(term.mean() for term in model.loss(drifting(rng)).values()).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_beats_chance_on_a_model_that_learnt_for_seconds(name, learnt):
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        seen = drifting(torch.Generator().manual_seed(5), rows=2, length=5)
        state = learnt.observe_sequence(seen, generator=noise)[:, -1]
    plan = PLANNERS[name].plan(learnt, state, RETURN, generator=noise)
    found = expected_return(learnt, state, plan.actions[:, None])[:, 0]
    drawn = random_actions(learnt.spaces, (2, 64, HORIZON), generator=noise, device="cpu")
    chance = expected_return(learnt, state, drawn)
    assert (found > chance.mean(1) + chance.std(1)).all()
    assert plan.actions[:, :2].mean() > 0.25, "pushing pays in truth, too"


@pytest.mark.parametrize("make", [categorical_dreamer, gaussian_dreamer])
@pytest.mark.parametrize("name", PLANNERS)
def test_planners_keep_their_contract_on_stochastic_models(name, make):
    model = make()
    elites = {"elites": 4} if hasattr(PLANNERS[name], "elites") else {}
    planner: Any = PLANNERS[name]
    planner = dataclasses.replace(planner, samples=16, iterations=2, **elites)
    check_planner(planner, model, state_of(model), RETURN)


def test_choices_are_searched_by_the_categorical_method():
    model = categorical_dreamer("several")
    with torch.no_grad():
        for parameter in model.rssm.core.parameters():
            parameter.mul_(2.0)
    model.heads["reward"] = FirstFeature()
    state = state_of(model)
    objective = Reward(gamma=1.0)
    noise = torch.Generator().manual_seed(0)
    planner = CategoricalCEM(horizon=HORIZON, samples=64, elites=8, iterations=6)
    plan = planner.plan(model, state, objective, generator=noise)
    drawn = random_actions(
        model.spaces, (2, 64, HORIZON), generator=torch.Generator().manual_seed(5), device="cpu"
    )
    chance = expected_return(model, state, drawn, objective)
    found = expected_return(model, state, plan.actions[:, None], objective)[:, 0]
    assert (found > chance.mean(1) + chance.std(1)).all()


@pytest.mark.parametrize("make", [categorical_dreamer, gaussian_dreamer])
def test_gradients_reach_every_action_and_no_parameter(make):
    model = make()
    model.heads["reward"] = LastOfStoch(model)
    actions = torch.zeros(2, 3, HORIZON, 2)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        _, gradient = score_and_gradient(model, state_of(model), actions, RETURN, generator=noise)
    # The reward reads the random part alone, so the gradient went through the draw.
    assert gradient.abs().amax(-1).gt(0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


class LastOfStoch(nn.Module):
    """A reward head that reads the random part of the state, in random directions."""

    def __init__(self, model: Dreamer) -> None:
        super().__init__()
        self.skip = model.rssm.core.width
        width = model.rssm.width - self.skip
        self.weight = nn.Buffer(torch.randn(width, generator=torch.Generator().manual_seed(2)))

    def forward(self, features: Tensor) -> Regression:
        mean = features[..., self.skip :] @ self.weight
        return Regression(mean, torch.ones_like(mean), 0)


def test_a_gaussian_models_gradient_is_the_slope_of_the_dream_with_the_same_noise():
    model, step = gaussian_dreamer(), 1e-2
    model.heads["reward"] = LastOfStoch(model)
    state, actions = state_of(model), torch.full((2, 1, 3, 2), 0.1)

    def value(plan: Tensor) -> Tensor:
        noise = torch.Generator().manual_seed(4)
        states = model.rollout(state, plan, generator=noise)
        return RETURN.score(model, plan, states)[:, 0]

    noise = torch.Generator().manual_seed(4)
    _, gradient = score_and_gradient(model, state, actions, RETURN, generator=noise)
    for t in range(3):
        moved = torch.zeros_like(actions)
        moved[:, :, t, 0] = step
        with torch.no_grad():
            slope = (value(actions + moved) - value(actions - moved)) / (2 * step)
        torch.testing.assert_close(gradient[:, 0, t, 0], slope, rtol=0.02, atol=2e-4)


class Constant(nn.Module):
    """The same number for every state."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, features: Tensor) -> Regression:
        mean = torch.full(features.shape[:-1], self.value)
        return Regression(mean, torch.ones_like(mean), 0)


class GoesOn(nn.Module):
    """Goes on with one probability, always."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, features: Tensor) -> Bernoulli:
        return Bernoulli(torch.full(features.shape[:-1], self.chance).logit())


def test_rewards_ends_and_the_value_behind_the_plan_are_discounted_once():
    model = gaussian_dreamer()
    model.heads["reward"], model.heads["value"] = Constant(1.0), Constant(10.0)
    model.discount = 0.9
    model.heads["continue"] = GoesOn(0.9 * 0.8)  # the discount it was taught, times 0.8
    state, actions = state_of(model), torch.zeros(2, 1, 3, 2)

    def of(objective: Reward) -> float:
        return score(model, state, actions, objective, generator=torch.Generator())[0, 0].item()

    def closed(step: float, value: float) -> float:
        return 1 + step + step**2 + value * step**3

    assert of(Reward(gamma=0.5, bootstrap="none")) == pytest.approx(closed(0.5 * 0.8, 0))
    assert of(Reward(gamma=0.5)) == pytest.approx(closed(0.5 * 0.8, 10))
    assert of(Reward(gamma=None)) == pytest.approx(closed(0.9 * 0.8, 10))
    del model.heads["continue"]
    assert of(Reward(gamma=None, bootstrap="value")) == pytest.approx(closed(0.9, 10))
    assert of(RETURN) == pytest.approx(3)


def test_models_under_a_planner_keep_the_contract(rng):
    for model in (categorical_dreamer(), gaussian_dreamer()):
        check_world_model(model, sequences(SPACES["vector"], rng))
