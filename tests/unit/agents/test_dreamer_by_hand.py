"""One update of Dreamer V3, written down a second time from its equations, number by number."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch
from wm_toolkit.nn.dense import NormSiLU
from wm_toolkit.recipes.dreamer_v3 import DreamerV3Config, Size
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.config import TrainConfig

GROUPS, CLASSES, DETER, HORIZON = 3, 4, 16, 4
SPACES = Spaces(
    {"mode": gym.spaces.Discrete(3), "vector": gym.spaces.Box(-9, 9, (2,), np.float32)},
    gym.spaces.Discrete(3),
)
CONFIG = DreamerV3Config(
    size=Size(deter=DETER, units=8, classes=CLASSES, depth=1, latents=GROUPS),
    sequence=5,
    train=TrainConfig(batch_size=3),
    behaviour=dataclasses.replace(DreamerV3Config.behaviour, horizon=HORIZON),
)
B, T, D = 3, 5, DETER


def rows(seed: int = 0) -> Batch:
    """[3, 6]: a reset inside, an end of either kind, a window that begins with an episode."""
    rng = np.random.default_rng(seed)
    first, ended, cut = np.zeros((3, B, T + 1), bool)
    ended[0, 2], first[0, 3] = True, True
    cut[1, 3], first[1, 4] = True, True
    first[2, 1] = True
    reward = rng.normal(size=(B, T + 1)) * 3
    reward[first] = 0
    action = np.eye(3)[rng.integers(3, size=(B, T + 1))]
    obs = {
        "mode": torch.from_numpy(rng.integers(3, size=(B, T + 1))),
        "vector": torch.from_numpy(rng.normal(size=(B, T + 1, 2)) * 4).float(),
    }
    extras = {
        "deter": torch.from_numpy(rng.normal(size=(B, T + 1, D))).half().tanh(),
        "stoch": torch.from_numpy(rng.integers(CLASSES, size=(B, T + 1, GROUPS))).to(torch.uint8),
    }
    flags = [torch.from_numpy(x) for x in (first, ended, cut)]
    return Batch(
        obs,
        torch.from_numpy(action).float(),
        flags[0],
        torch.from_numpy(reward).float(),
        flags[1],
        flags[2],
        index=torch.arange(B),
        extras=extras,
    )


class Recorded:
    """The agent's losses on `rows`, and every draw that was made on the way."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.agent = build("dreamer_v3", SPACES, CONFIG)
        self.model, self.program = self.agent.model, self.agent.learner.program
        for p in self.model.parameters():  # heads that start at zero would hide mistakes
            if not p.any():
                nn.init.normal_(p, std=0.05)
        for p in self.program.slow.parameters():
            nn.init.normal_(p, std=0.1)
        self.batch = rows()
        self.posteriors: list[Tensor] = []
        self.dreams = []
        filtered, dream = self.program._filtered, self.program.dream
        self.program._filtered = lambda b: self._keep(self.posteriors, filtered(b), 1)
        self.program.dream = lambda *a: self._keep(self.dreams, dream(*a))
        torch.manual_seed(1)
        self.losses = self.program(self.batch)
        self.losses = {name: term.detach() for name, term in self.losses.items()}
        self.stoch = self.posteriors[0].stoch.detach()
        features = self.dreams[0].features
        self.features = getattr(features, "tensor", features)
        self.actions = self.dreams[0].actions

    @staticmethod
    def _keep(kept: list, found, part: int | None = None):
        kept.append(found if part is None else found[part])
        return found


@pytest.fixture(scope="module")
def seen() -> Recorded:
    return Recorded()


# -- the networks, from their parameters ----------------------------------------------------------
def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt() * weight


def apply(net, x):
    """Linear layers, norms and SiLUs one after the other."""
    for part in net.modules():
        if isinstance(part, nn.Linear):
            x = x @ part.weight.T + part.bias
        elif isinstance(part, nn.RMSNorm):
            x = rms(x, part.weight)
        if isinstance(part, nn.SiLU | NormSiLU):
            x = x / (1 + (-x).exp())
    return x


