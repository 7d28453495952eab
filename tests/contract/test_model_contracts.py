"""Every model family through the public checker, and the checker through broken models."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import pytest
import torch
from families import FAMILIES
from toys import ToyMuZero, random_batch, vector_spaces

from wm_toolkit.heads.base import Output
from wm_toolkit.heads.bernoulli import BernoulliHead
from wm_toolkit.heads.image import ImageHead
from wm_toolkit.heads.normal import NormalHead
from wm_toolkit.heads.onehot import OneHotHead
from wm_toolkit.heads.twohot import TwoHotHead
from wm_toolkit.testing import CheckError, check_world_model


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_contract(family):
    made = FAMILIES[family]
    passed = check_world_model(made.model(made.spaces()), made.batch())
    assert len(passed) == 11


def test_a_rollout_that_forgets_an_action_is_found_out():
    class Forgetful(ToyMuZero):
        def rollout(self, state, actions, *, generator=None):
            return super().rollout(state, actions.flip(2), generator=generator)

    model = Forgetful(vector_spaces(gym.spaces.Discrete(3)))
    with pytest.raises(CheckError, match="rollout equals the plain loop"):
        check_world_model(model, random_batch(model.spaces))


def test_rows_that_leak_into_each_other_are_found_out():
    class Leaky(ToyMuZero):
        def observe(self, state, action, obs, *, generator=None):
            found = super().observe(state, action, obs)
            return dataclasses.replace(found, latent=found.latent - found.latent.mean(0))

    model = Leaky(vector_spaces(gym.spaces.Discrete(3)))
    with pytest.raises(CheckError, match="rows do not influence each other"):
        check_world_model(model, random_batch(model.spaces))


def test_a_parameter_without_gradient_is_named():
    model = ToyMuZero(vector_spaces(gym.spaces.Discrete(3)))
    model.heads["unused"] = NormalHead(8, 2)
    with pytest.raises(CheckError, match=r"heads\.unused.*no gradient"):
        check_world_model(model, random_batch(model.spaces))


@pytest.mark.parametrize(
    "head",
    [
        NormalHead(6, 3, learned_std=True),
        NormalHead(6),
        BernoulliHead(6),
        OneHotHead(6, (3, 2)),
        TwoHotHead(6),
        ImageHead(6, 8),
    ],
    ids=lambda head: type(head).__name__,
)
def test_every_head_returns_an_output_that_fits_itself(head, rng):
    out = head(torch.randn(4, 5, 6, generator=rng))
    assert isinstance(out, Output)
    sample = out.sample(rng)
    assert sample.shape == out.mean.shape == out.mode.shape
    for per_row in (out.log_prob(sample), out.entropy(), out.loss(out.mode)):
        assert per_row.shape == (4, 5)
        assert torch.isfinite(per_row).all()
    # The mode is at least as likely as a draw.
    assert (out.log_prob(out.mode) >= out.log_prob(sample) - 1e-5).all()
