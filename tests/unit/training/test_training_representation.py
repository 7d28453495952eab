import math

import pytest
import torch
from training_toys import Toy, toy_agent, toy_batch

from wm_toolkit.errors import ConfigError, ShapeError
from wm_toolkit.training.hooks import Calibrate, CollapseMonitor
from wm_toolkit.training.representation import effective_rank, probe_r2, spread


def test_spread_is_the_mean_deviation_per_feature():
    features = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert float(spread(features)) == 0.5


def test_effective_rank_counts_equally_used_directions():
    basis = torch.linalg.qr(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))[0]
    samples = torch.cat([basis.T, -basis.T])  # three orthogonal directions, equally long
    assert float(effective_rank(samples)) == pytest.approx(3.0, abs=1e-5)


def test_effective_rank_of_two_unequal_directions_is_the_exponential_of_their_entropy():
    samples = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(effective_rank(samples)) == pytest.approx(math.exp(entropy), abs=1e-5)


def test_equal_samples_have_rank_zero():
    assert float(effective_rank(torch.full((5, 3), 0.1))) == 0.0


@pytest.mark.parametrize("width", [4, 300], ids=["few features", "more features than samples"])
def test_a_linear_quantity_is_read_off_and_noise_is_not(rng, width):
    cause = torch.randn(200, 3, generator=rng)
    features = cause @ torch.randn(3, width, generator=rng)
    target = cause[:, :1] * 2 + 3
    noise = torch.randn(200, 1, generator=rng)
    assert float(probe_r2(features, target, split=100)) > 0.99
    assert float(probe_r2(features, noise, split=100)) < 0.2


def test_without_a_penalty_the_probe_is_least_squares(rng):
    x, y = torch.randn(60, 3, generator=rng), torch.randn(60, 2, generator=rng)
    ones = torch.cat([x, torch.ones(60, 1)], 1)
    guess = ones[30:] @ torch.linalg.lstsq(ones[:30], y[:30]).solution
    truth = y[30:]
    r2 = 1 - (truth - guess).square().sum() / (truth - truth.mean(0)).square().sum()
    assert float(probe_r2(x, y, split=30, ridge=0.0)) == pytest.approx(float(r2), abs=1e-4)


def test_a_split_without_test_samples_is_refused():
    with pytest.raises(ShapeError, match="split at 4"):
        probe_r2(torch.ones(4, 2), torch.ones(4, 1), split=4)


def test_the_monitor_tells_a_healthy_model_from_a_collapsed_one(rng):
    monitor = CollapseMonitor(toy_batch(rng, size=64), probes=("vector",))
    model = Toy()
    healthy = monitor.measure(model)
    torch.nn.init.zeros_(model.encoder.weight)
    collapsed = monitor.measure(model)
    assert float(healthy["monitor/probe_r2/vector"]) > 0.99
    assert float(collapsed["monitor/probe_r2/vector"]) <= 0
    assert float(collapsed["monitor/spread"]) == float(collapsed["monitor/effective_rank"]) == 0
    assert 1 < float(healthy["monitor/effective_rank"]) <= 4
    assert model.training


def test_an_unknown_probe_column_names_the_closest(rng):
    with pytest.raises(ConfigError, match=r"'vektor'.*mean 'vector'"):
        CollapseMonitor(toy_batch(rng), probes=("vektor",))
    with pytest.raises(ConfigError, match="two windows"):
        CollapseMonitor(toy_batch(rng, size=1))


def test_calibrate_hands_the_same_batches_to_the_model_every_time(rng, monkeypatch):
    seen = []
    monkeypatch.setattr(Toy, "calibrate", lambda self, batches: seen.append(list(batches)))
    agent, batch = toy_agent(), toy_batch(rng)
    hook = Calibrate(iter([batch]))
    trainer = type("T", (), {"agent": agent})()
    hook.before_evaluation(trainer)
    hook.before_evaluation(trainer)
    assert [len(batches) for batches in seen] == [1, 1]
    assert torch.equal(seen[1][0].action, batch.action)


def test_the_smaller_system_gives_the_same_read_out(rng):
    x, y = torch.randn(40, 25, generator=rng), torch.randn(40, 2, generator=rng)
    wide = torch.cat([x, torch.full((40, 10), 7.0)], 1)  # constants, which standardise to zero
    small = probe_r2(wide, y, split=30)  # 35 features, 30 samples
    torch.testing.assert_close(small, probe_r2(x, y, split=30))
