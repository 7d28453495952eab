"""The recurrent family keeps the contract of a world model, whatever its core and its latents."""

from __future__ import annotations

import dataclasses

import dreamer_toys as toys
import gymnasium as gym
import numpy as np
import pytest
import torch
from dreamer_toys import SMALL, gaussian_dreamer
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from wm_toolkit.batch import Batch
from wm_toolkit.encoders.observations import ObservationEncoder
from wm_toolkit.errors import DataError
from wm_toolkit.heads.normal import NormalHead
from wm_toolkit.models.dreamer import KL, Dreamer
from wm_toolkit.models.rssm import (
    RSSM,
    Categorical,
    CategoricalBelief,
    DenseCore,
    Gaussian,
)
from wm_toolkit.nn.gru import NormGRU
from wm_toolkit.recipes.dreamer_v3 import world_model
from wm_toolkit.spaces import Spaces
from wm_toolkit.testing.check_world_model import check_world_model

SEVERAL = dataclasses.replace(toys.SPACES["several"], action=gym.spaces.MultiDiscrete([2, 3]))
SPACES = toys.SPACES | {"several": SEVERAL}


def batch_of(spaces: Spaces, rng: torch.Generator, rows: int = 3, length: int = 5) -> Batch:
    obs = {}
    for key, space in spaces.observation.items():
        shape = (rows, length, *(space.shape or ()))
        if space.dtype == np.uint8:
            obs[key] = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
        elif isinstance(space, gym.spaces.Discrete):
            obs[key] = torch.randint(0, int(space.n), shape, generator=rng)
        else:
            obs[key] = torch.randn(shape, generator=rng)
    if spaces.action_groups:
        parts = [
            functional.one_hot(torch.randint(0, n, (rows, length), generator=rng), n).float()
            for n in spaces.action_groups
        ]
        action = torch.cat(parts, -1)
    else:
        action = torch.rand(rows, length, spaces.action_width, generator=rng) * 2 - 1
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    first[1, 2] = True
    ended = torch.zeros(rows, length, dtype=torch.bool)
    return Batch(obs, action, first, torch.randn(rows, length, generator=rng), ended, ended)


@pytest.mark.parametrize("name", SPACES)
def test_dreamer_v3_keeps_the_contract(name, rng):
    torch.manual_seed(0)
    model = world_model(SPACES[name], SMALL)
    for part in model.heads["reward"].modules():  # zero at first, so nothing would flow through it
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.1)
    check_world_model(model, batch_of(SPACES[name], rng))


@pytest.mark.parametrize("cell", [nn.GRUCell, NormGRU])
def test_a_gaussian_model_keeps_the_contract(cell, rng):
    check_world_model(gaussian_dreamer(cell), batch_of(SPACES["vector"], rng))


def test_a_learned_first_state_keeps_the_contract(rng):
    torch.manual_seed(0)
    core = DenseCore(nn.GRUCell(8, 16), nn.Linear(6 + 2, 8), 16)
    belief = CategoricalBelief(2, 3)
    rssm = RSSM(core, nn.Linear(16, 6), nn.Linear(21, 6), belief, learned_initial=True)
    spaces = SPACES["vector"]
    encoder = ObservationEncoder(spaces, vector=nn.Linear(3, 5), vector_width=5)
    model = Dreamer(spaces, rssm, encoder, decoder=None, reward=NormalHead(22), kl=KL(nats=0.0))
    check_world_model(model, batch_of(spaces, rng))


def test_every_observation_has_a_loss_of_its_own(rng):
    model, batch = world_model(SPACES["several"], SMALL), batch_of(SPACES["several"], rng)
    names = {"camera", "joints", "mode", "reward", "continue", "dynamics", "representation"}
    losses = model.loss(batch)
    assert losses.keys() == names
    assert all(term.shape == (3, 5) for term in losses.values())
    choice = losses["mode"].mean()
    assert 0.5 < choice < 3.0  # near log 4


def test_a_fresh_reward_head_says_zero(rng):
    model, batch = world_model(SPACES["vector"], SMALL), batch_of(SPACES["vector"], rng)
    assert not model.predict("reward", model.observe_sequence(batch)).mean.any()


def test_the_continue_head_learns_the_discounted_chance(rng):
    model = world_model(SPACES["vector"], SMALL, horizon=10)
    batch = batch_of(SPACES["vector"], rng)
    batch = batch.replace(terminated=batch.is_first)
    out = model.predict("continue", model.observe_sequence(batch))
    goes_on = (~batch.is_first).float() * 0.9
    expected = out.loss(goes_on)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    posterior = model.observe_sequence(batch, generator=generator)
    expected = model.predict("continue", posterior).loss(goes_on)
    assert_close(model.losses(batch, posterior)["continue"], expected)


def test_rewards_that_are_missing_are_named(rng):
    model, batch = world_model(SPACES["vector"], SMALL), batch_of(SPACES["vector"], rng)
    with pytest.raises(DataError, match="no rewards"):
        model.loss(dataclasses.replace(batch, reward=None))


def test_unimix_leaves_every_class_its_share():
    probs = CategoricalBelief(1, 4, unimix=0.01)(torch.tensor([100.0, 0.0, 0.0, 0.0]))
    assert_close(probs.log_probs.exp(), torch.tensor([[0.9925, 0.0025, 0.0025, 0.0025]]))


def test_draws_follow_the_probabilities(rng):
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
    drawn = Categorical(probs.log().expand(20_000, 2, 3)).sample(rng)
    assert_close(drawn.mean(0).view(2, 3), probs, atol=0.015, rtol=0)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}


def test_the_gradient_of_a_draw_is_that_of_the_softmax(rng):
    logits = torch.randn(5, 2, 3, generator=rng, requires_grad=True)
    weight = torch.randn(5, 6, generator=rng)
    (Categorical(logits.log_softmax(-1)).sample(rng) * weight).sum().backward()
    through = logits.grad.clone()
    logits.grad = None
    (logits.softmax(-1).flatten(-2) * weight).sum().backward()
    assert_close(through, logits.grad)


def test_actions_beyond_their_bounds_are_scaled_back_without_a_gradient_through_the_scale(rng):
    """a / max(1, |a|), the divisor a constant: a number beyond its bounds still learns."""
    core = world_model(SPACES["vector"], SMALL).rssm.core
    action = torch.tensor([[3.0, -0.5], [-1.5, 1.0]], requires_grad=True)
    weight = torch.randn(2, 8, generator=rng)
    (found,) = torch.autograd.grad((core.embed(action) * weight).sum(), action)
    within = torch.tensor([[1.0, -0.5], [-1.0, 1.0]], requires_grad=True)
    assert_close(core.embed(action), core.action(within))
    (slope,) = torch.autograd.grad((core.action(within) * weight).sum(), within)
    assert_close(found, slope / torch.tensor([[3.0, 1.0], [1.5, 1.0]]))
    assert (found != 0).all()


def test_entropies_agree_with_torch(rng):
    mean, std = torch.randn(4, 3, generator=rng), torch.rand(4, 3, generator=rng) + 0.1
    normal = torch.distributions.Independent(torch.distributions.Normal(mean, std), 1)
    assert_close(Gaussian(mean, std).entropy(), normal.entropy())
    logits = torch.randn(4, 2, 3, generator=rng).log_softmax(-1)
    choice = torch.distributions.Independent(torch.distributions.Categorical(logits=logits), 1)
    assert_close(Categorical(logits).entropy(), choice.entropy())
