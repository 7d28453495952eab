"""What learners may rely on in a batch."""

from __future__ import annotations

import pytest
import torch

from wm_toolkit.batch import Batch
from wm_toolkit.errors import ShapeError


def batch(**fields) -> Batch:
    base = {
        "obs": {"vector": torch.zeros(2, 3, 4)},
        "action": torch.arange(6.0).view(2, 3, 1) + 1,
        "is_first": torch.tensor([[True, False, False], [False, True, False]]),
    }
    return Batch(**(base | fields))


def test_the_previous_action_is_zero_where_an_episode_or_window_begins():
    assert batch().previous_action().squeeze(-1).tolist() == [[0, 1, 2], [0, 0, 5]]


def test_padding_and_importance_weights_multiply():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    valid = batch(mask=mask, weight=torch.tensor([2.0, 0.5])).valid
    assert valid.tolist() == [[2, 2, 0], [0.5, 0.5, 0.5]]


def test_without_a_mask_every_row_counts():
    assert batch().valid.tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("name", ["reward", "terminated", "truncated", "mask"])
def test_a_column_of_the_wrong_shape_is_named(name):
    with pytest.raises(ShapeError, match=name):
        batch(**{name: torch.zeros(2, 4)})


def test_an_observation_of_the_wrong_length_is_named():
    with pytest.raises(ShapeError, match="image"):
        batch(obs={"image": torch.zeros(2, 5, 8, 8, 3)})
