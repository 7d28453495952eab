import copy

import pytest
import torch
from accelerate import Accelerator
from training_toys import Toy, toy_agent, toy_batch

from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.agents.probe_learner import ProbeLearner
from wm_toolkit.errors import CheckpointError, ConfigError, MissingHeadError
from wm_toolkit.heads.normal import NormalHead
from wm_toolkit.training.optimizer import adamw


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


def close(first, second, tolerance=1e-6):
    return all(torch.allclose(first[n], second[n], atol=tolerance, rtol=0) for n in first)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def test_one_update_is_the_gradient_step_of_the_scaled_loss(rng):
    model, batch = toy_agent().model, toy_batch(rng)
    learner = ModelLearner(model, optimizer=sgd, scales={"size": 0.5})
    losses = model.loss(batch)
    valid = batch.valid
    prediction = (losses["prediction"] * valid[:, 1:]).sum() / valid[:, 1:].sum()
    total = prediction + 0.5 * (losses["size"] * valid).sum() / valid.sum()
    grads = torch.autograd.grad(total, learner.parameters)
    expected = [p - 0.1 * g for p, g in zip(learner.parameters, grads)]
    metrics = learner.learn(batch)
    for parameter, value in zip(learner.parameters, expected):
        torch.testing.assert_close(parameter.detach(), value.detach())
    norm = torch.stack([g.norm() for g in grads]).norm()
    torch.testing.assert_close(metrics["grad_norm"], norm.detach())
    torch.testing.assert_close(metrics["loss"], total.detach())


def test_frozen_parameters_stay_as_they_are(rng):
    agent = toy_agent()
    before = weights(agent.model)
    agent.learn(toy_batch(rng))
    after = weights(agent.model)
    assert torch.equal(before["frozen.weight"], after["frozen.weight"])
    assert not torch.equal(before["encoder.weight"], after["encoder.weight"])


@pytest.mark.parametrize("pieces", [2, 3, 8])
def test_accumulated_pieces_equal_the_whole_batch(rng, pieces):
    batch = toy_batch(rng)  # rows are unevenly real, so a mean of means would differ
    whole, split = toy_agent(), toy_agent(accumulation=pieces)
    one, two = whole.learn(batch), split.learn(batch)
    assert close(weights(whole.model), weights(split.model))
    for name in one:
        torch.testing.assert_close(torch.as_tensor(two[name]), torch.as_tensor(one[name]))


def test_a_model_with_whole_batch_statistics_gets_the_whole_batch_and_the_number_of_pieces(rng):
    agent = toy_agent(statistic=True, accumulation=4)
    assert agent.model.pieces == 4
    whole, batch = toy_agent(statistic=True), toy_batch(rng)
    agent.learn(batch), whole.learn(batch)
    assert equal(weights(agent.model), weights(whole.model))


def test_a_statistic_that_cannot_be_accumulated_is_refused_by_name(rng, monkeypatch):
    monkeypatch.setattr(Toy, "microbatches", lambda self, pieces: False)
    with pytest.raises(ConfigError, match="'statistic' is a statistic of the whole batch"):
        toy_agent(statistic=True, accumulation=2).learn(toy_batch(rng))


def test_clipping_bounds_the_step_and_reports_the_norm_before(rng):
    batch = toy_batch(rng)
    free, clipped = toy_agent(clip=None), toy_agent(clip=1e-3)
    learner = ModelLearner(clipped.model, optimizer=sgd, clip=1e-3)
    before = [p.detach().clone() for p in learner.parameters]
    metrics = learner.learn(batch)
    step = torch.stack([(p.detach() - b).norm() for p, b in zip(learner.parameters, before)]).norm()
    assert float(step) == pytest.approx(0.1 * 1e-3, rel=1e-3)
    torch.testing.assert_close(metrics["grad_norm"], free.learn(batch)["grad_norm"])


