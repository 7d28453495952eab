"""What the generations of the recurrent family add: overshooting, balance, coarse images, stored states."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from dreamer_toys import WIDTHS, small_agent
from torch.testing import assert_close

from wm_toolkit.batch import Batch
from wm_toolkit.encoders.observations import coarse
from wm_toolkit.losses.kl import kl_normal
from wm_toolkit.models.dreamer import without_first
from wm_toolkit.models.rssm import CategoricalBelief, GaussianBelief
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import unbind

BOX = gym.spaces.Box(-1, 1, (2,), np.float32)
VECTOR = Spaces({"vector": gym.spaces.Box(-9, 9, (3,), np.float32)}, BOX)
IMAGE = Spaces({"image": gym.spaces.Box(0, 255, (64, 64, 1), np.uint8)}, BOX)


def tiny(name: str, spaces: Spaces = VECTOR, **overrides):
    return small_agent(name, spaces, train__precision="no", **overrides)


def batch_of(
    rng: torch.Generator, spaces: Spaces = VECTOR, rows: int = 3, length: int = 6
) -> Batch:
    if spaces is IMAGE:
        shape = (rows, length, 64, 64, 1)
        obs = {"image": torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)}
    else:
        obs = {"vector": torch.randn(rows, length, 3, generator=rng)}
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    action = torch.rand(rows, length, 2, generator=rng) * 2 - 1
    flags = torch.zeros_like(first)
    reward = torch.randn(rows, length, generator=rng)
    return Batch(obs, action, first, reward, flags, flags)


# -- filtering ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", WIDTHS)
def test_a_sequence_with_a_reset_equals_two_sequences(name, rng):
    model = tiny(name).model.eval()
    batch = batch_of(rng)
    first = batch.is_first.clone()
    first[:, 3] = True
    batch = batch.replace(is_first=first)
    noise = torch.Generator().manual_seed(1)
    whole = model.features(model.observe_sequence(batch, generator=noise))
    noise.manual_seed(1)
    halves = [
        model.observe_sequence(batch[:, part], generator=noise) for part in (slice(3), slice(3, 6))
    ]
    apart = torch.cat([model.features(half) for half in halves], 1)
    assert_close(whole, apart)


def test_filtering_after_a_known_state_is_going_on_with_it(rng):
    """Rows 1 ... T from the state at row 0 are those of the whole window, actions and resets included."""
    model, batch = tiny("dreamer_v3").model, batch_of(rng)
    first = batch.is_first.clone()
    first[1, 1] = first[2, 3] = True
    batch = batch.replace(is_first=first, index=torch.arange(3), weight=torch.ones(3))
    noise = torch.Generator().manual_seed(1)
    whole = model.observe_sequence(batch, generator=noise)
    noise.manual_seed(1)
    begin = batch.replace(index=None, weight=None)[:, :1]
    head = model.observe_sequence(begin, generator=noise)
    rest = model.observe_after(batch, unbind(head, 1)[0], generator=noise)
    assert_close(model.features(rest), model.features(whole)[:, 1:])


def test_all_rows_but_the_first_keep_weight_and_origin(rng):
    batch = batch_of(rng).replace(index=torch.arange(3), weight=torch.ones(3))
    rest = without_first(batch)
    assert rest.action.shape == (3, 5, 2)
    assert torch.equal(rest.index, batch.index)
    assert torch.equal(rest.weight, batch.weight)


@pytest.mark.parametrize(
    "belief", [CategoricalBelief(3, 5), CategoricalBelief(2, 300), GaussianBelief(4)]
)
def test_a_stored_draw_comes_back(belief, rng):
    drawn = belief(torch.randn(6, belief.inputs, generator=rng)).sample(rng)
    stored = belief.encode(drawn)
    shape, kind = belief.column
    assert tuple(stored.shape[1:]) == shape
    assert str(stored.dtype) == f"torch.{kind}"
    assert_close(belief.decode(stored), drawn, atol=2e-3, rtol=2e-3)


# -- terms -------------------------------------------------------------------------------------------
def nearly_certain(**overrides):
    """A PlaNet whose draws are near their means, so that two of them can be compared."""
    model = tiny("planet", **overrides).model
    with torch.no_grad():
        for part in (model.rssm.prior_net, model.rssm.posterior_net):
            part[-1].weight[4:] = 0.0
            part[-1].bias[4:] = -50.0  # the smallest deviation
    model.rssm.belief = dataclasses.replace(model.rssm.belief, least=1e-4)
    return model


@pytest.mark.parametrize("nats", [0.0, 1e6])
def test_overshooting_is_the_plain_loop_over_starts_and_distances(nats, rng):
    model = nearly_certain(overshooting=3, free_nats=nats)
    batch = batch_of(rng)
    first = batch.is_first.clone()
    first[1, 3] = True
    batch = batch.replace(is_first=first)
    posterior = model.observe_sequence(batch).detach()
    found = model._overshooting(batch, posterior).detach()
    action = batch.previous_action()
    states = unbind(posterior, 1)
    expected, charged = torch.zeros(3, 6), []
    for start in range(6):
        current, alive = states[start], torch.ones(3)
        for t in range(start + 1, min(start + 3, 5) + 1):
            current = model.imagine(current, action[:, t]).detach()
            alive = alive * ~first[:, t]
            if t - start > 1:
                goal, prior = states[t].belief, current.belief
                kl = kl_normal(goal.mean, goal.std, prior.mean, prior.std)
                charged.append(kl > nats)
                expected[:, t] += alive * (kl - nats).clamp(min=0) / 2
    assert_close(found, expected, rtol=0.05, atol=1e-3 * float(expected.max()))
    assert not found[:, :2].any()
    assert (found[1, 3:5] == 0).all()
    assert torch.stack(charged).any()
    assert torch.stack(charged).all() == (nats == 0)


def test_overshooting_teaches_open_loop_priors_and_leaves_its_targets_alone(rng):
    model, batch = tiny("planet", overshooting=3, free_nats=0.0).model, batch_of(rng)
    losses = model.losses(batch, model.observe_sequence(batch))
    assert losses["overshooting"].shape == (3, 6)
    assert "overshooting" not in tiny("planet").model.loss(batch)
    filtered = model.observe_sequence(batch).detach()
    leaves = filtered.map(lambda x: x.clone().requires_grad_())
    model.zero_grad()
    model._overshooting(batch, leaves).sum().backward()
    assert model.rssm.prior_net[-1].weight.grad.abs().sum() > 0
    assert all(x.grad is None for x in leaves.belief.leaves())
    # Where a prediction begins is taught by how it ends; the last two rows begin none that counts.
    for begun in (leaves.deter.grad, leaves.stoch.grad):
        assert (begun[:, :4].abs().sum(-1) > 0).all()
        assert not begun[:, 4:].any()


def test_v2_weighs_both_sides_of_the_divergence(rng):
    """0.8 of the scale teaches the prior, 0.2 the posterior; both come from one number."""
    learner = tiny("dreamer_v2.atari").learner
    assert learner.scales["dynamics"] == pytest.approx(0.08)
    assert learner.scales["representation"] == pytest.approx(0.02)
    assert learner.scales["continue"] == 5.0
    losses = learner.model.loss(batch_of(rng))
    assert_close(losses["dynamics"], losses["representation"])


def test_v1_spends_its_free_nats_on_the_mean_and_planet_on_every_state(rng):
    batch = batch_of(rng)
    one = tiny("dreamer_v1", free_nats=1e3).model.loss(batch)["divergence"]
    assert_close(one, torch.full((3, 6), 1e3))
    none = tiny("planet", free_nats=1e3).model.loss(batch)["divergence"]
    assert not none.any()


def test_v2_learns_the_tanh_of_rewards(rng):
    batch = batch_of(rng)
    bounded = tiny("dreamer_v2", tanh_reward=True).model
    plain = tiny("dreamer_v2", tanh_reward=False).model
    plain.load_state_dict(bounded.state_dict())
    posterior = bounded.observe_sequence(batch)
    squashed = batch.replace(reward=batch.reward.tanh())
    assert_close(
        bounded.losses(batch, posterior)["reward"], plain.losses(squashed, posterior)["reward"]
    )


# -- coarse images -----------------------------------------------------------------------------------
def test_five_bits_keep_the_step_and_fill_it_with_noise():
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    noisy, middle = coarse(images, 5, noisy=True), coarse(images, 5, noisy=False)
    assert torch.equal((noisy * 32).floor().flatten(), torch.arange(256.0) // 8)
    assert_close(middle.flatten(), (torch.arange(256.0) // 8 + 0.5) / 32)
    assert noisy.unique().numel() > 200
    spread = coarse(images.expand(500, 16, 16, 1), 5, noisy=True)
    assert_close(spread.mean(0), middle[0], atol=0.005, rtol=0)


def test_encoder_and_decoder_see_the_same_noise(rng):
    model, batch = tiny("planet", IMAGE).model, batch_of(rng, IMAGE)
    seen = model.prepare(batch)
    assert seen.obs["image"].is_floating_point()
    again = model.prepare(seen.replace(obs=batch.obs))
    assert not torch.equal(seen.obs["image"], again.obs["image"])
    posterior = model.observe_sequence(seen)
    out = model.predict("decoder", posterior).parts["image"].mean
    error = 0.5 * (out - seen.obs["image"]).square().sum((-3, -2, -1))
    assert_close(model.losses(seen, posterior)["image"], error)
    assert tiny("dreamer_v1", IMAGE).model.prepare(batch).obs["image"].dtype == torch.uint8


# -- learning ----------------------------------------------------------------------------------------
QUICK = {
    "dreamer_v3": {"lr": 1e-2, "warmup": 0, "behaviour__horizon": 2},
    "dreamer_v2": {"model_adam__lr": 1e-2, "behaviour__horizon": 2},
    "dreamer_v1": {"model_adam__lr": 1e-2, "behaviour__horizon": 2},
    "planet": {"adam__lr": 1e-2},
}


@pytest.mark.parametrize("name", WIDTHS)
def test_a_batch_can_be_learnt_by_heart(name, rng):
    agent, batch = tiny(name, **QUICK[name]), batch_of(rng)
    torch.manual_seed(1)
    updates = [agent.learn(batch) for _ in range(25)]
    for term in ("loss/vector", "loss/reward"):
        before = sum(float(m[term]) for m in updates[:3])
        after = sum(float(m[term]) for m in updates[-3:])
        assert after < 0.9 * before, term