def blocks(layer, x):
    """[..., groups, in] by the layer's own matrix of each group."""
    outs = [
        x[..., g, :] @ layer.weight[g] + layer.bias.view(len(layer.weight), -1)[g] for g in range(8)
    ]
    return torch.stack(outs, -2)


def core(model, h, s, a):
    c = model.rssm.core
    a = a / a.abs().clamp(min=1)
    x = torch.cat([apply(c.deter, h), apply(c.stoch, s), apply(c.action, a)], -1)
    own = h.view(*h.shape[:-1], 8, -1)
    y = blocks(c.gru.mix, torch.cat([own, x.unsqueeze(-2).expand(*own.shape[:-1], -1)], -1))
    y = rms(y.flatten(-2), c.gru.norm.weight)
    y = (y * y.sigmoid()).view(own.shape)
    gates = blocks(c.gru.gates, y)
    part = gates.shape[-1] // 3
    reset, cand, update = (gates[..., i * part : (i + 1) * part].flatten(-2) for i in range(3))
    cand, update = (reset.sigmoid() * cand).tanh(), (update - 1).sigmoid()
    return update * cand + (1 - update) * h


def beliefs(logits):
    p = logits.view(*logits.shape[:-1], GROUPS, CLASSES).softmax(-1)
    return 0.99 * p + 0.01 / CLASSES


def symlog(x):
    return x.sign() * (1 + x.abs()).log()


def bins():
    x = torch.linspace(-20, 20, 255, dtype=torch.float64)
    return x.sign() * (x.abs().exp() - 1)


def read(logits):
    return (logits.double().softmax(-1) * bins()).sum(-1).float()


def two_hot_loss(logits, target):
    """Cross entropy to the mass that lies on the target's two neighbours."""
    b, logp = bins(), logits.double().log_softmax(-1)
    out = torch.zeros_like(target, dtype=torch.float64)
    for place in np.ndindex(*target.shape):
        x = float(target[place].detach())
        k = int(np.clip(np.searchsorted(b.numpy(), x, side="right") - 1, 0, 253))
        up = (x - float(b[k])) / float(b[k + 1] - b[k])
        out[place] = -(1 - up) * logp[place][k] - up * logp[place][k + 1]
    return out.float()


def filtered(seen: Recorded) -> Tensor:
    """[B, T, D] from the stored state of the context row on, draws as recorded."""
    batch, model = seen.batch, seen.model
    h = batch.extras["deter"][:, 0].float()
    s = torch.eye(CLASSES)[batch.extras["stoch"][:, 0].long()].flatten(1)
    found = []
    for t in range(1, T + 1):
        a = batch.action[:, t - 1].clone()
        h, s = h.clone(), s.clone()
        for row in range(B):
            if batch.is_first[row, t]:
                h[row], s[row], a[row] = 0, 0, 0
        h = core(model, h, s, a)
        found.append(h)
        s = seen.stoch[:, t - 1]
    return torch.stack(found, 1).detach()


def test_filtering_begins_with_the_stored_state_and_resets_state_and_action(seen):
    torch.testing.assert_close(seen.posteriors[0].deter, filtered(seen), rtol=1e-4, atol=1e-5)


