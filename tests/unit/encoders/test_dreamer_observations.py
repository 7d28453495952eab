"""What the Dreamer family sees: every kind of number and choice, and the spaces it refuses by name."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from wm_toolkit.encoders.observations import ObservationEncoder, choice_keys, vector_widths, vectors
from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.squared import squared
from wm_toolkit.recipes.dreamer_v3 import Size, world_model
from wm_toolkit.spaces import Spaces

ACTION = gym.spaces.Discrete(2)
WHOLE = {
    "counts": gym.spaces.Box(0, 99, (3,), np.int64),
    "memory": gym.spaces.Box(0, 255, (4,), np.uint8),
    "flags": gym.spaces.Box(0, 1, (2,), np.bool_),
}


def spaces_of(**observed: gym.Space) -> Spaces:
    return Spaces(observed, ACTION)


def test_whole_numbers_and_flags_are_numbers_and_only_a_discrete_is_a_choice():
    spaces = spaces_of(**WHOLE, mode=gym.spaces.Discrete(3))
    obs = {
        "counts": torch.tensor([[0, 7, 99]]),
        "memory": torch.tensor([[0, 1, 128, 255]], dtype=torch.uint8),
        "flags": torch.tensor([[True, False]]),
        "mode": torch.tensor([2]),
    }
    found = vectors(obs, vector_widths(spaces), choice_keys(spaces), squash=False)
    expected = [0, 7, 99, 1, 0, 0, 1, 128, 255, 0, 0, 1]  # sorted by name
    assert found.tolist() == [[float(x) for x in expected]]


@pytest.mark.parametrize("key", list(WHOLE))
def test_a_model_learns_from_whole_numbers(key, rng):
    spaces = spaces_of(**{key: WHOLE[key]})
    model = world_model(spaces, Size(16, 8, 3, 1))
    value = torch.randint(0, 2, (2, *WHOLE[key].shape), generator=rng).to(
        torch.from_numpy(WHOLE[key].sample()).dtype
    )
    state = model.observe(model.initial(2), torch.zeros(2, 2), {key: value})
    loss = model.predict("decoder", state).losses({key: value})[key]  # type: ignore[attr-defined]
    raw = model.predict("decoder", state).parts[key].raw  # type: ignore[attr-defined]
    torch.testing.assert_close(loss, (raw - value.float().log1p()).square().sum(-1))


def test_the_squared_error_to_bytes_does_not_wrap_around():
    error = squared(torch.zeros(1, 1)).loss(torch.tensor([[200]], dtype=torch.uint8))
    assert error.item() == 40_000.0


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (gym.spaces.Discrete(4, start=2), "counts from 2"),
        (gym.spaces.Box(0, 255, (3, 64, 64), np.uint8), "channels in front"),
        (gym.spaces.MultiBinary(4), "expected an image, a vector"),
        (gym.spaces.Box(-1, 1, (3, 2), np.float32), "expected an image, a vector"),
    ],
)
def test_other_observations_are_refused_by_name(space, said):
    with pytest.raises(SpaceError, match=f"'thing'.*{said}"):
        world_model(spaces_of(thing=space), Size(16, 8, 3, 1))


def test_an_encoder_reads_whole_numbers_as_they_are():
    spaces = spaces_of(counts=WHOLE["counts"])
    encoder = ObservationEncoder(spaces, vector=nn.Identity(), vector_width=3, squash=False)
    assert encoder({"counts": torch.tensor([[[1, 2, 3]]])}).tolist() == [[[1.0, 2.0, 3.0]]]


def test_whole_numbers_and_flags_are_drawn_as_such_within_their_bounds():
    spaces = spaces_of(**WHOLE)
    model = world_model(spaces, Size(16, 8, 3, 1))
    with torch.no_grad():
        for key, log_value in (("counts", 3.0), ("memory", 9.0), ("flags", 0.55)):
            nn.init.zeros_(model.heads["decoder"].reads[key].weight)
            nn.init.constant_(model.heads["decoder"].reads[key].bias, log_value)
        drawn = model.decode(model.initial(1))
    assert drawn["counts"].tolist() == [[19, 19, 19]]  # e^3 - 1 = 19.1
    assert drawn["memory"].tolist() == [[255] * 4]
    assert drawn["flags"].tolist() == [[True, True]]  # e^0.55 - 1 = 0.73
    assert [drawn[k].dtype for k in WHOLE] == [torch.int64, torch.uint8, torch.bool]
