"""Behaviour in dreams: who receives which gradient, and the numbers against their definitions."""

from __future__ import annotations

import pytest
import torch
from behaviour_toys import batch_of, behaviour, parts_with_gradient, program, start_of
from dreamer_toys import CHOICES, NUMBERS, SMALL
from torch.testing import assert_close

from wm_toolkit.agents.actor_critic import ActorCritic
from wm_toolkit.agents.behaviour import score
from wm_toolkit.batch import Batch
from wm_toolkit.errors import ConfigError
from wm_toolkit.losses.returns import lambda_return
from wm_toolkit.recipes.dreamer_v3 import world_model


@pytest.mark.parametrize("estimator", ["reinforce", "dynamics", "both"])
def test_the_policy_term_teaches_the_policy_alone(estimator):
    ac = behaviour(estimator=estimator, entropy=0.0)
    losses, _ = ac.behaviour(start_of(ac, batch_of()))
    assert parts_with_gradient(ac, losses["policy"]) == {"policy"}


def test_the_value_term_teaches_the_critic_alone():
    ac = behaviour()
    losses, _ = ac.behaviour(start_of(ac, batch_of()))
    assert parts_with_gradient(ac, losses["value"]) == {"value"}


@pytest.mark.parametrize(
    ("name", "spaces"),
    [
        ("dreamer_v1", NUMBERS),
        ("dreamer_v1.discrete", CHOICES),
        ("dreamer_v2.atari", CHOICES),
        ("dreamer_v2.dmc", NUMBERS),
        ("dreamer_v3", NUMBERS),
        ("dreamer_v3", CHOICES),
        ("dreamer_v3.arxiv_v1", NUMBERS),
    ],
)
def test_of_a_whole_batch_too_the_behaviours_terms_teach_their_own_heads_alone(name, spaces):
    """Dreams begin in posteriors, which learn nothing from what is dreamt on."""
    ac = program(name, spaces)
    losses = ac(batch_of(spaces))
    assert parts_with_gradient(ac, losses["policy"]) == {"policy"}
    assert parts_with_gradient(ac, losses["value"]) == {"value"}


def test_the_replayed_value_term_shapes_the_model_too():
    ac = behaviour()
    assert parts_with_gradient(ac, ac(batch_of())["replay_value"]) == {"value", "model"}


def test_the_models_terms_teach_neither_actor_nor_critic():
    ac, terms = behaviour(), ("vector", "reward", "continue", "dynamics", "representation")
    losses = ac(batch_of())
    total = torch.stack([losses[name].sum() for name in terms]).sum()
    assert parts_with_gradient(ac, total) == {"model"}


def test_after_a_dream_every_parameter_may_learn_again():
    ac = behaviour()
    ac(batch_of())
    assert all(p.requires_grad for p in ac.model.parameters())


def test_reinforce_is_the_weighted_score_times_the_scaled_advantage():
    ac = behaviour(CHOICES, entropy=0.0)
    start = start_of(ac, batch_of(CHOICES))
    torch.manual_seed(1)
    losses, returns = ac.behaviour(start)
    torch.manual_seed(1)
    dream = ac.dream(start)
    values = ac.model.heads["value"](dream.features).mean
    assert_close(
        returns, lambda_return(dream.reward[:, 1:], dream.go_on[:, 1:], values[:, 1:], 0.95)
    )
    weight = torch.stack([dream.go_on[:, : t + 1].prod(1) for t in range(4)], 1)
    score = ac.model.heads["policy"](dream.features[:, :-1]).log_prob(dream.actions)
    advantage = (returns - values[:, :-1]) / ac.scale.scale
    assert_close(losses["policy"], -weight * score * advantage)


def test_the_gradient_through_the_dynamics_raises_the_dreamt_return():
    ac = behaviour(estimator="dynamics", entropy=0.0, normalise=False)
    start = start_of(ac, batch_of()).repeat(50)

    def mean_return() -> torch.Tensor:
        torch.manual_seed(3)
        dream = ac.dream(start)
        values = ac.model.heads["value"](dream.features).mean
        return lambda_return(dream.reward[:, 1:], dream.go_on[:, 1:], values[:, 1:]).mean().detach()

    before, policy = mean_return(), ac.model.heads["policy"]
    optimizer = torch.optim.SGD(policy.parameters(), 0.02)
    for _ in range(20):
        torch.manual_seed(3)
        optimizer.zero_grad()
        ac.behaviour(start)[0]["policy"].mean().backward()
        optimizer.step()
    assert mean_return() > before


