"""The linear controller: how its outputs become actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.controller import Controller
from wm_toolkit.spaces import Spaces


def spaces(action: gym.Space) -> Spaces:
    return Spaces({"vector": gym.spaces.Box(-1, 1, (2,), np.float32)}, action)


def with_outputs(controller: Controller, rows: list[list[float]]) -> torch.Tensor:
    """What it decides where its linear layer gives these rows."""
    controller.linear = torch.nn.Identity()  # type: ignore[assignment]
    return controller(torch.tensor(rows)).mode


CAR = gym.spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))


def test_a_new_controller_outputs_zero_everywhere(rng):
    controller = Controller(spaces(gym.spaces.Box(-1, 1, (2,))), 4)
    assert not controller(torch.randn(3, 4, generator=rng)).value.any()


def test_a_cars_gas_is_half_a_tanh_and_its_brake_is_clipped():
    made = spaces(CAR)
    encoded = with_outputs(Controller(made, 3, squash="car"), [[0.3, -0.4, 0.25], [9.0, 9.0, -2.0]])
    raw = made.decode_action(encoded)
    expected = [np.tanh(0.3), (np.tanh(-0.4) + 1) / 2, 0.25]
    np.testing.assert_allclose(raw[0], expected, rtol=1e-5)
    np.testing.assert_allclose(raw[1], [1, 1, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("output", "choice"),
    [(-5.0, 0), (-0.36, 0), (-0.3, 1), (0.0, 1), (0.3, 1), (0.36, 2), (50.0, 2)],
)
def test_one_output_is_cut_into_left_stay_and_right_at_a_third(output, choice):
    # tanh(0.3466) = 1/3
    made = spaces(gym.spaces.Discrete(3))
    decided = with_outputs(Controller(made, 1, squash="level"), [[output]])
    assert made.decode_action(decided).tolist() == [choice]
    assert decided.sum() == 1


def test_the_largest_of_n_outputs_is_the_choice():
    made = spaces(gym.spaces.Discrete(4))
    decided = with_outputs(Controller(made, 4, squash="one_hot"), [[0.1, 0.3, 0.2, -1.0]])
    assert decided.tolist() == [[0, 1, 0, 0]]


def test_a_decision_leaves_nothing_to_chance():
    decided = Controller(spaces(gym.spaces.Box(-1, 1, (2,))), 4)(torch.ones(3, 4))
    assert torch.equal(decided.sample(), decided.mode)
    assert decided.log_prob(decided.value).tolist() == [0, 0, 0]
    assert decided.log_prob(decided.value + 1).tolist() == [-np.inf] * 3
    assert decided.loss(decided.value + 2).tolist() == [4, 4, 4]
    assert decided.entropy().tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("action", "squash"),
    [
        (gym.spaces.Discrete(3), "tanh"),
        (gym.spaces.Discrete(3), "car"),
        (gym.spaces.Box(-1, 1, (2,)), "car"),
        (gym.spaces.Box(-1, 1, (2,)), "level"),
        (gym.spaces.MultiDiscrete([2, 2]), "one_hot"),
    ],
)
def test_actions_of_another_kind_are_refused_by_name(action, squash):
    with pytest.raises(SpaceError, match=f"squash is '{squash}'"):
        Controller(spaces(action), 4, squash=squash)
