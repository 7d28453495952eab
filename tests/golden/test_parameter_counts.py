"""Published sizes build, and have the published number of parameters."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import nn

import wm_toolkit
from wm_toolkit.encoders.vit import ViT
from wm_toolkit.spaces import Spaces


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def spaces(size: int) -> Spaces:
    image = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
    return Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32)).blocked(5)


def test_the_published_leworldmodel_has_18_034_478_parameters():
    with torch.device("meta"):
        model = wm_toolkit.build("lewm", spaces(224)).model
    assert count(model) == 18_034_478
    assert {name: count(part) for name, part in model.named_children() if count(part)} == {
        "encoder": 5_501_376,
        "projector": 792_768,
        "action_encoder": 156_206,
        "predictor": 10_791_360,
        "predicted": 792_768,
    }
    running = sum(b.numel() for b in model.buffers())
    assert running == 8_194


def test_the_published_leworldmodel_trains_and_plans_one_step():
    agent = wm_toolkit.build(
        "lewm",
        spaces(224),
        train__precision="no",
        train__updates=2,
        planner__samples=2,
        planner__elites=2,
        planner__iterations=1,
    )
    rng = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 4, 224, 224, 3), generator=rng, dtype=torch.uint8)
    first = torch.tensor([[True, False, False, False]] * 2)
    batch = wm_toolkit.Batch({"image": frames}, torch.randn(2, 4, 10, generator=rng), first)
    metrics = agent.learn(batch)
    assert float(metrics["loss/sigreg"]) > 0
    obs = {"image": frames[:, 0].numpy(), "goal/image": frames[:, 1].numpy()}
    decision, _ = agent.act(obs, agent.initial(2), is_first=[True, True], generator=rng)
    assert decision.action.shape == (2, 10)


def test_vit_tiny_has_the_published_size():
    with torch.device("meta"):
        assert count(ViT()) == 5_501_376
