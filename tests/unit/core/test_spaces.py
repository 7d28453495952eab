"""Actions change their form in one place, and back."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces as gs
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_toolkit.errors import SpaceError
from wm_toolkit.spaces import Spaces, flat_obs, flat_space

ACTIONS = st.sampled_from(
    [
        gs.Box(-2, 3, (2,), np.float32),
        gs.Box(np.array([-1.0, 0.0]), np.array([1.0, 5.0]), dtype=np.float64),
        gs.Box(-np.inf, np.inf, (3,), np.float32),
        gs.Box(0, 1, (2, 2), np.float32),
        gs.Discrete(4),
        gs.Discrete(3, start=-1),
        gs.MultiDiscrete([3, 2, 5]),
        gs.MultiBinary(3),
    ]
)


@settings(max_examples=60, deadline=None)
@given(action=ACTIONS, block=st.integers(1, 3), seed=st.integers(0, 1000))
def test_encoding_then_decoding_gives_the_action_back(action, block, seed):
    spaces = Spaces({}, action).blocked(block)
    spaces.action.seed(seed)
    raw = np.stack([spaces.action.sample() for _ in range(6)])
    code = spaces.encode_action(raw)
    assert code.shape == (6, spaces.action_width)
    assert code.dtype == torch.float32
    np.testing.assert_allclose(spaces.decode_action(code), raw, atol=1e-5)
    assert spaces.decode_action(code).dtype == raw.dtype


@settings(max_examples=30, deadline=None)
@given(action=ACTIONS, block=st.integers(1, 3))
def test_spaces_survive_json(action, block):
    image = gs.Box(0, 255, (8, 8, 3), np.uint8)
    spaces = Spaces({"image": image, "id": gs.Discrete(3)}, action).blocked(block)
    assert Spaces.from_dict(json.loads(json.dumps(spaces.to_dict()))) == spaces


def test_a_box_is_scaled_to_plus_minus_one():
    spaces = Spaces({}, gs.Box(np.float32([-2, 0]), np.float32([2, 10])))
    assert spaces.encode_action(np.array([2.0, 0.0])).tolist() == [1.0, -1.0]
    assert spaces.action_low.tolist() == [-1, -1]


def test_standardising_uses_the_statistics_of_one_raw_action_for_the_whole_block():
    spaces = Spaces({}, gs.Box(-1, 1, (2,), np.float32)).blocked(2)
    spaces = spaces.standardised(np.array([0.5, 0.0]), np.array([0.5, 0.25]))
    assert spaces.encode_action(np.array([1.0, 1.0, 0.5, 0.0])).tolist() == [1, 4, 0, 0]
    assert spaces.action_high.tolist() == [1, 4, 1, 4]


def test_decoding_clips_into_the_space():
    spaces = Spaces({}, gs.Box(-1, 1, (1,), np.float32))
    assert spaces.decode_action(torch.tensor([[7.0]])).tolist() == [[1.0]]


def test_a_blocked_choice_is_a_row_of_choices():
    spaces = Spaces({}, gs.Discrete(3)).blocked(2)
    assert spaces.action == gs.MultiDiscrete([3, 3])
    assert spaces.encode_action(np.array([2, 0])).tolist() == [0, 0, 1, 1, 0, 0]


def test_a_choice_outside_the_space_is_refused():
    with pytest.raises(SpaceError, match=r"outside Discrete\(3\)"):
        Spaces({}, gs.Discrete(3)).encode_action(np.array([3]))


def test_nested_observations_are_joined_by_slashes():
    space = gs.Dict({"arm": gs.Dict({"angle": gs.Box(-1, 1, (2,))}), "image": gs.Discrete(2)})
    assert list(flat_space(space)) == ["arm/angle", "image"]
    assert list(flat_obs({"arm": {"angle": [0]}, "image": 1})) == ["arm/angle", "image"]


def test_a_bare_observation_gets_a_name():
    env = gym.make("CartPole-v1")
    assert list(Spaces.of(env).observation) == ["vector"]
    image = gs.Box(0, 255, (4, 4, 3), np.uint8)
    assert list(flat_space(image)) == ["image"]


def test_a_missing_observation_is_named():
    spaces = Spaces({"image": gs.Box(0, 255, (4, 4, 3), np.uint8)}, gs.Discrete(2))
    with pytest.raises(SpaceError, match="lacks the key 'image'"):
        spaces.encode_obs({"vector": np.zeros((1, 3))})
    with pytest.raises(SpaceError, match="has shape"):
        spaces.encode_obs({"image": np.zeros((1, 5, 4, 3), np.uint8)})


def test_a_difference_between_spaces_is_put_into_words():
    image = gs.Box(0, 255, (4, 4, 3), np.uint8)
    ours = Spaces({"image": image}, gs.Discrete(2))
    assert ours.mismatch(ours) is None
    assert "image" in ours.mismatch(Spaces({"vector": image}, gs.Discrete(2)))
    assert "Discrete(3)" in ours.mismatch(Spaces({"image": image}, gs.Discrete(3)))


def test_a_tuple_of_actions_is_refused_with_advice():
    with pytest.raises(SpaceError, match="wrapper"):
        Spaces({}, gs.Tuple([gs.Discrete(2)]))


def test_an_unknown_observation_key_offers_close_ones():
    spaces = Spaces({"image": gs.Box(0, 255, (4, 4, 3), np.uint8)}, gs.Discrete(2))
    assert list(spaces.only(["image"]).observation) == ["image"]
    with pytest.raises(SpaceError, match="Did you mean 'image'"):
        spaces.only(["imag"])


@pytest.mark.filterwarnings("error")
def test_bounds_in_memory_that_cannot_be_written_to_are_read_without_a_warning():
    """As in a worker that shares its memory with others."""
    box = gs.Box(np.float32([-2, 0]), np.float32([2, 10]))
    for bound in (box.low, box.high):
        bound.flags.writeable = False
    spaces = Spaces({}, box)
    assert spaces.encode_action(np.float32([[0, 7.5]])).tolist() == [[0.0, 0.5]]
    assert spaces.decode_action(torch.tensor([[0.0, 0.5]])).tolist() == [[0.0, 7.5]]
