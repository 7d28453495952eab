"""LeWorldModel's decoder draws frames of whatever size the data has."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.batch import Batch
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.render.rollout import dream_strips
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import seeding

TINY = {"width": 24, "layers": 1, "embedding": 8, "projector_hidden": 8, "predictor_layers": 1}


def frames(size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """uint8 [4, 3, h, w, 3]: plain pictures, one colour a window."""
    colour = torch.randint(0, 255, (4, 1, 1, 1, 3), generator=generator)
    return colour.expand(4, 3, *size, 3).to(torch.uint8).contiguous()


@pytest.mark.parametrize(
    ("size", "settings"),
    [((64, 64), {}), ((56, 56), {}), ((56, 56), {"image_size": 56, "patch": 14}), ((24, 40), {})],
)
def test_it_learns_to_draw_frames_of_the_size_they_have(size, settings, rng):
    image = gym.spaces.Box(0, 255, (*size, 3), np.uint8)
    spaces = Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32))
    config = recipe_config("lewm.small", **TINY, **settings, **{"train.updates": 20})
    with seeding.own_stream(0):
        agent = build("lewm.small", spaces, config)
    batch = Batch({"image": frames(size, rng)}, torch.zeros(4, 3, 2), torch.ones(4, 3).bool())
    found = [agent.learn(batch)["probe/decoder"] for _ in range(20)]
    assert found[-1] < 0.5 * found[0]
    drawn = agent.model.predict("decoder", agent.model.observe_sequence(batch))
    assert drawn.mean.shape == batch.obs["image"].shape
    assert dream_strips(agent.model, batch) is not None
