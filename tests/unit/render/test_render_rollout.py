"""Errors by horizon have known values for a model whose dreams are known."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch
from wm_toolkit.errors import ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.render.rollout import dream_strips, horizon_chart, horizon_error
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Place(Struct):
    x: Tensor  # [..., 1]


class Walker(WorldModel[Place]):
    """Sees its place and believes that an action moves it by `gain` times the action."""

    def __init__(self, gain):
        box = gym.spaces.Box(-1, 1, (1,), np.float32)
        super().__init__(Spaces({"x": box}, box))
        self.gain = gain

    def initial(self, batch_size):
        return Place(torch.zeros(batch_size, 1))

    def observe(self, state, action, obs, *, generator=None):
        return Place(obs["x"])

    def imagine(self, state, action, *, generator=None):
        return Place(state.x + self.gain * action)

    def features(self, state):
        return state.x

    def loss(self, batch):
        return {}


class Grey(nn.Module):
    """Draws a 2x2 picture as bright as the feature."""

    def forward(self, features):
        @dataclasses.dataclass
        class Picture:
            mean: Tensor

        return Picture(features[..., None, None].expand(*features.shape[:-1], 2, 2, 3))


def walk(rows=6, steps=5, seed=0):
    action = torch.rand(rows, steps, 1, generator=torch.Generator().manual_seed(seed)) * 0.1
    x = torch.cat([torch.zeros(rows, 1, 1), action[:, :-1].cumsum(1)], 1)
    first = torch.zeros(rows, steps, dtype=torch.bool)
    image = (x * 255).round().byte()[..., None, None].expand(rows, steps, 2, 2, 3)
    return Batch({"x": x, "image": image}, action, first)


def test_a_perfect_dream_has_no_error_and_a_frozen_one_that_of_copy_last():
    assert horizon_error(Walker(1.0), walk(), context=2).model == pytest.approx(
        [0, 0, 0], abs=1e-10
    )
    frozen = horizon_error(Walker(0.0), walk(), context=2)
    assert frozen.model == pytest.approx(frozen.copy)
    assert frozen.copy[0] < frozen.copy[1] < frozen.copy[2]


def test_the_error_is_in_units_of_the_variance():
    batch = walk()
    x = batch.obs["x"][..., 0]
    expected = ((x[:, 1:] - x[:, :1]) ** 2).mean(0) / x.var(unbiased=False)
    assert horizon_error(Walker(0.5), batch).copy == pytest.approx(expected.tolist(), rel=1e-4)
    moved = Batch({"x": 10 * batch.obs["x"]}, 10 * batch.action, batch.is_first)
    assert horizon_error(Walker(0.5), moved).model == pytest.approx(
        horizon_error(Walker(0.5), batch).model, rel=1e-4
    )


def test_windows_without_room_to_dream_are_refused():
    with pytest.raises(ShapeError, match="context is 5, expected 1 to 4"):
        horizon_error(Walker(1.0), walk(steps=5), context=5)


def test_the_chart_shows_model_and_baseline():
    chart = horizon_chart(horizon_error(Walker(0.5), walk()))
    assert "model from" in chart
    assert "copy last from" in chart


def test_strips_show_truth_dream_and_white_where_they_agree():
    model = Walker(1.0)
    model.heads["decoder"] = Grey()
    batch = walk(rows=2, steps=3)
    strips = dream_strips(model, batch, windows=1)
    truth, dream, error = strips[0:2], strips[5:7], strips[10:12]
    np.testing.assert_allclose(truth.astype(int), dream, atol=1)
    assert error.min() >= 254
    shown = batch.obs["image"][0, :, 0, 0, 0].tolist()
    assert truth[0, ::4, 0].tolist() == shown


def test_a_model_without_a_decoder_has_no_strips():
    assert dream_strips(Walker(1.0), walk()) is None
