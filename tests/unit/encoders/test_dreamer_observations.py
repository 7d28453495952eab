"""What the Dreamer family sees: every kind of number and choice, and the spaces it refuses by name."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from wm_toolkit.batch import Batch
from wm_toolkit.encoders.observations import ObservationEncoder, side_by_side, vectors_of
from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.observations import ObservationHead
from wm_toolkit.heads.squared import squared
from wm_toolkit.recipes.dreamer_v3 import Size, world_model
from wm_toolkit.registry import build
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
    found = side_by_side(obs, vectors_of(spaces), squash=False)
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
        (gym.spaces.MultiDiscrete([3, 2], start=[0, 1]), r"counts from \[0 1\]"),
        (gym.spaces.Text(4), "expected an image, a Box of numbers"),
    ],
)
def test_other_observations_are_refused_by_name(space, said):
    with pytest.raises(SpaceError, match=f"'thing'.*{said}"):
        world_model(spaces_of(thing=space), Size(16, 8, 3, 1))


SHAPED = {
    "grid": gym.spaces.Box(-9, 9, (3, 2), np.float32),
    "level": gym.spaces.Box(-9, 9, (), np.float32),
    "cells": gym.spaces.Box(0, 9, (2, 2), np.int64),
    "dials": gym.spaces.MultiDiscrete([2, 3]),
    "board": gym.spaces.MultiDiscrete([[2, 3], [3, 2]]),
    "lamps": gym.spaces.MultiBinary(3),
    "panel": gym.spaces.MultiBinary([2, 2]),
}


def test_numbers_of_any_shape_lie_side_by_side_and_every_dial_is_one_hot():
    obs = {
        "grid": torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]),
        "level": torch.tensor([7.0]),
        "dials": torch.tensor([[1, 0]]),
        "lamps": torch.tensor([[1, 0, 1]], dtype=torch.int8),
    }
    spaces = spaces_of(**{key: SHAPED[key] for key in obs})
    found = side_by_side(obs, vectors_of(spaces), squash=False)
    dials, grid, lamps = [0, 1, 1, 0, 0], [1, 2, 3, 4, 5, 6], [1, 0, 1]
    assert found.tolist() == [[float(x) for x in (*dials, *grid, *lamps, 7)]]  # sorted by name
    squashed = side_by_side(obs, vectors_of(spaces), squash=True)
    assert squashed[0, [1, 11, 13]].tolist() == [1.0, 1.0, 1.0]  # neither choices nor bits
    assert squashed[0, -1].item() == pytest.approx(np.log1p(7.0))


@pytest.mark.parametrize("key", list(SHAPED))
def test_every_leading_axis_is_kept(key):
    vector = vectors_of(spaces_of(**{key: SHAPED[key]}))[key]
    drawn = np.stack([SHAPED[key].sample() for _ in range(6)])
    flat = vector.flat(torch.as_tensor(drawn))
    assert flat.shape == (6, vector.width)
    again = vector.flat(torch.as_tensor(drawn.reshape(2, 3, *drawn.shape[1:])))
    assert torch.equal(again.flatten(0, 1), flat)


def test_choices_are_scored_by_cross_entropy_and_bits_by_theirs():
    head = ObservationHead(
        vectors=vectors_of(spaces_of(dials=SHAPED["dials"], panel=SHAPED["panel"])),
        trunk=nn.Identity(),
        reads={"dials": nn.Identity(), "panel": nn.Linear(5, 4)},
    )
    nn.init.zeros_(head.reads["panel"].weight)
    head.reads["panel"].bias.data = torch.tensor([0.0, 1.0, -1.0, 2.0])
    logits = torch.tensor([[0.0, 1.0, 0.5, 0.0, -0.5]])
    seen = {"dials": torch.tensor([[1, 2]]), "panel": torch.tensor([[[1, 0], [1, 1]]])}
    losses = head(logits).losses(seen)
    dials = -torch.tensor([0.0, 1.0]).log_softmax(0)[1] - logits[0, 2:].log_softmax(0)[2]
    chance = torch.tensor([0.0, 1.0, -1.0, 2.0]).sigmoid()
    panel = -(chance[0] * (1 - chance[1]) * chance[2] * chance[3]).log()
    torch.testing.assert_close(losses["dials"], dials[None])
    torch.testing.assert_close(losses["panel"], panel[None])
    every = head(logits)
    torch.testing.assert_close(every.log_prob(seen), -dials[None] - panel[None])
    dial = torch.distributions.Categorical
    entropy = dial(logits=logits[0, :2]).entropy() + dial(logits=logits[0, 2:]).entropy()
    entropy = entropy + torch.distributions.Bernoulli(chance).entropy().sum()
    torch.testing.assert_close(every.entropy(), entropy[None])


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_drawn_lies_in_the_space_it_was_seen_in(batch):
    spaces = spaces_of(**SHAPED)
    model = world_model(spaces, Size(16, 8, 3, 1))
    drawn = model.decode(model.initial(batch))
    for key, space in SHAPED.items():
        for value in drawn[key].detach().numpy():
            assert space.contains(np.asarray(value, space.dtype)), key
            assert value.shape == space.shape
        assert drawn[key].dtype == torch.from_numpy(np.zeros(1, space.dtype)).dtype


def test_the_likeliest_dials_and_lamps_are_drawn_and_the_expected_grid():
    keys = ("board", "grid", "panel")
    model = world_model(spaces_of(**{key: SHAPED[key] for key in keys}), Size(16, 8, 3, 1))
    reads = model.heads["decoder"].reads
    said = {
        "board": [0.0, 1, 0, 0, 1, 1, 0, 0, 0, 1],
        "grid": [0.0, 1, 2, -1, -2, 0.5],
        "panel": [1.0, -1, -1, 1],
    }
    with torch.no_grad():
        for key, bias in said.items():
            nn.init.zeros_(reads[key].weight)
            reads[key].bias.data = torch.tensor(bias)
        drawn = model.decode(model.initial(1))
    assert drawn["board"].tolist() == [[[1, 2], [0, 1]]]
    assert drawn["panel"].tolist() == [[[1, 0], [0, 1]]]
    expected = torch.tensor(said["grid"]).view(1, 3, 2)
    torch.testing.assert_close(drawn["grid"], expected.sign() * expected.abs().expm1())


@pytest.mark.parametrize("name", ["dreamer_v3", "dreamer_v3.arxiv_v1", "dreamer_v2", "planet"])
def test_a_recipe_learns_and_acts_from_observations_of_every_shape(name):
    sizes = {"dreamer_v3": {"size": Size(16, 8, 3, 1, latents=4)}}
    smaller = {"deter": 8, "units": 8}
    torch.manual_seed(0)
    spaces = spaces_of(**SHAPED)
    settings = sizes.get(name.partition(".")[0], smaller)
    agent = build(name, spaces, **settings, train__precision="no")
    for number, space in enumerate(SHAPED.values()):
        space.seed(number)
    rows = [{k: space.sample() for k, space in SHAPED.items()} for _ in range(8)]
    obs = {k: torch.as_tensor(np.stack([r[k] for r in rows])).unflatten(0, (2, 4)) for k in SHAPED}
    first = torch.zeros(2, 4, dtype=torch.bool)
    first[:, 0] = True
    action = nn.functional.one_hot(torch.tensor([[0, 1, 1, 0]] * 2), 2).float()
    flags = torch.zeros_like(first)
    metrics = agent.learn(Batch(obs, action, first, torch.randn(2, 4), flags, flags))
    assert {f"loss/{key}" for key in SHAPED} <= metrics.keys()
    assert all(np.isfinite(float(value)) for value in metrics.values())
    seen = {key: value[:, 0].numpy() for key, value in obs.items()}
    decision, _ = agent.act(seen, agent.initial(2), is_first=np.ones(2, bool))
    assert decision.action.sum(-1).tolist() == [1.0, 1.0]


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
