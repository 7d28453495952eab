"""What makes an update fast changes none of its numbers."""

from __future__ import annotations

import pytest
import torch
from behaviour_toys import behaviour
from dreamer_toys import CHOICES, NUMBERS
from torch.nn import functional
from torch.testing import assert_close

from wm_toolkit.agents import actor_critic
from wm_toolkit.agents.actor_critic import ActorCritic
from wm_toolkit.heads.twohot import TwoHot, symmetric_bins
from wm_toolkit.heads.twohot import two_hot as code
from wm_toolkit.models.rssm import Categorical, Latent
from wm_toolkit.nn.choices import Choices

SPACES = {"box": NUMBERS, "choice": CHOICES}


def starts(program: ActorCritic, rng: torch.Generator) -> Latent:
    belief = program.model.rssm.belief(torch.randn(6, 32 * 3, generator=rng))
    return Latent(torch.randn(6, 16, generator=rng), belief.sample(rng), belief)


def gradients(program: ActorCritic, start: Latent) -> list[torch.Tensor | None]:
    """What the behaviour teaches, with the losses and returns in front."""
    program.zero_grad()
    program.scale.range.zero_()
    torch.manual_seed(1)
    losses, returns = program.behaviour(start)
    (losses["policy"].sum() + 2 * losses["value"].sum()).backward()
    said = [losses["policy"].detach(), losses["value"].detach(), returns]
    return said + [p.grad for p in program.model.parameters()]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("slow_targets", [False, True])
def test_a_dream_in_indices_is_the_dream_in_one_hot_vectors(space, slow_targets, rng, monkeypatch):
    program = behaviour(SPACES[space], slow_targets=slow_targets)
    start = starts(program, rng)
    assert isinstance(program.dream(start).features, Choices)
    fast = gradients(program, start)
    monkeypatch.setattr(actor_critic, "_without_gradient", lambda state: state)
    assert isinstance(program.dream(start).features, torch.Tensor)
    for found, expected in zip(fast, gradients(program, start), strict=True):
        assert (found is None) == (expected is None)
        if (
            found is not None and expected is not None
        ):  # sizes differ by orders of magnitude within one
            assert (found - expected).norm() <= 1e-4 * expected.norm() + 1e-6


def test_losses_are_those_of_heads_asked_about_the_whole_dream(rng):
    program = behaviour(entropy=0.01)
    start = starts(program, rng)
    torch.manual_seed(1)
    losses, returns = program.behaviour(start)
    torch.manual_seed(1)
    dream = program.dream(start)
    features, weight = dream.features.tensor[:, :-1], dream.go_on[:, :-1].cumprod(1)
    value, policy = (program.model.heads[name](features) for name in ("value", "policy"))
    assert program.slow is not None
    steady = program.slow(features).mean
    assert_close(
        losses["value"],
        weight * (value.loss(returns) + value.loss(steady)),
        rtol=1e-4,
        atol=1e-4,
    )
    advantage = (returns - value.mean) / program.scale.scale
    gain = policy.log_prob(dream.actions) * advantage + 0.01 * policy.entropy()
    assert_close(losses["policy"], -weight * gain, rtol=1e-4, atol=1e-4)


def test_the_likelihood_of_a_number_is_that_of_its_two_hot_code(rng):
    bins = symmetric_bins(41, 8.0, scale="symexp")
    x = torch.cat(
        [
            torch.randn(50, generator=rng) * 300,
            bins[[0, 7, 20, -1]],
            torch.tensor([1e6, -1e6]),
        ]
    )
    logits = torch.randn(len(x), 41, generator=rng, requires_grad=True)
    fast = TwoHot(logits, bins).log_prob(x)
    plain = (code(x, bins) * functional.log_softmax(logits, -1)).sum(-1)
    assert_close(fast, plain)
    grad = torch.randn(len(x), generator=rng)
    found = torch.autograd.grad(fast, logits, grad)
    assert_close(found, torch.autograd.grad(plain, logits, grad))


def test_classes_without_a_chance_are_never_drawn(rng):
    chances = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    drawn = Categorical(chances.log().expand(20_000, 1, 5)).choose(rng).index
    assert sorted(drawn.unique().tolist()) == [1, 3]
    assert abs((drawn == 1).float().mean().item() - 0.5) < 0.02


def test_an_unrolled_core_steps_as_the_core(rng):
    core = behaviour().model.rssm.core
    deter, stoch = torch.randn(2, 16, generator=rng), torch.rand(2, 96, generator=rng)
    action = core.embed(torch.rand(2, 2, generator=rng))
    step = core.unrolled()
    for _ in range(3):
        expected = core.step(deter, stoch, action)
        deter = step(deter, stoch, action)
        assert_close(deter, expected)
