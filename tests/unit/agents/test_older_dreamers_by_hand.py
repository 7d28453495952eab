"""The objectives of PlaNet, Dreamer V1 and V2, written down a second time from their publications."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch
from wm_toolkit.heads.bounded import TruncatedNormal
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces

VECTOR = {"vector": gym.spaces.Box(-9, 9, (2,), np.float32)}
BOX = Spaces(VECTOR, gym.spaces.Box(-1, 1, (2,), np.float32))
CHOICE = Spaces(VECTOR, gym.spaces.Discrete(3))
SMALL = {
    "dreamer_v1": {"deter": 8, "hidden": 8, "stoch": 4, "units": 8, "behaviour__horizon": 4},
    "dreamer_v2": {
        "deter": 8, "latents": 3, "classes": 4, "units": 8, "layers": 1, "behaviour__horizon": 4
    },
    "planet": {"deter": 8, "stoch": 4, "units": 8, "reward_units": 8},
}  # fmt: skip
B, T, H = 3, 5, 4


def rows(spaces: Spaces) -> Batch:
    """[3, 5] with a reset inside and an end of either kind."""
    rng = np.random.default_rng(0)
    first, ended, cut = np.zeros((3, B, T), bool)
    ended[0, 1], first[0, 2] = True, True
    cut[1, 2], first[1, 3] = True, True
    ended[2, 4] = True
    if spaces.discrete:
        action = np.eye(3)[rng.integers(3, size=(B, T))]
    else:
        action = rng.uniform(-1, 1, (B, T, 2))
    numbers = [torch.from_numpy(x).float() for x in (rng.normal(size=(B, T, 2)), action)]
    flags = [torch.from_numpy(x) for x in (first, ended, cut)]
    reward = torch.from_numpy(rng.normal(size=(B, T)) * ~first).float()
    return Batch({"vector": numbers[0]}, numbers[1], flags[0], reward, flags[1], flags[2])


class Update:
    """One update of a recipe: what was filtered, what was dreamt, and the loss it came to."""

    def __init__(self, name: str, spaces: Spaces, **overrides) -> None:
        torch.manual_seed(0)
        self.agent = build(name, spaces, **SMALL[name], **overrides)
        self.model, self.program = self.agent.model, self.agent.learner.program
        for p in self.model.parameters():
            if p.ndim == 1:
                nn.init.normal_(p, std=0.2)
        self.slow = getattr(self.program, "slow", None)
        for p in () if self.slow is None else self.slow.parameters():
            nn.init.normal_(p, std=0.3)
        self.batch, self.posteriors, self.dreams = rows(spaces), [], []
        observe = self.model.observe_sequence
        self.model.observe_sequence = lambda b, *a, **k: self._keep(
            self.posteriors, observe(b, *a, **k)
        )
        if name != "planet":
            dream = self.program.dream
            self.program.dream = lambda *a: self._keep(self.dreams, dream(*a))
        torch.manual_seed(1)
        with torch.no_grad():
            self.losses = {n: t.detach() for n, t in self.program(self.batch).items()}

    @staticmethod
    def _keep(kept: list, found):
        kept.append(found)
        return found

    @property
    def total(self) -> float:
        """The scaled sum that the learner descends, of the recorded terms."""
        scales = self.agent.learner.scales
        return sum(scales.get(n, 1.0) * float(t.mean()) for n, t in self.losses.items())

    def model_loss(self) -> float:
        """The part of the total that belongs to the model."""
        scales = self.agent.learner.scales
        own = {n: t for n, t in self.losses.items() if n not in ("policy", "value")}
        return sum(scales.get(n, 1.0) * float(t.mean()) for n, t in own.items())

    def head(self, name: str, features: Tensor):
        with torch.no_grad():
            return self.model.heads[name](features)

    @property
    def features(self) -> Tensor:
        """[M, H + 1, F] of the dream."""
        found = self.dreams[0].features
        return getattr(found, "tensor", found).detach()

    @property
    def actions(self) -> Tensor:
        """[M, H, A] of the dream."""
        return self.dreams[0].actions.detach()


def half_square(x: Tensor) -> Tensor:
    """Minus the log-likelihood of a Gaussian of unit deviation, but for its constant."""
    return 0.5 * x.square()


def gaussian_kl(a, b) -> Tensor:
    one, other = (torch.distributions.Normal(x.mean, x.std) for x in (a, b))
    return torch.distributions.kl_divergence(one, other).sum(-1)


def categorical_kl(a, b) -> Tensor:
    one, other = (torch.distributions.Categorical(logits=x.log_probs) for x in (a, b))
    return torch.distributions.kl_divergence(one, other).sum(-1)


def reconstruction(update: Update) -> tuple[Tensor, Tensor]:
    """[B, T, F] posterior features, and minus the log-likelihood of what was seen."""
    posterior = update.posteriors[0]
    features = torch.cat([posterior.deter, posterior.stoch], -1)
    drawn = update.head("decoder", features).parts["vector"].mean
    return features, half_square(drawn - update.batch.obs["vector"]).sum(-1)


# -- the model's loss -----------------------------------------------------------------------------
def test_planet_subtracts_its_free_nats_in_every_state_and_weighs_rewards_tenfold():
    update = Update("planet", BOX, free_nats=0.9)
    posterior = update.posteriors[0]
    with torch.no_grad():
        kl = gaussian_kl(posterior.belief, update.model.rssm.prior(posterior.deter))
    assert 0 < float((kl < 0.9).sum()) < kl.numel()
    features, seen = reconstruction(update)
    reward = half_square(update.head("reward", features).mean - update.batch.reward)
    expected = float((seen + 10 * reward + (kl - 0.9).clamp(min=0)).mean())
    assert math.isclose(update.total, expected, rel_tol=1e-4)
    assert "continue" not in update.losses


@pytest.mark.parametrize("nats", [0.1, 30.0])
def test_v1_charges_the_mean_divergence_but_never_less_than_its_free_nats(nats):
    update = Update("dreamer_v1", BOX, free_nats=nats, predict_ending=True)
    posterior = update.posteriors[0]
    with torch.no_grad():
        kl = gaussian_kl(posterior.belief, update.model.rssm.prior(posterior.deter))
    features, seen = reconstruction(update)
    reward = half_square(update.head("reward", features).mean - update.batch.reward)
    chance = update.head("continue", features).mean
    goes_on = 0.99 * (~update.batch.terminated).float()
    ending = -(goes_on * chance.log() + (1 - goes_on) * (1 - chance).log())
    expected = float((seen + reward + 10 * ending).mean()) + max(float(kl.mean()), nats)
    assert math.isclose(update.model_loss(), expected, rel_tol=1e-4)


def test_v2_balances_both_sides_learns_tanh_rewards_and_the_discount():
    update = Update("dreamer_v2", CHOICE)
    posterior = update.posteriors[0]
    with torch.no_grad():
        kl = categorical_kl(posterior.belief, update.model.rssm.prior(posterior.deter))
    features, seen = reconstruction(update)
    reward = half_square(update.head("reward", features).mean - update.batch.reward.tanh())
    chance = update.head("continue", features).mean
    goes_on = 0.999 * (~update.batch.terminated).float()
    ending = -(goes_on * chance.log() + (1 - goes_on) * (1 - chance).log())
    # The two sides are equal in value; 0.8 and 0.2 share their gradient.
    expected = float((seen + reward + 5 * ending + 0.1 * kl).mean())
    assert math.isclose(update.model_loss(), expected, rel_tol=1e-4)
    assert update.agent.learner.scales["dynamics"] == pytest.approx(0.08)


# -- the behaviour's ------------------------------------------------------------------------------
def returns_on_the_state(reward, value, goes_on) -> Tensor:
    """R_t = r_t + c_t ((1 - lam) v_{t+1} + lam R_{t+1}), R_H = v_H: [M, n] from [M, n], [M, n + 1]."""
    found = torch.zeros_like(reward)
    for m in range(len(reward)):
        ahead = value[m, -1]
        for t in reversed(range(reward.shape[1])):
            mixed = 0.05 * value[m, t + 1] + 0.95 * ahead
            ahead = found[m, t] = reward[m, t] + goes_on[m, t] * mixed
    return found


@pytest.mark.parametrize("ending", [False, True])
def test_v1_counts_imagined_states_alone_and_weighs_from_the_first_of_them(ending):
    update = Update("dreamer_v1", BOX, predict_ending=ending)
    imagined = update.features[:, 1:]
    reward = update.head("reward", imagined).mean
    value = update.head("value", imagined).mean
    if ending:
        goes_on = update.head("continue", imagined).mean
    else:
        goes_on = torch.full_like(reward, 0.99)
    starts = B * (T - 1 if ending else T)
    assert reward.shape == (starts, H)
    returns = returns_on_the_state(reward[:, :-1], value, goes_on[:, :-1])
    weight = torch.ones_like(returns)
    for t in range(1, H - 1):
        weight[:, t] = weight[:, t - 1] * goes_on[:, t - 1]
    actor = -(weight * returns).mean()
    critic = (weight * half_square(value[:, :-1] - returns)).mean()
    assert math.isclose(float(update.losses["policy"].mean()), float(actor), rel_tol=1e-4)
    assert math.isclose(float(update.losses["value"].mean()), float(critic), rel_tol=1e-4)


@pytest.mark.parametrize(
    ("spaces", "rho", "eta", "options"),
    [
        (CHOICE, 1.0, 1e-3, {}),
        (BOX, 0.0, 1e-4, {"behaviour__entropy": 1e-4}),
        (BOX, 0.9, 1e-3, {"behaviour__estimator": "both"}),
    ],
)
def test_v2_scores_an_action_by_the_target_behind_it_with_slow_values(spaces, rho, eta, options):
    update = Update("dreamer_v2", spaces, **options)
    features = update.features
    reward = update.head("reward", features).mean
    with torch.no_grad():
        slow = update.slow(features).mean
    goes_on = update.head("continue", features).mean
    goes_on[:, 0] = 0.999 * (~update.batch.terminated).float().flatten()
    target = returns_on_the_state(reward[:, :-1], slow, goes_on[:, :-1])
    weight = torch.ones(B * T, H)
    for t in range(1, H):
        weight[:, t] = weight[:, t - 1] * goes_on[:, t - 1]
    policy = update.head("policy", features[:, : H - 1])
    log_prob = policy.log_prob(update.actions[:, : H - 1])
    advantage = target[:, 1:] - slow[:, : H - 1]
    gain = rho * log_prob * advantage + (1 - rho) * target[:, 1:] + eta * policy.entropy()
    actor = -(weight[:, : H - 1] * gain).mean()
    value = update.head("value", features[:, :H]).mean
    critic = (weight * half_square(value - target)).mean()
    assert math.isclose(float(update.losses["policy"].mean()), float(actor), rel_tol=1e-3)
    assert math.isclose(float(update.losses["value"].mean()), float(critic), rel_tol=1e-3)
    assert spaces.discrete or isinstance(policy, TruncatedNormal)
