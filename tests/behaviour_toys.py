"""Behaviours in small: programs of the Dreamer recipes, sequences for them, and who receives gradients."""

from __future__ import annotations

import numpy as np
import torch
from dreamer_toys import NUMBERS, SMALL, small_agent
from torch import nn

from wm_toolkit.agents.actor_critic import ActorCritic, BehaviourConfig
from wm_toolkit.batch import Batch
from wm_toolkit.recipes.dreamer_v3 import actor, two_hot, world_model
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import flatten


def behaviour(spaces: Spaces = NUMBERS, **options) -> ActorCritic:
    torch.manual_seed(0)
    model = world_model(spaces, SMALL)
    model.heads["policy"] = actor(spaces, model.rssm.width, SMALL.units)
    model.heads["value"] = two_hot(model.rssm.width, SMALL.units)
    woken(model)
    return ActorCritic(model, BehaviourConfig(horizon=4, **options))


def woken(model: nn.Module) -> None:
    """No layer is zero any more: what starts at zero hides what flows through it."""
    for part in model.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.3)


def program(name: str, spaces: Spaces = NUMBERS, **overrides) -> ActorCritic:
    """The losses of a small recipe in dreams of four steps."""
    learner = small_agent(name, spaces, behaviour__horizon=4, **overrides).learner
    assert isinstance(learner.program, ActorCritic)
    woken(learner.program.model)
    learner.program.restart()
    return learner.program


def batch_of(spaces: Spaces = NUMBERS, *, last: bool = False) -> Batch:
    rng = torch.Generator().manual_seed(0)
    first = torch.zeros(3, 5, dtype=torch.bool)
    first[:, 0] = True
    cut = torch.zeros(3, 5, dtype=torch.bool)
    if last:
        cut[:, 2], first[:, 3] = True, True
    obs = {"vector": torch.randn(3, 5, 3, generator=rng)}
    spaces.action.seed(0)
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