def test_the_slow_critic_follows_by_its_rate():
    ac = behaviour(slow_rate=0.25, slow_every=2)
    before = [p.clone() for p in ac.slow.parameters()]
    with torch.no_grad():
        for p in ac.model.heads["value"].parameters():
            p.add_(1.0)
    ac.after_update(1)
    assert all(torch.equal(a, b) for a, b in zip(before, ac.slow.parameters(), strict=True))
    ac.after_update(2)
    for was, now in zip(before, ac.slow.parameters(), strict=True):
        assert_close(now, was + 0.25)


def test_a_model_without_a_policy_is_refused():
    with pytest.raises(ConfigError, match=r"'policy', 'value'"):
        ActorCritic(world_model(NUMBERS, SMALL))


# -- the older generations ---------------------------------------------------------------------------
def test_v1s_actor_term_teaches_the_actor_alone_through_the_dynamics():
    ac = program("dreamer_v1")
    losses, _ = ac.behaviour(start_of(ac, batch_of()))
    assert parts_with_gradient(ac, losses["policy"]) == {"policy"}
    assert parts_with_gradient(ac, losses["value"]) == {"value"}
    assert ac.slow is None


def test_v1s_actor_loss_is_minus_the_weighted_return_and_its_critics_half_the_squared_error():
    ac = program("dreamer_v1")
    start = start_of(ac, batch_of())
    torch.manual_seed(1)
    losses, returns = ac.behaviour(start)
    torch.manual_seed(1)
    dream = ac.dream(start)
    values = ac.model.heads["value"](dream.features).mean
    assert_close(dream.go_on, torch.full_like(dream.go_on, 0.99))
    weight = 0.99 ** torch.arange(3.0)
    expected = lambda_return(dream.reward[:, 1:-1], dream.go_on[:, 1:-1], values[:, 2:], 0.95)
    assert_close(returns, expected)
    assert_close(losses["policy"], -weight * expected)
    assert_close(losses["value"], weight * 0.5 * (values[:, 1:-1] - expected).square())


def test_v1s_actor_learns_through_what_it_does_and_not_through_what_it_sees():
    """The gradient through the dynamics, where what the actor reads is a constant."""
    ac = program("dreamer_v1")
    start, model = start_of(ac, batch_of()), ac.model
    policy = list(model.heads["policy"].parameters())
    torch.manual_seed(1)
    losses, _ = ac.behaviour(start)
    found = torch.autograd.grad(losses["policy"].sum(), policy)
    torch.manual_seed(1)
    state, seen = start, []
    for _ in range(4):
        decided = model.heads["policy"](model.features(state).detach())
        state = model.imagine(state, decided.sample())
        seen.append(model.features(state))
    features = torch.stack(seen, 1)
    reward, value = (model.heads[name](features).mean for name in ("reward", "value"))
    goes_on = torch.full_like(reward, 0.99)
    returns = lambda_return(reward[:, :-1], goes_on[:, :-1], value[:, 1:], 0.95)
    total = (0.99 ** torch.arange(3.0) * returns).sum()
    for mine, expected in zip(found, torch.autograd.grad(-total, policy), strict=True):
        assert expected.any()
        assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_v1_begins_no_dream_in_a_sequences_last_state_where_it_predicts_endings():
    ac = program("dreamer_v1", predict_ending=True)
    losses = ac(batch_of())
    assert losses["policy"].shape == losses["value"].shape == (3, 4)
    assert losses["continue"].shape == (3, 5)


def test_v2_judges_an_action_by_the_slow_value_of_where_it_led():
    ac = program("dreamer_v2", CHOICES)
    assert ac.slow is not None
    for p in ac.slow.parameters():
        torch.nn.init.normal_(p, std=0.5)
    start, live = start_of(ac, batch_of(CHOICES)), torch.ones(15)
    live[2] = 0.0
    torch.manual_seed(1)
    losses, _ = ac.behaviour(start, live)
    torch.manual_seed(1)
    dream = ac.dream(start, live)
    slow = ac.slow(dream.features).mean
    assert_close(dream.go_on[:, 0], 0.999 * live)
    returns = lambda_return(dream.reward[:, :-1], dream.go_on[:, :-1], slow[:, 1:], 0.95)
    weight = torch.cat([torch.ones(15, 1), dream.go_on[:, :-2].cumprod(1)], 1)
    policy = ac.model.heads["policy"](dream.features[:, :3])
    gain = policy.log_prob(dream.actions[:, :3]) * (returns[:, 1:] - slow[:, :3])
    assert_close(losses["policy"], -weight[:, :3] * (gain + 1e-3 * policy.entropy()))
    assert not losses["policy"][2, 1:].any()
    value = ac.model.heads["value"](dream.features[:, :4]).mean
    assert_close(losses["value"], weight * 0.5 * (value - returns).square())


