"""Open-loop errors of observations of every shape: dials and lamps by share, numbers by variance."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from dreamer_toys import SMALL
from torch import nn

from wm_toolkit.batch import Batch
from wm_toolkit.recipes.dreamer_v3 import world_model
from wm_toolkit.render.open_loop import observation_errors, open_loop
from wm_toolkit.spaces import Spaces

SEEN = {
    "dials": gym.spaces.MultiDiscrete([2, 3]),
    "grid": gym.spaces.Box(-9, 9, (2, 2), np.float32),
    "lamps": gym.spaces.MultiBinary(4),
    "level": gym.spaces.Box(-9, 9, (), np.float32),
}


def test_a_constant_guess_is_as_wrong_as_what_was_seen_says(rng):
    model = world_model(Spaces(SEEN, gym.spaces.Discrete(2)), SMALL).eval()
    said = {
        "dials": [1.0, 0, 0, 0, 1],
        "grid": [0.0] * 4,
        "lamps": [1.0, 1, -1, -1],
        "level": [0.0],
    }
    for key, bias in said.items():
        read = model.heads["decoder"].reads[key]
        nn.init.zeros_(read.weight)
        read.bias.data = torch.tensor(bias)
    first = torch.zeros(2, 4, dtype=torch.bool)
    first[:, 0] = True
    number = torch.tensor([[0.0, 0, 1, 3], [0.0, 0, -1, -3]])
    dials, lamps = torch.zeros(2, 4, 2, dtype=torch.int64), torch.zeros(2, 4, 4, dtype=torch.int8)
    dials[..., 1] = 2
    dials[0, 2, 0] = dials[:, 3, 0] = 1
    lamps[..., :2] = 1
    lamps[0, 3] = 1 - lamps[0, 3]
    obs = {"dials": dials, "grid": number[..., None, None].expand(2, 4, 2, 2), "lamps": lamps}
    batch = Batch({**obs, "level": number}, torch.zeros(2, 4, 2), first)
    found = observation_errors(model, open_loop(model, batch, context=2, generator=rng))
    assert found["dials"].model == (0.25, 0.5)
    assert found["lamps"].model == (0.0, 0.5)
    variance = (2 * 1 + 2 * 9) / 8
    for key in ("level", "grid"):
        assert found[key].model == pytest.approx((1 / variance, 9 / variance)), key
