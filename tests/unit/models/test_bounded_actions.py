"""A model of Dreamer V3 sees actions as the environment clips them; the older generations as they are."""

from __future__ import annotations

import pytest
import torch
from dreamer_toys import small_agent
from torch.testing import assert_close

from wm_toolkit.models.rssm import DenseCore, bounded


def model_of(name: str):
    return small_agent(name).model.eval()


def test_numbers_beyond_one_are_scaled_back_to_it_and_others_stay():
    action = torch.tensor([-7.0, -1.0, -0.25, 0.0, 0.5, 1.0, 1.5])
    assert bounded(action).tolist() == pytest.approx([-1.0, -1.0, -0.25, 0.0, 0.5, 1.0, 1.0])


def test_the_scale_carries_no_gradient():
    action = torch.tensor([4.0, -0.5], requires_grad=True)
    bounded(action).sum().backward()
    assert action.grad.tolist() == [0.25, 1.0]


@pytest.mark.parametrize("name", ["dreamer_v3", "dreamer_v3.arxiv_v1"])
def test_a_model_of_v3_dreams_alike_after_actions_that_are_clipped_to_the_same(name):
    model, found = model_of(name), []
    for size in (1.0, 1.5, 30.0):
        state = model.initial(1)
        action = torch.tensor([[size, -0.5]])
        found.append(model.imagine(state, action, generator=torch.Generator().manual_seed(0)).deter)
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


@pytest.mark.parametrize("name", ["planet", "dreamer_v1", "dreamer_v2"])
def test_the_older_generations_see_actions_as_they_are(name):
    core, action = model_of(name).rssm.core, torch.tensor([[3.0, -2.0]])
    assert isinstance(core, DenseCore)
    assert core.embed(action) is action


def test_the_preprint_filters_what_was_executed_out_of_recorded_actions(rng):
    """Recorded actions are the policy's raw ones; a sequence of clipped ones is the same sequence."""
    from wm_toolkit.batch import Batch

    model, first = model_of("dreamer_v3.arxiv_v1"), torch.zeros(2, 5, dtype=torch.bool)
    first[:, 0] = True
    obs = {"vector": torch.randn(2, 5, 3, generator=rng)}
    action = 3 * torch.randn(2, 5, 2, generator=rng)
    states = [
        model.observe_sequence(Batch(obs, a, first), generator=torch.Generator().manual_seed(1))
        for a in (action, action.clamp(-1, 1))
    ]
    assert_close(states[0].deter, states[1].deter)
