"""Behaviour in dreams: who receives which gradient, and the numbers against their definitions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_toolkit.agents.actor_critic import ActorCritic, BehaviourConfig
from wm_toolkit.batch import Batch
from wm_toolkit.errors import ConfigError
from wm_toolkit.losses.returns import lambda_return
from wm_toolkit.recipes.dreamer_v3 import Size, actor, critic, world_model
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import flatten

SMALL = Size(deter=16, units=8, classes=3, depth=1)
OBSERVED = {"vector": gym.spaces.Box(-9, 9, (3,), np.float32)}
BOX = Spaces(OBSERVED, gym.spaces.Box(-1, 1, (2,), np.float32))
CHOICE = Spaces(OBSERVED, gym.spaces.Discrete(3))


def behaviour(spaces: Spaces = BOX, **options) -> ActorCritic:
    torch.manual_seed(0)
    model = world_model(spaces, SMALL)
    model.heads["policy"] = actor(spaces, model.rssm.width, SMALL.units)
    model.heads["value"] = critic(model.rssm.width, SMALL.units)
    for part in model.heads.modules():  # what starts at zero hides what flows through it
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.3)
    return ActorCritic(model, BehaviourConfig(horizon=4, **options))


def batch_of(spaces: Spaces = BOX, *, last: bool = False) -> Batch:
    rng = torch.Generator().manual_seed(0)
    first = torch.zeros(3, 5, dtype=torch.bool)
    first[:, 0] = True
    cut = torch.zeros(3, 5, dtype=torch.bool)
    if last:
        cut[:, 2], first[:, 3] = True, True
    obs = {"vector": torch.randn(3, 5, 3, generator=rng)}
    action = spaces.encode_action(np.stack([[spaces.action.sample()] * 5] * 3))
    return Batch(obs, action.float(), first, torch.randn(3, 5, generator=rng), cut, cut)


def parts_with_gradient(ac: ActorCritic, term: torch.Tensor) -> set[str]:
    """Which of model, policy and value receive a gradient of a term."""
    ac.zero_grad()
    term.sum().backward(retain_graph=True)
    found = set()
    for name, p in ac.model.named_parameters():
        if p.grad is not None and p.grad.abs().max() > 0:
            head = name.split(".")[1] if name.startswith("heads.") else ""
            found.add(head if head in ("policy", "value") else "model")
    return found


def start_of(ac: ActorCritic, batch: Batch):
    return flatten(ac.model.observe_sequence(batch).detach(), 0, 1)


@pytest.mark.parametrize("estimator", ["reinforce", "dynamics", "both"])
def test_the_policy_term_teaches_the_policy_alone(estimator):
    ac = behaviour(estimator=estimator, entropy=0.0)
    losses, _ = ac.behaviour(start_of(ac, batch_of()))
    assert parts_with_gradient(ac, losses["policy"]) == {"policy"}


def test_the_value_term_teaches_the_critic_alone():
    ac = behaviour()
    losses, _ = ac.behaviour(start_of(ac, batch_of()))
    assert parts_with_gradient(ac, losses["value"]) == {"value"}


def test_the_replayed_value_term_shapes_the_model_too():
    ac = behaviour()
    assert parts_with_gradient(ac, ac(batch_of())["replay_value"]) == {"value", "model"}


def test_the_models_terms_teach_neither_actor_nor_critic():
    ac, terms = behaviour(), ("vector", "reward", "continue", "dynamics", "representation")
    losses = ac(batch_of())
    total = torch.stack([losses[name].sum() for name in terms]).sum()
    assert parts_with_gradient(ac, total) == {"model"}


def test_after_a_dream_every_parameter_may_learn_again():
    ac = behaviour()
    ac(batch_of())
    assert all(p.requires_grad for p in ac.model.parameters())


def test_reinforce_is_the_weighted_score_times_the_scaled_advantage():
    ac = behaviour(CHOICE, entropy=0.0)
    start = start_of(ac, batch_of(CHOICE))
    torch.manual_seed(1)
    losses, returns = ac.behaviour(start)
    torch.manual_seed(1)
    dream = ac.dream(start)
    values = ac.model.heads["value"](dream.features).mean
    assert_close(returns, lambda_return(dream.reward, dream.go_on[:, 1:], values[:, 1:], 0.95))
    weight = torch.stack([dream.go_on[:, : t + 1].prod(1) for t in range(4)], 1)
    score = ac.model.heads["policy"](dream.features[:, :-1]).log_prob(dream.actions)
    advantage = (returns - values[:, :-1]) / ac.scale.scale
    assert_close(losses["policy"], -weight * score * advantage)


def test_the_gradient_through_the_dynamics_raises_the_dreamt_return():
    ac = behaviour(estimator="dynamics", entropy=0.0, normalise=False)
    start = start_of(ac, batch_of()).repeat(50)

    def mean_return() -> torch.Tensor:
        torch.manual_seed(3)
        dream = ac.dream(start)
        values = ac.model.heads["value"](dream.features).mean
        return lambda_return(dream.reward, dream.go_on[:, 1:], values[:, 1:]).mean().detach()

    before, policy = mean_return(), ac.model.heads["policy"]
    optimizer = torch.optim.SGD(policy.parameters(), 0.02)
    for _ in range(20):
        torch.manual_seed(3)
        optimizer.zero_grad()
        ac.behaviour(start)[0]["policy"].mean().backward()
        optimizer.step()
    assert mean_return() > before


def test_a_replayed_return_bootstraps_where_an_episode_was_cut_and_skips_the_cut_row():
    ac = behaviour(slow_pull=0.0)
    batch = batch_of(last=True)
    batch = batch.replace(terminated=torch.zeros_like(batch.is_first))
    posterior = ac.model.observe_sequence(batch)
    bootstrap = torch.arange(15.0).view(3, 5)
    loss = ac._replayed(batch, posterior, bootstrap)
    g, lam, r = 1 - 1 / 333, 0.95, batch.reward
    last = r[:, 4] + g * bootstrap[:, 4]
    cut = r[:, 2] + g * bootstrap[:, 2]  # row 2 is an episode's last: nothing behind it counts
    first = r[:, 1] + g * ((1 - lam) * bootstrap[:, 1] + lam * cut)
    value = ac.model.heads["value"](ac.model.features(posterior))
    assert loss.shape == (3, 4)
    assert not loss[:, 2].any()
    for row, target in ((0, first), (1, cut), (3, last)):
        each = type(value)(value.logits[:, row], value.bins, value.squash)
        assert_close(loss[:, row], each.loss(target))


def test_the_slow_critic_follows_by_its_rate():
    ac = behaviour(slow_rate=0.25, slow_every=2)
    before = [p.clone() for p in ac.slow.parameters()]
    with torch.no_grad():
        for p in ac.model.heads["value"].parameters():
            p.add_(1.0)
    ac.after_update(1)
    assert all(torch.equal(a, b) for a, b in zip(before, ac.slow.parameters(), strict=True))
    ac.after_update(2)
    for was, now in zip(before, ac.slow.parameters(), strict=True):
        assert_close(now, was + 0.25)


def test_a_model_without_a_policy_is_refused():
    with pytest.raises(ConfigError, match=r"'policy', 'value'"):
        ActorCritic(world_model(BOX, SMALL))