def test_v2_takes_gradients_through_the_dynamics_for_numbers_and_mixes_on_demand():
    assert program("dreamer_v2", NUMBERS).share == 0.0
    assert program("dreamer_v2", CHOICES).share == 1.0
    ac = program("dreamer_v2", NUMBERS, behaviour__estimator="both", behaviour__mix=0.25)
    start = start_of(ac, batch_of())
    torch.manual_seed(1)
    losses, _ = ac.behaviour(start)
    torch.manual_seed(1)
    dream = ac.dream(start)
    assert ac.slow is not None
    slow = ac.slow(dream.features).mean
    found = score(dream, slow, ac.config)
    policy = ac.model.heads["policy"](dream.features[:, :3].detach())
    reinforced = policy.log_prob(dream.actions[:, :3]) * (found.aims - slow[:, :3])
    gain = 0.25 * reinforced + 0.75 * found.aims + 1e-3 * policy.entropy()
    assert_close(losses["policy"], -found.aim_weight * gain)


def test_v2s_slow_critic_is_a_copy_made_every_hundred_updates():
    ac = program("dreamer_v2")
    assert ac.slow is not None
    with torch.no_grad():
        for p in ac.model.heads["value"].parameters():
            p.add_(1.0)
    ac.after_update(99)
    fast = list(ac.model.heads["value"].parameters())
    assert not any(torch.equal(a, b) for a, b in zip(ac.slow.parameters(), fast, strict=True))
    ac.after_update(100)
    assert all(torch.equal(a, b) for a, b in zip(ac.slow.parameters(), fast, strict=True))


def test_the_preprint_dreams_on_where_ending_is_unlikely_and_raises_the_advantage():
    ac = program("dreamer_v3.arxiv_v1")
    start, live = start_of(ac, batch_of()), torch.ones(15)
    live[0] = 0.0
    torch.manual_seed(1)
    losses, _ = ac.behaviour(start, live)
    torch.manual_seed(1)
    dream = ac.dream(start, live)
    assert set((dream.go_on[:, 1:] / 0.997).unique().tolist()) <= {0.0, 1.0}
    assert_close(dream.go_on[:, 0], 0.997 * live)
    values = ac.model.heads["value"](dream.features).mean
    assert values.abs().min() > 0  # else the advantage would be the return
    found = score(dream, values, ac.config)
    assert_close(found.weight[:, 0], live)
    gain = (found.aims - values[:, :-1]) / ac.scale.scale
    entropy = ac.model.heads["policy"](dream.features[:, :-1]).entropy()
    assert_close(losses["policy"], -found.weight * (gain + 3e-4 * entropy))
    assert parts_with_gradient(ac, losses["policy"]) == {"policy"}


# -- stored states -----------------------------------------------------------------------------------
def stored_batch(ac: ActorCritic) -> Batch:
    """[3, 5] rows, each with a state of its own."""
    batch = batch_of()
    states = ac.model.observe_sequence(batch)
    return batch.replace(extras=ac.latents_of(states), index=torch.arange(3))


def test_a_sequence_begins_with_the_state_stored_at_its_first_row():
    ac = behaviour()
    ac.stored_latents = True
    batch = stored_batch(ac)
    torch.manual_seed(2)
    losses = ac(batch)
    assert losses["vector"].shape == losses["policy"].shape == (3, 4)
    assert losses["replay_value"].shape == (3, 3)
    torch.manual_seed(2)
    known = ac.model.rssm.decode({name: value[:, 0] for name, value in batch.extras.items()})
    posterior = ac.model.observe_after(batch, known)
    ac.after_update(1)
    assert ac.latents is not None
    assert_close(ac.latents["deter"], posterior.deter.half())
    classes = posterior.stoch.unflatten(-1, (32, 3)).argmax(-1)
    assert torch.equal(ac.latents["stoch"].long(), classes)
    assert {name: spec.shape for name, spec in ac.latent_columns().items()} == {
        "deter": (16,),
        "stoch": (32,),
    }


def test_states_of_all_pieces_of_a_batch_are_offered_together_and_replaced_by_the_next():
    ac = behaviour()
    ac.stored_latents = True
    batch = stored_batch(ac)
    for piece in (batch[:2], batch[2:]):
        ac(piece)
    ac.after_update(1)
    assert ac.latents is not None
    assert ac.latents["deter"].shape == (3, 4, 16)
    ac(batch[:1])
    ac.after_update(2)
    assert ac.latents["deter"].shape == (1, 4, 16)
    ac(batch_of())
    ac.after_update(3)
    assert ac.latents is None


def test_without_stored_states_nothing_is_kept():
    ac = behaviour()
    assert ac.latent_columns() == {}
    assert ac.latents_of(start_of(ac, batch_of())) == {}
    ac(stored_batch(behaviour()))
    ac.after_update(1)
    assert ac.latents is None
