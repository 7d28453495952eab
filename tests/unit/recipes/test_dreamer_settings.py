"""Settings of the Dreamer recipes arrive at what they are about."""

from __future__ import annotations

import pytest
import torch
from dreamer_toys import CHOICES, NUMBERS, small_agent

from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.models.dreamer import KL, Dreamer
from wm_toolkit.models.rssm import CategoricalBelief, GaussianBelief
from wm_toolkit.spaces import Spaces


def model_of(name: str, spaces: Spaces = NUMBERS, **settings) -> Dreamer:
    model = small_agent(name, spaces, **settings).model
    assert isinstance(model, Dreamer)
    return model


@pytest.mark.parametrize(
    ("name", "settings", "weights"),
    [
        ("planet", {"reward_scale": 2.0, "kl_scale": 0.25}, {"reward": 2.0, "divergence": 0.25}),
        (
            "planet",
            {"overshooting": 2, "overshooting_scale": 0.5},
            {"reward": 10.0, "divergence": 1.0, "overshooting": 0.5},
        ),
        ("dreamer_v1", {"kl_scale": 0.25}, {"divergence": 0.25}),
        (
            "dreamer_v1",
            {"predict_ending": True, "ending_scale": 3.0},
            {"divergence": 1.0, "continue": 3.0},
        ),
        (
            "dreamer_v2",
            {"kl_scale": 0.5, "kl_balance": 0.7, "ending_scale": 3.0},
            {"dynamics": 0.35, "representation": 0.15, "continue": 3.0},
        ),
        (
            "dreamer_v3",
            {
                "reconstruction": 7.0,
                "dynamics": 0.5,
                "representation": 0.2,
                "behaviour__replay_value": 0.4,
            },
            {"vector": 7.0, "dynamics": 0.5, "representation": 0.2, "replay_value": 0.4},
        ),
    ],
)
def test_the_weight_of_every_loss_is_what_was_set(name, settings, weights):
    learner = small_agent(name, **settings).learner
    assert isinstance(learner, ModelLearner)
    assert learner.scales == pytest.approx(weights)


@pytest.mark.parametrize(
    ("name", "kl"),
    [
        ("planet", KL("one", 0.7, "subtract")),
        ("dreamer_v1", KL("one", 0.7, "mean")),
        ("dreamer_v2", KL("two", 0.7, "mean")),
        ("dreamer_v3", KL("two", 0.7, "each")),
        ("dreamer_v3.arxiv_v1", KL("two", 0.7, "each")),
    ],
)
def test_free_nats_are_counted_as_each_generation_does(name, kl):
    assert model_of(name, free_nats=0.7).kl == kl


@pytest.mark.parametrize("name", ["planet", "dreamer_v1"])
def test_a_gaussian_is_as_narrow_as_was_set(name):
    assert model_of(name, least_std=0.3).rssm.belief == GaussianBelief(4, 0.3)


@pytest.mark.parametrize("name", ["dreamer_v2", "dreamer_v3", "dreamer_v3.arxiv_v1"])
def test_categoricals_are_mixed_as_was_set(name):
    groups = 3 if name == "dreamer_v2" else 4
    assert model_of(name, unimix=0.2).rssm.belief == CategoricalBelief(groups, 3, 0.2)


@pytest.mark.parametrize(("name", "share"), [("dreamer_v3", 0.0), ("dreamer_v3.arxiv_v1", 0.01)])
def test_a_policy_over_choices_leaves_each_the_share_that_was_set(name, share):
    for settings, expected in (({}, share), ({"policy_unimix": 0.2}, 0.2)):
        policy = model_of(name, CHOICES, **settings).heads["policy"]
        last = policy.net[-1]
        torch.nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor([200.0, 0.0, 0.0])
        chances = policy(torch.zeros(1, last_width(policy))).log_probs.exp()[0]
        assert chances[1:].tolist() == pytest.approx([expected / 3] * 2)


def last_width(policy) -> int:
    """Features that a policy reads."""
    return next(p for p in policy.parameters() if p.ndim == 2).shape[1]


def test_v1s_actor_begins_as_wide_as_was_set():
    for settings, std in (({}, 5.0), ({"actor_std": 0.7}, 0.7)):
        model = model_of("dreamer_v1", **settings)
        policy = model.heads["policy"](torch.zeros(1, model.rssm.width))
        assert policy.base.std[0].tolist() == pytest.approx([std + 1e-4] * 2)
