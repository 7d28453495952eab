"""Parameters of PlaNet, Dreamer V1 and V2, counted by hand from the published layers."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces

PIXELS = {"image": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)}
SPACES = Spaces(PIXELS, gym.spaces.Box(-1, 1, (6,), np.float32))
GREY = Spaces({"image": gym.spaces.Box(0, 255, (64, 64, 1), np.uint8)}, gym.spaces.Discrete(18))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def model_of(name: str, spaces: Spaces):
    with torch.device("meta"):
        return build(name, spaces).model


def line(width_in: int, width_out: int) -> int:
    return width_in * width_out + width_out


def mlp(width_in: int, units: int, layers: int, width_out: int) -> int:
    return line(width_in, units) + (layers - 1) * line(units, units) + line(units, width_out)


def convolutions(channels: int, depth: int) -> int:
    """Kernels 4 x 4, each layer twice as wide."""
    widths = [channels, depth, 2 * depth, 4 * depth, 8 * depth]
    return sum(16 * a * b + b for a, b in zip(widths, widths[1:], strict=False))


def transposed(features: int, channels: int, depth: int) -> int:
    """Linear to 32 depth, then kernels 5, 5, 6, 6."""
    widths = [32 * depth, 4 * depth, 2 * depth, depth, channels]
    kernels = (5, 5, 6, 6)
    layers = zip(kernels, widths, widths[1:], strict=False)
    return line(features, widths[0]) + sum(k * k * a * b + b for k, a, b in layers)


@pytest.mark.parametrize("name", ["dreamer_v1", "planet"])
def test_the_gaussian_rssm_has_a_gru_of_200_and_layers_of_200(name):
    model = model_of(name, SPACES)
    gru = 3 * 200 * (200 + 200) + 2 * 3 * 200
    assert parameters(model.rssm.core) == line(30 + 6, 200) + gru == 248_600
    assert parameters(model.rssm.prior_net) == line(200, 200) + line(200, 60) == 52_260
    assert parameters(model.rssm.posterior_net) == line(200 + 1024, 200) + line(200, 60)


@pytest.mark.parametrize("name", ["dreamer_v1", "planet"])
def test_encoder_and_decoder_are_those_of_world_models(name):
    model = model_of(name, SPACES)
    assert parameters(model.encoder) == convolutions(3, 32) == 690_144
    assert parameters(model.heads["decoder"]) == transposed(230, 3, 32)


def test_the_heads_of_v1_are_those_of_its_code():
    heads = model_of("dreamer_v1", SPACES).heads
    assert parameters(heads["reward"]) == mlp(230, 400, 2, 1) == 253_201
    assert parameters(heads["value"]) == mlp(230, 400, 3, 1) == 413_601
    assert parameters(heads["policy"]) == mlp(230, 400, 4, 12) == 578_412
    assert "continue" not in heads
    paper = model_of("dreamer_v1.paper", SPACES).heads
    assert parameters(paper["policy"]) == mlp(230, 300, 3, 12)


def test_planet_reads_rewards_off_three_layers_of_300():
    heads = model_of("planet", SPACES).heads
    assert parameters(heads["reward"]) == mlp(230, 300, 3, 1) == 250_201
    assert set(heads) == {"reward", "decoder"}


def test_v2_on_atari_counted_by_hand():
    model = model_of("dreamer_v2.atari", GREY)
    features = 600 + 32 * 32
    gru = line(600 + 600, 1800) + 2 * 1800  # one projection with bias, and its LayerNorm
    assert parameters(model.rssm.core) == line(1024 + 18, 600) + gru
    assert parameters(model.rssm.prior_net) == line(600, 600) + line(600, 1024)
    assert parameters(model.rssm.posterior_net) == line(600 + 1536, 600) + line(600, 1024)
    assert parameters(model.encoder) == convolutions(1, 48)
    assert parameters(model.heads["decoder"]) == transposed(features, 1, 48)
    for head, out in (("reward", 1), ("continue", 1), ("value", 1), ("policy", 18)):
        assert parameters(model.heads[head]) == mlp(features, 400, 4, out)


def test_v2_on_control_has_smaller_memories_and_no_ending():
    model = model_of("dreamer_v2.dmc", SPACES)
    assert model.rssm.core.width == 200
    assert "continue" not in model.heads
    assert parameters(model.heads["policy"]) == mlp(200 + 1024, 400, 4, 12)
