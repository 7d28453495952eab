"""Open-loop errors of a point whose true and believed motion are known."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import pytest
import torch
from dreamer_toys import SPACES, Drift, categorical_dreamer, drifting, gaussian_dreamer, sequences

from wm_toolkit.errors import ShapeError
from wm_toolkit.render.open_loop import (
    belief_error,
    latent_error,
    observation_errors,
    open_loop,
)


def test_the_divergence_is_that_of_the_gaussians_it_is_taken_of():
    batch = drifting()
    loop = open_loop(Drift(gain=0.5), batch, context=2)
    found = belief_error(loop)
    x = batch.obs["x"][..., 0]
    off = x[:, 2:] - x[:, 1:2]
    # N(m, s) against N(m', s): (m - m')^2 / (2 s^2), s = 0.5; the dream makes half the way.
    assert found.model == pytest.approx(((0.5 * off) ** 2 / 0.5).mean(0).tolist(), rel=1e-4)
    assert found.copy == pytest.approx((off**2 / 0.5).mean(0).tolist(), rel=1e-4)


def test_a_true_model_dreams_without_error():
    loop = open_loop(Drift(), drifting(), context=3)
    errors = [belief_error(loop), latent_error(Drift(), loop)]
    errors += observation_errors(Drift(), loop).values()
    for error in errors:
        assert error.model == pytest.approx([0] * 5, abs=1e-3)  # the picture has 8 bits
        assert min(error.copy) > 0.05


def test_rows_behind_the_end_of_an_episode_are_not_compared():
    batch = drifting(length=8)
    first = batch.is_first.clone()
    first[:2, 5] = True
    broken = {key: value.clone() for key, value in batch.obs.items()}
    broken["x"][:2, 5:] = 50.0
    cut = batch.replace(obs=broken, is_first=first)
    found = latent_error(Drift(), open_loop(Drift(), cut, context=2))
    assert found.model == pytest.approx([0] * 6, abs=1e-6)


def test_padding_is_not_compared_and_ends_the_curve():
    batch = drifting(length=8)
    mask = torch.ones(4, 8, dtype=torch.bool)
    mask[:, 6:] = False
    broken = {key: value.clone() for key, value in batch.obs.items()}
    broken["x"][:, 6:] = torch.nan
    loop = open_loop(Drift(0.5), batch.replace(obs=broken, mask=mask), context=2)
    whole = latent_error(Drift(0.5), open_loop(Drift(0.5), batch[:, :6], context=2))
    found = latent_error(Drift(0.5), loop)
    assert found.model == pytest.approx(whole.model)
    assert found.copy == pytest.approx(whole.copy)
    assert len(found.model) == 4


def test_wrong_choices_are_counted():
    spaces = SPACES["several"]
    model = categorical_dreamer("several")
    batch = sequences(spaces, torch.Generator().manual_seed(1), rows=5, length=6)
    loop = open_loop(model, batch, context=2)
    drawn = model.decode(loop.dreamt)["mode"]
    assert isinstance(spaces.observation["mode"], gym.spaces.Discrete)
    truth = batch.obs["mode"]
    found = observation_errors(model, loop)["mode"]
    assert found.model == pytest.approx((drawn != truth[:, 2:]).float().mean(0).tolist())
    assert found.copy == pytest.approx((truth[:, 1:2] != truth[:, 2:]).float().mean(0).tolist())


@pytest.mark.parametrize("make", [categorical_dreamer, gaussian_dreamer])
def test_stochastic_models_dream_alike_twice_and_leave_the_global_generator_alone(make, rng):
    model, batch = make(), sequences(SPACES["vector"], rng)
    before = torch.random.get_rng_state()
    one, two = (open_loop(model, batch, context=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.dreamt.stoch, two.dreamt.stoch)
    other = open_loop(model, batch, context=3, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(one.dreamt.stoch, other.dreamt.stoch)
    assert min(belief_error(one).model) > 0


def test_models_without_beliefs_or_decoder_are_measured_by_their_features():
    model, batch = categorical_dreamer(), sequences(SPACES["vector"], torch.Generator())
    del model.heads["decoder"]
    loop = open_loop(model, batch, context=2)
    assert observation_errors(model, loop) == {}
    plain = dataclasses.replace(loop, seen=loop.batch, dreamt=loop.batch)
    assert belief_error(plain) is None


def test_windows_without_room_to_dream_are_refused_with_their_length():
    with pytest.raises(ShapeError, match="context is 8, expected 1 to 7"):
        open_loop(Drift(), drifting(length=8), context=8)
