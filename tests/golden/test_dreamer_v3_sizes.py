"""Published parameter counts of Dreamer V3, part by part, through the registered recipe."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces

ACTION = gym.spaces.Box(-1, 1, (6,), np.float32)
VECTOR = Spaces({"vector": gym.spaces.Box(-np.inf, np.inf, (24,), np.float32)}, ACTION)
IMAGE = Spaces({"image": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)}, ACTION)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def model_of(name: str, spaces: Spaces):
    with torch.device("meta"):
        return build(f"dreamer_v3.{name}", spaces).model


def test_size_1m_on_vectors_part_by_part():
    model = model_of("size1m", VECTOR)
    assert parameters(model.encoder) == 10_112
    assert parameters(model.rssm.core) == 273_664
    assert parameters(model.rssm.posterior_net) == 45_312
    assert parameters(model.rssm.prior_net) == 45_440
    assert parameters(model.heads["decoder"]) == 51_096
    assert parameters(model.heads["reward"]) == 57_663
    assert parameters(model.heads["continue"]) == 41_153
    assert parameters(model.heads["policy"]) == 50_316
    assert parameters(model.heads["value"]) == 66_111
    assert parameters(model) - 50_316 - 66_111 == 524_440


def test_size_12m_on_images_part_by_part():
    model = model_of("size12m", IMAGE)
    assert parameters(model.encoder) == 220_416
    assert parameters(model.rssm.posterior_net) == 918_528
    assert parameters(model.rssm.prior_net) == 722_432
    assert parameters(model.heads["decoder"]) == 1_272_003
    assert parameters(model.heads["policy"]) == 791_052
    assert parameters(model.heads["value"]) == 853_503
    assert parameters(model) - 791_052 - 853_503 == 8_849_603


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
    assert parameters(model_of(f"size{name}", VECTOR)) == vector
    assert parameters(model_of(f"size{name}", IMAGE)) == image


def test_the_default_is_the_published_one():
    with torch.device("meta"):
        assert parameters(build("dreamer_v3", IMAGE).model) == 165_948_686


def test_the_preprint_has_the_parameters_of_the_public_port_of_it():
    """Counted in sheeprl's `dreamer_v3` (2023 networks, size XS, 24-d vector, 6-d action)."""
    assert parameters(model_of("arxiv_v1_xs", VECTOR)) == 3_171_363


@pytest.mark.parametrize(
    ("name", "millions"), [("xs", 8), ("s", 18), ("m", 37), ("l", 77), ("xl", 200)]
)
def test_the_preprints_sizes_are_those_in_its_table(name, millions):
    counted = parameters(model_of(f"arxiv_v1_{name}", IMAGE))
    assert counted / 1e6 == pytest.approx(millions, rel=0.04)
