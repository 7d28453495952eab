"""The model of World Models: its losses, what it remembers, and how warm it dreams."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.errors import DataError, SpaceError
from wm_toolkit.losses.kl import kl_normal
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.mdn_rnn import LATENT, MDNRNN
from wm_toolkit.spaces import Spaces

IMAGE = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
CHOICE = Spaces({"image": IMAGE}, gym.spaces.Discrete(3))


def small(**fields) -> MDNRNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"latent": 4, "width": 6, "depth": 2, "restart": True, "ending": True} | fields
        return MDNRNN(CHOICE, **options)


def windows(rng, rows: int = 3, length: int = 6) -> Batch:
    choice = torch.randint(0, 3, (rows, length), generator=rng)
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    first[1, 3:4] = True
    ended = torch.zeros(rows, length, dtype=torch.bool)
    ended[1, 2:3] = True
    ended[0, 5:6] = True
    return Batch(
        {
            "image": torch.randint(
                0, 256, (rows, length, 64, 64, 3), generator=rng, dtype=torch.uint8
            )
        },
        torch.nn.functional.one_hot(choice, 3).float(),
        first,
        terminated=ended,
    )


def coded(batch: Batch, model: MDNRNN, log_variance: float = -40.0) -> Batch:
    """The batch with codes that leave nothing to chance."""
    mean = model.encoder(batch.obs).mean.detach()
    return batch.replace(
        extras={LATENT: torch.cat([mean, torch.full_like(mean, log_variance)], -1)}
    )


# -- V -----------------------------------------------------------------------------------------------
def test_the_divergence_has_a_floor_in_every_row_before_any_mean(rng):
    model, batch = small(floor=0.5), windows(rng)
    model.encoder.mean.weight.data.mul_(30)  # so that some rows lie above it
    seen = model.encoder(batch.obs)
    zero = torch.zeros_like(seen.mean)
    kl = kl_normal(seen.mean, seen.std, zero, zero + 1)
    found = model.vision_loss(batch)["divergence"]
    assert (kl < 2).any()
    assert (kl > 2).any()
    torch.testing.assert_close(found, kl.clamp(min=0.5 * 4))


def test_the_reconstruction_is_the_squared_error_summed_over_all_pixels(rng):
    model, batch = small(), windows(rng)
    decoder = model.heads["decoder"].head
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)  # draws grey
    expected = (batch.obs["image"].float() / 255 - 0.5).square().sum((2, 3, 4))
    torch.testing.assert_close(model.vision_loss(batch)["reconstruction"], expected)


def test_vision_learns_one_batch_by_heart(rng):
    model = small(depth=4, latent=8, floor=0.0)
    frames = torch.zeros(4, 1, 64, 64, 3, dtype=torch.uint8)
    for row in range(4):
        frames[row, 0, 8 * row : 8 * row + 24, 16:48] = 255
    batch = dataclasses.replace(windows(rng, 4, 1), obs={"image": frames})
    optimizer = torch.optim.Adam([p for m in model.vision() for p in m.parameters()], lr=3e-3)
    torch.manual_seed(0)
    errors = []
    for _ in range(100):
        losses = model.vision_loss(batch)
        optimizer.zero_grad()
        (losses["reconstruction"] + 0.01 * losses["divergence"]).mean().backward()
        optimizer.step()
        errors.append(losses["reconstruction"].mean().item())
    assert errors[0] > 2_000
    assert np.mean(errors[-5:]) < 700


# -- M -----------------------------------------------------------------------------------------------
def plain_transition(model: MDNRNN, batch: Batch) -> Tensor:
    """[B, T - 1] the transition's loss, one row and one step at a time."""
    z = batch.extras[LATENT][..., : model.latent]
    losses = torch.zeros(batch.action[:, 1:].shape[:2])
    for row in range(len(batch)):
        h = c = torch.zeros(1, model.width)
        for t in range(batch.action.shape[1] - 1):
            begins = batch.is_first[row, t]
            if begins:
                h = c = torch.zeros(1, model.width)
            x = torch.cat([z[row, t], batch.action[row, t], begins[None].float()])[None]
            h, c = model.lstm(model.lstm.read(x), h, c)
            if not batch.is_first[row, t + 1]:
                losses[row, t] = model.next(h).loss(z[row, t + 1][None])[0]
    return losses


def test_the_transition_loss_is_that_of_a_plain_loop_and_counts_no_end_of_an_episode(rng):
    model = small()
    batch = coded(windows(rng), model)
    found = model.memory_loss(batch)["transition"]
    torch.testing.assert_close(found, plain_transition(model, batch), rtol=1e-4, atol=1e-5)
    assert found[1, 2] == 0  # row 3 begins an episode


def test_rows_that_terminate_weigh_ten_times_as_much(rng):
    model = small()
    batch = coded(windows(rng), model)
    ten = model.memory_loss(batch)["continue"]
    model.terminal_weight = 1.0
    one = model.memory_loss(batch)["continue"]
    ratio = torch.where(batch.is_first[:, 1:], 0, ten / one)
    expected = torch.where(batch.terminated[:, 1:], 10.0, 1.0)
    torch.testing.assert_close(ratio, expected * ~batch.is_first[:, 1:])


def test_endings_that_are_unknown_are_asked_for(rng):
    model = small()
    with pytest.raises(DataError, match="does not say where episodes end"):
        model.memory_loss(windows(rng).replace(terminated=None))