def test_the_schedule_sets_the_rate_by_the_update_count(rng):
    agent = toy_agent(lr=0.5, schedule=lambda update: 1 / (update + 1))
    batch = toy_batch(rng)
    rates = [agent.learn(batch)["learning_rate"] for _ in range(3)]
    assert rates == pytest.approx([0.5, 0.25, 0.5 / 3])


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "norm": True}])
def test_a_restored_learner_continues_bit_for_bit(rng, options):
    batches = [toy_batch(rng) for _ in range(6)]
    straight, first = toy_agent(**options), toy_agent(**options)
    for batch in batches:
        straight.learn(batch)
    for batch in batches[:3]:
        first.learn(batch)
    saved = copy.deepcopy((first.model.state_dict(), first.learner.state_dict()))
    second = toy_agent(seed=1, **options)
    second.model.load_state_dict(saved[0])
    second.learner.load_state_dict(saved[1])
    for batch in batches[3:]:
        second.learn(batch)
    assert equal(weights(straight.model), weights(second.model))
    with straight.learner.evaluation_weights(), second.learner.evaluation_weights():
        assert equal(weights(straight.model), weights(second.model))


def test_evaluation_uses_the_averaged_weights(rng):
    agent = toy_agent(ema=0.5, clip=None)
    start = agent.model.encoder.weight.detach().clone()
    agent.learn(toy_batch(rng))
    now = agent.model.encoder.weight.detach().clone()
    with agent.learner.evaluation_weights():
        torch.testing.assert_close(agent.model.encoder.weight.detach(), (start + now) / 2)
    assert torch.equal(agent.model.encoder.weight, now)


def test_a_state_of_other_options_is_refused():
    with pytest.raises(CheckpointError, match="has no ema"):
        toy_agent(ema=0.9).learner.load_state_dict(toy_agent().learner.state_dict())


def test_an_accelerator_that_accumulates_too_is_refused():
    with pytest.raises(ConfigError, match="gradient_accumulation_steps=2"):
        toy_agent().learner.prepare(Accelerator(gradient_accumulation_steps=2))


def test_a_model_without_trainable_parameters_is_refused():
    model = Toy().requires_grad_(False)
    with pytest.raises(ConfigError, match="Toy has no parameter"):
        ModelLearner(model, optimizer=sgd)


# -- probes ---------------------------------------------------------------------------------------
def probed(every=1):
    agent = toy_agent(norm=True, dropout=0.2, clip=0.1)
    agent.model.heads["position"] = NormalHead(4, 3)
    probes = ProbeLearner(
        agent.model, {"position": lambda b: b.obs["vector"]}, optimizer=adamw(0.05), every=every
    )
    learner = ModelLearner(agent.model, optimizer=adamw(0.01), clip=0.1, probes=probes)
    return agent.model, learner


def test_a_probe_learns_and_leaves_the_model_as_it_would_be_without(rng):
    batches = [toy_batch(rng) for _ in range(30)]
    plain = toy_agent(norm=True, dropout=0.2)
    alone = ModelLearner(plain.model, optimizer=adamw(0.01), clip=0.1)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        for batch in batches:
            alone.learn(batch)
    model, learner = probed()
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        losses = [float(learner.learn(batch)["probe/position"]) for batch in batches]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    mine = {k: v for k, v in weights(model).items() if not k.startswith("heads.")}
    assert equal(mine, weights(plain.model))


def test_a_probe_sends_no_gradient_into_the_model(rng):
    _, learner = probed()
    learner.probes.learn(toy_batch(rng))
    assert all(p.grad is None for p in learner.parameters)


def test_every_skips_batches_in_between(rng):
    _, learner = probed(every=3)
    found = ["probe/position" in learner.learn(toy_batch(rng)) for _ in range(7)]
    assert found == [True, False, False, True, False, False, True]


def test_windows_limits_what_a_probe_trains_on(rng):
    model, _ = probed()
    seen = []
    probes = ProbeLearner(
        model,
        {"position": lambda b: seen.append(len(b)) or b.obs["vector"]},
        optimizer=sgd,
        windows=3,
    )
    probes.learn(toy_batch(rng))
    assert seen == [3]


def test_a_probe_of_a_missing_head_is_refused():
    with pytest.raises(MissingHeadError, match="no head 'decoder'"):
        ProbeLearner(Toy(), {"decoder": lambda b: b.action}, optimizer=sgd)


def test_a_probe_follows_its_schedule(rng):
    agent = toy_agent()
    head = agent.model.heads["position"] = NormalHead(4, 3)
    probes = ProbeLearner(
        agent.model,
        {"position": lambda b: b.obs["vector"]},
        optimizer=adamw(0.05),
        schedule=lambda batches: float(batches < 2),
    )
    weights = []
    for _ in range(4):
        probes.learn(toy_batch(rng))
        weights.append(next(head.parameters()).detach().clone())
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[3])  # a rate of 0 from the third batch on
