"""Tiny but honest members of each model family, to prove that the contracts carry them all."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.heads.bernoulli import BernoulliHead
from wm_toolkit.heads.normal import NormalHead
from wm_toolkit.heads.onehot import OneHotHead
from wm_toolkit.heads.twohot import TwoHotHead
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.window import Window, empty, push
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct, stack

BOX = gym.spaces.Box(-1, 1, (2,), np.float32)


def vector_spaces(action: gym.Space = BOX) -> Spaces:
    return Spaces({"vector": gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)}, action)


def random_batch(spaces: Spaces, rows: int = 4, length: int = 5, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    width = spaces.action_width
    if spaces.action_groups:
        choice = torch.randint(0, width, (rows, length), generator=rng)
        action = functional.one_hot(choice, width).float()
    else:
        action = torch.rand(rows, length, width, generator=rng) * 2 - 1
    obs = {}
    for key, space in spaces.observation.items():
        shape = (rows, length, *space.shape)
        if space.dtype == np.uint8:
            obs[key] = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
        else:
            obs[key] = torch.randn(shape, generator=rng)
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    first[1, length // 2] = True
    flags = torch.zeros(rows, length, dtype=torch.bool)
    reward = torch.randn(rows, length, generator=rng)
    return Batch(obs, action, first, reward, flags, flags)


@dataclasses.dataclass(frozen=True)
class RSSMState(Struct):
    deter: Tensor
    stoch: Tensor
    mean: Tensor
    std: Tensor


class ToyRSSM(WorldModel[RSSMState]):
    """Deterministic GRU and Gaussian latent, as in PlaNet and Dreamer V1."""

    stochastic = True
    DETER, STOCH = 8, 4

    def __init__(self, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.gru = nn.GRUCell(self.STOCH + spaces.action_width, self.DETER)
        self.prior = NormalHead(self.DETER, self.STOCH, learned_std=True)
        self.posterior = NormalHead(self.DETER + 3, self.STOCH, learned_std=True)
        width = self.DETER + self.STOCH
        self.heads["decoder"] = NormalHead(width, 3)
        self.heads["reward"] = NormalHead(width)
        self.heads["continue"] = BernoulliHead(width)

    def initial(self, batch_size: int) -> RSSMState:
        zero = torch.zeros(batch_size, self.STOCH)
        return RSSMState(torch.zeros(batch_size, self.DETER), zero, zero, zero + 1)

    def _advance(self, state: RSSMState, action: Tensor) -> Tensor:
        return self.gru(torch.cat([state.stoch, action], -1), state.deter)

    def observe(self, state, action, obs, *, generator=None) -> RSSMState:
        deter = self._advance(state, action)
        out = self.posterior(torch.cat([deter, obs["vector"]], -1))
        return RSSMState(deter, out.sample(generator), out.mean, out.std)

    def imagine(self, state, action, *, generator=None) -> RSSMState:
        deter = self._advance(state, action)
        out = self.prior(deter)
        return RSSMState(deter, out.sample(generator), out.mean, out.std)

    def features(self, state: RSSMState) -> Tensor:
        return torch.cat([state.deter, state.stoch], -1)

    def loss(self, batch: Batch) -> Losses:
        post = self.observe_sequence(batch)
        prior = self.prior(post.deter)
        q = torch.distributions.Normal(post.mean, post.std)
        p = torch.distributions.Normal(prior.mean, prior.std)
        kl = torch.distributions.kl_divergence(q, p).sum(-1)
        return {
            "reconstruction": self.predict("decoder", post).loss(batch.obs["vector"]),
            "reward": self.predict("reward", post).loss(batch.reward),
            "continue": self.predict("continue", post).loss((~batch.terminated).float()),
            "kl": kl.clamp(min=0.1),
        }


@dataclasses.dataclass(frozen=True)
class Latent(Struct):
    latent: Tensor


class ToyMuZero(WorldModel[Latent]):
    """Representation, dynamics, and reward, value and policy heads unrolled over K steps."""

    WIDTH, UNROLL = 8, 3

    def __init__(self, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.representation = nn.Linear(3, self.WIDTH)
        self.dynamics = nn.Linear(self.WIDTH + spaces.action_width, self.WIDTH)
        self.heads["reward"] = TwoHotHead(self.WIDTH, bins=21, limit=10, scale="linear")
        self.heads["value"] = TwoHotHead(self.WIDTH, bins=21, limit=10, scale="linear")
        self.heads["policy"] = OneHotHead(self.WIDTH, spaces.action_groups)

    def initial(self, batch_size: int) -> Latent:
        return Latent(torch.zeros(batch_size, self.WIDTH))

    def observe(self, state, action, obs, *, generator=None) -> Latent:
        return Latent(self.representation(obs["vector"]).tanh())

    def imagine(self, state, action, *, generator=None) -> Latent:
        return Latent(self.dynamics(torch.cat([state.latent, action], -1)).tanh())

    def features(self, state: Latent) -> Tensor:
        return state.latent

    def loss(self, batch: Batch) -> Losses:
        state = self.observe(None, None, {"vector": batch.obs["vector"][:, 0]})
        states = [state]
        for k in range(self.UNROLL):
            states.append(self.imagine(states[-1], batch.action[:, k]))
        root_and_dreams = stack(states, 1)
        dreams = stack(states[1:], 1)
        rows = slice(0, self.UNROLL + 1)
        return {
            "reward": self.predict("reward", dreams).loss(batch.reward[:, 1 : self.UNROLL + 1]),
            "value": self.predict("value", root_and_dreams).loss(batch.reward[:, rows]),
            "policy": self.predict("policy", root_and_dreams).loss(batch.action[:, rows]),
        }


class ToyDreamer4(WorldModel[Window]):
    """A frozen tokenizer, and dynamics that denoise the next frame's latents in K steps."""

    stochastic = True
    TOKENS, WIDTH, HISTORY, STEPS = 2, 4, 3, 2

    def __init__(self, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.tokenizer = nn.Linear(3, self.TOKENS * self.WIDTH).requires_grad_(False)
        flat = self.TOKENS * self.WIDTH
        self.dynamics = nn.Sequential(
            nn.Linear(flat * (self.HISTORY + 1) + spaces.action_width + 1, 16),
            nn.SiLU(),
            nn.Linear(16, flat),
        )
        self.heads["reward"] = TwoHotHead(flat)
        self.heads["policy"] = NormalHead(flat, spaces.action_width, learned_std=True)

    def initial(self, batch_size: int) -> Window:
        like = self.tokenizer.weight
        shape = (self.TOKENS, self.WIDTH)
        return empty(batch_size, self.HISTORY, shape, self.spaces.action_width, like)

    def tokens(self, vector: Tensor) -> Tensor:
        return self.tokenizer(vector).tanh().unflatten(-1, (self.TOKENS, self.WIDTH))

    def observe(self, state, action, obs, *, generator=None) -> Window:
        return push(state, action, self.tokens(obs["vector"]))

    def denoise(self, past: Tensor, action: Tensor, noisy: Tensor, signal: float) -> Tensor:
        level = torch.full_like(action[..., :1], signal)
        flat = [past.flatten(1), noisy.flatten(1), action, level]
        return self.dynamics(torch.cat(flat, -1)).view_as(noisy)

    def imagine(self, state, action, *, generator=None) -> Window:
        z = torch.empty_like(state.newest).normal_(generator=generator)
        for step in range(self.STEPS):
            signal = step / self.STEPS
            clean = self.denoise(state.tokens, action, z, signal)
            z = z + (clean - z) / (1 - signal) / self.STEPS
        return push(state, action, z)

    def features(self, state: Window) -> Tensor:
        return state.newest.flatten(-2)

    def loss(self, batch: Batch) -> Losses:
        frames = self.tokens(batch.obs["vector"][:, : self.HISTORY + 1])
        past, target = frames[:, :-1], frames[:, -1]
        noise = torch.randn_like(target)
        action = batch.action[:, self.HISTORY - 1]
        flow = self.denoise(past, action, 0.5 * (noise + target), 0.5) - target
        state = Window(frames[:, 1:], batch.action[:, : self.HISTORY - 1], batch.is_first.sum(1))
        return {
            "flow": flow.square().mean((-2, -1)).unsqueeze(1),
            "reward": self.predict("reward", state).loss(batch.reward[:, -1]).unsqueeze(1),
            "behaviour": self.predict("policy", state).loss(batch.action[:, -1]).unsqueeze(1),
        }