def test_memory_teaches_vision_nothing(rng):
    model = small()
    sum(term.sum() for term in model.memory_loss(windows(rng)).values()).backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.lstm.recur.weight.grad.any()


def test_codes_are_drawn_anew_for_every_batch(rng):
    model = small()
    batch = coded(windows(rng), model, log_variance=0.0)
    one, two = (model.memory_loss(batch)["transition"] for _ in range(2))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("shared", [False, True])
def test_memory_learns_a_sequence_by_heart(rng, shared):
    model = small(shared_mixture=shared, width=16)
    batch = coded(windows(rng), model)
    spread = torch.randn(3, 6, 4, generator=rng)
    batch.extras[LATENT][..., :4] = spread
    optimizer = torch.optim.Adam([p for m in model.memory() for p in m.parameters()], lr=0.01)
    losses = []
    for _ in range(150):
        terms = model.memory_loss(batch)
        optimizer.zero_grad()
        sum(term.mean() for term in terms.values()).backward()
        optimizer.step()
        losses.append({name: term.mean().item() for name, term in terms.items()})
    assert losses[0]["transition"] > 0.9
    assert min(loss["transition"] for loss in losses) < 0
    assert losses[-1]["continue"] < 0.1 * losses[0]["continue"]


# -- the state ---------------------------------------------------------------------------------------
def test_the_first_observation_of_an_episode_meets_an_empty_memory(rng):
    model = small()
    obs = {"image": windows(rng).obs["image"][:, 0]}
    state = model.observe(model.initial(3), torch.ones(3, 3), obs)
    assert not state.h.any()
    assert not state.c.any()
    assert state.z.any()
    later = model.imagine(state, torch.ones(3, 3))
    assert later.h.any()


def test_the_restart_flag_is_up_for_one_step_only(rng):
    model = small()
    batch = coded(windows(rng, 2, 3), model)
    states = model.observe_sequence(batch, generator=rng)
    z, action = states.z, batch.action
    h = c = torch.zeros(2, model.width)
    for t, flag in ((0, 1.0), (1, 0.0)):
        x = torch.cat([z[:, t], action[:, t], torch.full((2, 1), flag)], -1)
        h, c = model.lstm(model.lstm.read(x), h, c)
        torch.testing.assert_close(states.h[:, t + 1], h)


def test_stored_codes_stand_in_for_the_frames(rng):
    model = small()
    batch = windows(rng)
    seen = model.encoder(batch.obs)
    codes = torch.cat([seen.mean, 2 * seen.std.log()], -1)
    stored = batch.replace(
        obs={"image": torch.zeros_like(batch.obs["image"])}, extras={LATENT: codes}
    )
    one, two = (
        model.observe_sequence(b, generator=torch.Generator().manual_seed(1))
        for b in (batch, stored)
    )
    torch.testing.assert_close(one.z, two.z)
    slow = WorldModel.observe_sequence(model, batch, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(slow.z, one.z)


def test_a_choice_is_read_as_one_number_from_left_to_right(rng):
    model = small(choices="level")
    assert model.lstm.read.in_features == 4 + 1 + 1
    levels = model._levels(torch.eye(3))
    assert levels.squeeze(-1).tolist() == [-1, 0, 1]


def test_features_hold_the_cell_where_they_shall(rng):
    state = (
        small()
        .initial(1)
        .replace(z=torch.ones(1, 4), c=2 * torch.ones(1, 6), h=3 * torch.ones(1, 6))
    )
    assert small().features(state).tolist() == [[1] * 4 + [3] * 6]
    assert small(cell=True).features(state).tolist() == [[1] * 4 + [2] * 6 + [3] * 6]
    with_cell = small(cell=True)
    assert with_cell.predict("decoder", state).mean.shape == (1, 64, 64, 3)
    logit = with_cell.heads["continue"].head(state.h).logit
    torch.testing.assert_close(with_cell.predict("continue", state).logit, logit)


# -- dreams ------------------------------------------------------------------------------------------
def test_temperature_widens_dreams_and_leaves_the_memory_as_it_is(rng):
    model = small(components=1)
    state = model.initial(2000).replace(age=torch.ones(2000))
    action = torch.eye(3)[:1].expand(2000, 3)
    spreads, memories = [], []
    for temperature in (1.0, 4.0):
        model.temperature = temperature
        dreamt = model.imagine(state, action, generator=torch.Generator().manual_seed(0))
        spreads.append(dreamt.z.std(0))
        memories.append(dreamt.h)
    torch.testing.assert_close(spreads[1], 2 * spreads[0], rtol=1e-3, atol=0)
    assert torch.equal(*memories)


def test_a_dream_in_a_batch_is_the_dream_alone(rng):
    model = small()
    model.temperature = 1e-8  # nothing is left to chance, so rows can be compared
    batch = coded(windows(rng), model)
    state = model.observe_sequence(batch)[:, -1]
    actions = torch.eye(3)[torch.randint(0, 3, (3, 2, 5), generator=rng)]
    together = model.rollout(state, actions)
    for row in range(3):
        alone = model.rollout(state[row : row + 1], actions[row : row + 1, 1:])
        torch.testing.assert_close(alone.z[0, 0], together.z[row, 1], rtol=1e-3, atol=1e-3)


def test_a_model_without_an_image_is_refused():
    vector = Spaces({"x": gym.spaces.Box(-1, 1, (2,), np.float32)}, gym.spaces.Discrete(3))
    with pytest.raises(SpaceError, match="a VAE reads one image"):
        MDNRNN(vector)