def test_the_models_losses_are_the_published_ones(seen):
    model, batch = seen.model, seen.batch
    h = filtered(seen)
    mode = torch.eye(3)[batch.obs["mode"][:, 1:]]
    numbers = batch.obs["vector"][:, 1:]
    tokens = apply(model.encoder.vector, torch.cat([mode, symlog(numbers)], -1))
    post = beliefs(apply(model.rssm.posterior_net, torch.cat([h, tokens], -1)))
    prior = beliefs(apply(model.rssm.prior_net, h))
    kl = (post * (post.log() - prior.log())).sum((-2, -1)).clamp(min=1.0)
    features = torch.cat([h, seen.stoch], -1)
    hidden = apply(model.heads["decoder"].trunk, features)
    reads = model.heads["decoder"].reads
    drawn = apply(reads["vector"], hidden)
    logits = apply(reads["mode"], hidden)
    ending = apply(model.heads["continue"], features).squeeze(-1)
    goes_on = (1 - batch.terminated[:, 1:].float()) * (1 - 1 / 333)
    expected = {
        "vector": (drawn - symlog(numbers)).square().sum(-1),
        "mode": -(logits.log_softmax(-1) * mode).sum(-1),
        "reward": two_hot_loss(apply(model.heads["reward"], features), batch.reward[:, 1:]),
        "continue": -goes_on * ending.sigmoid().log() - (1 - goes_on) * (-ending).sigmoid().log(),
        "dynamics": kl,
        "representation": kl,
    }
    for name, value in expected.items():
        torch.testing.assert_close(seen.losses[name], value, rtol=1e-3, atol=1e-4, msg=name)


def dreamt(seen: Recorded) -> tuple[Tensor, Tensor]:
    """[M, H + 1, F] and [M, H, A]: h by the equations, draws as recorded."""
    h = filtered(seen).reshape(B * T, D)
    features = [torch.cat([h, seen.stoch.reshape(B * T, -1)], -1)]
    for t in range(HORIZON):
        s = seen.features[:, t, D:]
        h = core(seen.model, h, s, seen.actions[:, t])
        features.append(torch.cat([h, seen.features[:, t + 1, D:]], -1))
    return torch.stack(features, 1), seen.actions


def imagined_returns(seen: Recorded) -> tuple[Tensor, ...]:
    """Returns [M, H], values [M, H + 1] and weights [M, H] by the definition, one dream at a time."""
    features, _ = dreamt(seen)
    reward = read(apply(seen.model.heads["reward"], features))
    value = read(apply(seen.model.heads["value"], features))
    goes_on = apply(seen.model.heads["continue"], features).squeeze(-1).sigmoid()
    returns = torch.zeros(B * T, HORIZON)
    weights = torch.zeros(B * T, HORIZON)
    for m in range(B * T):
        ahead, weight = value[m, HORIZON], 1.0
        for t in reversed(range(HORIZON)):
            mixed = 0.05 * value[m, t + 1] + 0.95 * ahead
            ahead = returns[m, t] = reward[m, t + 1] + goes_on[m, t + 1] * mixed
        for t in range(HORIZON):
            weight = weight * goes_on[m, t]
            weights[m, t] = weight
    return returns.detach(), value.detach(), weights.detach()


def test_dreams_begin_in_every_posterior_even_where_an_episode_ended(seen):
    features, actions = dreamt(seen)
    assert features.shape[0] == B * T
    torch.testing.assert_close(seen.features, features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actions.sum(-1), torch.ones(B * T, HORIZON))


