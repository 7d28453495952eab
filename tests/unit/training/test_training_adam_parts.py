"""One Adam with parts that have rates, bounds and decays of their own."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_toolkit.batch import Batch
from wm_toolkit.errors import ConfigError
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.optimizer import AdamPart, adam_parts

SPACES = Spaces(
    {"vector": gym.spaces.Box(-9, 9, (3,), np.float32)}, gym.spaces.Box(-1, 1, (2,), np.float32)
)


def agent_of(seed: int = 0, **overrides):
    torch.manual_seed(seed)
    tiny = {"deter": 8, "hidden": 8, "stoch": 4, "units": 8, "behaviour__horizon": 3}
    return build("dreamer_v1", SPACES, **tiny, **overrides)


def batch_of(rng: torch.Generator) -> Batch:
    first = torch.zeros(3, 5, dtype=torch.bool)
    first[:, 0] = True
    obs = {"vector": torch.randn(3, 5, 3, generator=rng)}
    action = torch.rand(3, 5, 2, generator=rng)
    flags = torch.zeros_like(first)
    return Batch(obs, action, first, torch.randn(3, 5, generator=rng), flags, flags)


def test_every_part_has_its_own_settings_and_inner_parts_come_first():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    head, rest = AdamPart(0.1, eps=1e-5, clip=3.0), AdamPart(0.2, clip=None, decay=1e-6)
    optimizer = adam_parts([(model[1], head), (model, rest)])(model.parameters())
    first, second = optimizer.param_groups
    assert [p.shape for p in first["params"]] == [(1, 2), (1,)]
    assert (first["lr"], first["eps"], first["max_norm"], first["weight_decay"]) == (
        0.1,
        1e-5,
        3.0,
        0.0,
    )
    assert [p.shape for p in second["params"]] == [(2, 2), (2,)]
    assert second["weight_decay"] * second["lr"] == pytest.approx(1e-6)


def test_weights_shrink_by_the_same_share_at_any_learning_rate():
    for lr in (1e-4, 1e-2):
        weight = nn.Parameter(torch.ones(3))
        module = nn.Module()
        module.weight = weight
        optimizer = adam_parts([(module, AdamPart(lr, decay=0.01))])([weight])
        weight.grad = torch.zeros(3)
        optimizer.step()
        assert_close(weight.detach(), torch.full((3,), 0.99))


def test_frozen_parts_are_left_out_and_strangers_are_refused():
    one, other = nn.Linear(2, 1), nn.Linear(3, 1)
    build_one = adam_parts([(one, AdamPart(0.1)), (other, AdamPart(0.2))])
    assert len(build_one(other.parameters()).param_groups) == 1
    with pytest.raises(ConfigError, match=r"\(1, 3\).*belong to no part"):
        adam_parts([(one, AdamPart(0.1))])(other.parameters())


def test_a_learner_clips_every_part_by_itself(rng):
    """With bounds that bind, each part's gradient has the norm of its own bound."""
    bounds = {"model": 0.01, "actor": 0.02, "critic": 0.03}
    agent = agent_of(**{f"{part}_adam__clip": bound for part, bound in bounds.items()})
    metrics = agent.learn(batch_of(rng))
    heads = agent.model.heads
    behaviour = {id(p) for name in ("policy", "value") for p in heads[name].parameters()}
    parts = {
        "actor": list(heads["policy"].parameters()),
        "critic": list(heads["value"].parameters()),
        "model": [p for p in agent.model.parameters() if id(p) not in behaviour],
    }
    for name, parameters in parts.items():
        norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        assert float(norm) == pytest.approx(bounds[name], rel=1e-3), name
    assert float(metrics["grad_norm"]) > sum(bounds.values())


def test_a_resumed_learner_goes_on_exactly(rng):
    batch, agent = batch_of(rng), agent_of()
    for _ in range(3):
        agent.learn(batch)
    other = agent_of(seed=5)
    other.model.load_state_dict(agent.model.state_dict())
    other.learner.load_state_dict(copy.deepcopy(agent.learner.state_dict()))
    results = []
    for each in (agent, other):
        torch.manual_seed(9)
        for _ in range(2):
            each.learn(batch)
        results.append({n: p.detach().clone() for n, p in each.model.named_parameters()})
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
