"""Published parameter counts of Dreamer V3, part by part."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from wm_toolkit.recipes.dreamer_v3 import actor, critic, size, world_model
from wm_toolkit.spaces import Spaces

ACTION = gym.spaces.Box(-1, 1, (6,), np.float32)
VECTOR = Spaces({"vector": gym.spaces.Box(-np.inf, np.inf, (24,), np.float32)}, ACTION)
IMAGE = Spaces({"image": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)}, ACTION)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def parts(spaces: Spaces, name: str) -> tuple[nn.Module, nn.Module, nn.Module]:
    with torch.device("meta"):
        model = world_model(spaces, size(name))
        width, units = model.rssm.width, size(name).units
        return model, actor(spaces, width, units), critic(width, units)


def test_size_1m_on_vectors_part_by_part():
    model, policy, value = parts(VECTOR, "1m")
    assert parameters(model.encoder) == 10_112
    assert parameters(model.rssm.core) == 273_664
    assert parameters(model.rssm.posterior_net) == 45_312
    assert parameters(model.rssm.prior_net) == 45_440
    assert parameters(model.heads["decoder"]) == 51_096
    assert parameters(model.heads["reward"]) == 57_663
    assert parameters(model.heads["continue"]) == 41_153
    assert parameters(policy) == 50_316
    assert parameters(value) == 66_111
    assert parameters(model) == 524_440


def test_size_12m_on_images_part_by_part():
    model, policy, value = parts(IMAGE, "12m")
    assert parameters(model.encoder) == 220_416
    assert parameters(model.rssm.posterior_net) == 918_528
    assert parameters(model.rssm.prior_net) == 722_432
    assert parameters(model.heads["decoder"]) == 1_272_003
    assert parameters(model) == 8_849_603
    assert parameters(policy) == 791_052
    assert parameters(value) == 853_503


@pytest.mark.parametrize(
    ("name", "vector", "image"),
    [
        ("1m", 640_867, 686_846),
        ("12m", 9_738_019, 10_494_158),
        ("25m", 21_782_947, 23_489_326),
        ("50m", 38_612_003, 41_650_062),
        ("100m", 86_622_499, 93_468_238),
        ("200m", 153_769_507, 165_948_686),
        ("400m", 345_473_059, 372_896_398),
    ],
)
def test_every_published_size_has_its_published_parameters(name, vector, image):
    assert parameters(*parts(VECTOR, name)) == vector
    assert parameters(*parts(IMAGE, name)) == image