def test_the_actors_loss_is_the_published_one(seen):
    returns, value, weights = imagined_returns(seen)
    features, actions = dreamt(seen)
    low, high = np.quantile(returns.numpy(), [0.05, 0.95])
    scale = max(1.0, 0.01 * (high - low))
    log_probs = apply(seen.model.heads["policy"], features[:, :-1]).log_softmax(-1)
    chosen = (log_probs * actions).sum(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    advantage = (returns - value[:, :-1]) / scale
    expected = -weights * (chosen * advantage + 3e-4 * entropy)
    torch.testing.assert_close(
        seen.losses["policy"], expected.mean(1).view(B, T), rtol=1e-3, atol=1e-4
    )


def test_the_critics_loss_is_the_published_one(seen):
    returns, _, weights = imagined_returns(seen)
    features = dreamt(seen)[0][:, :-1]
    logits = apply(seen.model.heads["value"], features)
    slow = read(apply(seen.program.slow, features))
    expected = weights * (two_hot_loss(logits, returns) + two_hot_loss(logits, slow))
    torch.testing.assert_close(
        seen.losses["value"], expected.mean(1).view(B, T), rtol=1e-3, atol=1e-4
    )


def test_the_replayed_critics_loss_is_the_published_one(seen):
    batch = seen.batch
    boot = imagined_returns(seen)[0][:, 0].view(B, T)
    reward, ended = batch.reward[:, 1:], batch.terminated[:, 1:]
    last = ended | batch.truncated[:, 1:]
    returns = torch.zeros(B, T - 1)
    for row in range(B):
        ahead = boot[row, T - 1]
        for t in reversed(range(T - 1)):
            live = 0.0 if ended[row, t + 1] else 1 - 1 / 333
            lam = 0.0 if last[row, t + 1] else 0.95
            mixed = (1 - lam) * boot[row, t + 1] + lam * ahead
            ahead = returns[row, t] = reward[row, t + 1] + live * mixed
    features = torch.cat([filtered(seen), seen.stoch], -1)[:, :-1]
    logits = apply(seen.model.heads["value"], features)
    slow = read(apply(seen.program.slow, features))
    loss = two_hot_loss(logits, returns) + two_hot_loss(logits, slow)
    expected = (~last[:, :-1]).float() * loss
    torch.testing.assert_close(seen.losses["replay_value"], expected, rtol=1e-3, atol=1e-4)


def test_the_total_weighs_the_terms_as_published(seen):
    weights = {"representation": 0.1, "replay_value": 0.3}
    expected = sum(weights.get(n, 1.0) * float(term.mean()) for n, term in seen.losses.items())
    seen.program.scale.range.zero_()
    torch.manual_seed(1)
    metrics = seen.agent.learner.learn(seen.batch)
    assert math.isclose(float(metrics["loss"]), expected, rel_tol=1e-4)
    assert set(seen.losses) == {
        *("mode", "vector", "reward", "continue", "dynamics", "representation"),
        *("policy", "value", "replay_value"),
    }


def test_numbers_are_drawn_beyond_the_bounds_and_reinforced_as_drawn():
    torch.manual_seed(0)
    spaces = Spaces(SPACES.observation, gym.spaces.Box(-2, 2, (2,), np.float32))
    program = build("dreamer_v3", spaces, CONFIG).learner.program
    policy = program.model.heads["policy"]
    for p in policy.parameters():
        nn.init.normal_(p, std=0.3)
    for p in program.model.parameters():  # without rewards and values no action would be better
        if not p.any():
            nn.init.normal_(p, std=0.05)
    start = program.model.rssm.decode({n: x[:, 0] for n, x in rows().extras.items()})
    dreams = []
    dream = program.dream
    program.dream = lambda *a: dreams.append(dream(*a)) or dreams[-1]
    found, returns = program.behaviour(start)
    features, actions = dreams[0].features, dreams[0].actions
    features = getattr(features, "tensor", features)
    assert float(actions.abs().max()) > 1
    mean, raw = apply(policy.net, features[:, :-1]).chunk(2, -1)
    mean, std = mean.tanh(), 0.9 * (raw + 2).sigmoid() + 0.1
    square = ((actions - mean) / std).square()
    log_prob = (-0.5 * square - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    entropy = (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
    value = read(apply(program.model.heads["value"], features[:, :-1]))
    goes_on = apply(program.model.heads["continue"], features[:, :-1]).squeeze(-1).sigmoid()
    scale = max(1.0, float(program.scale.range[1] - program.scale.range[0]))
    gain = log_prob * (returns - value) / scale + 3e-4 * entropy
    expected = (-goes_on.cumprod(1) * gain).detach()
    assert float((returns - value).detach().abs().mean()) > 0.1
    torch.testing.assert_close(found["policy"].detach(), expected, rtol=1e-3, atol=1e-4)
