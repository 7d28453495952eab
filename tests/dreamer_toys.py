"""Models of the Dreamer family in small, sequences for them, and one whose dreams are known exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch, Losses
from wm_toolkit.encoders.observations import ObservationEncoder
from wm_toolkit.heads.bernoulli import Bernoulli, BernoulliHead
from wm_toolkit.heads.normal import NormalHead, Regression
from wm_toolkit.heads.observations import ObservationHead
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.dreamer import KL, Dreamer
from wm_toolkit.models.rssm import RSSM, DenseCore, Gaussian, GaussianBelief
from wm_toolkit.recipes.dreamer_v3 import Size, world_model
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct

SMALL = Size(deter=16, units=8, classes=3, depth=1)
BOX = gym.spaces.Box(-1, 1, (2,), np.float32)
SPACES = {
    "vector": Spaces({"vector": gym.spaces.Box(-9, 9, (3,), np.float32)}, BOX),
    "image": Spaces({"image": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)}, BOX),
    "several": Spaces(
        {
            "camera": gym.spaces.Box(0, 255, (64, 64, 1), np.uint8),
            "joints": gym.spaces.Box(-9, 9, (3,), np.float32),
            "mode": gym.spaces.Discrete(4),
        },
        gym.spaces.Discrete(3),
    ),
}
NUMBERS = SPACES["vector"]
CHOICES = dataclasses.replace(NUMBERS, action=gym.spaces.Discrete(3))
WIDTHS: dict[str, dict] = {
    "dreamer_v3": {"size": Size(16, 8, 3, 1, latents=4)},
    "dreamer_v2": {"deter": 8, "latents": 3, "classes": 3, "layers": 1, "units": 8, "depth": 1},
    "dreamer_v1": {"deter": 8, "hidden": 8, "stoch": 4, "units": 8, "depth": 1},
    "planet": {"deter": 8, "stoch": 4, "units": 8, "reward_units": 8, "depth": 1},
}


def small_agent(name: str, spaces: Spaces = NUMBERS, **settings) -> Agent:
    """A recipe of the family, or a preset of it, at the least widths that show everything."""
    torch.manual_seed(0)
    return build(name, spaces, **WIDTHS[name.partition(".")[0]] | settings)


def categorical_dreamer(name: str = "vector") -> Dreamer:
    """Dreamer V3 in small; its reward head is not left at zero."""
    torch.manual_seed(0)
    model = world_model(SPACES[name], SMALL)
    for part in model.heads["reward"].modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.1)
    return model.eval()


def gaussian_dreamer(cell: Callable[[int, int], nn.Module] = nn.GRUCell) -> Dreamer:
    """PlaNet in small: a dense core and a Gaussian latent, over the "vector" spaces."""
    torch.manual_seed(0)
    spaces = SPACES["vector"]
    core = DenseCore(cell(8, 16), nn.Sequential(nn.Linear(4 + 2, 8), nn.ReLU()), 16)
    rssm = RSSM(core, nn.Linear(16, 8), nn.Linear(21, 8), GaussianBelief(4))
    encoder = ObservationEncoder(spaces, vector=nn.Linear(3, 5), vector_width=5, squash=False)
    head = ObservationHead(trunk=nn.Linear(20, 8), reads={"vector": nn.Linear(8, 3)}, squash=False)
    kl = KL("one", 0.0, "subtract")
    reward, ending = NormalHead(20), BernoulliHead(20)
    model = Dreamer(spaces, rssm, encoder, decoder=head, reward=reward, ending=ending, kl=kl)
    return model.eval()


def sequences(spaces: Spaces, rng: torch.Generator, rows: int = 3, length: int = 8) -> Batch:
    """Random rows [B, T] of one episode each."""
    obs = {}
    for key, space in spaces.observation.items():
        shape = (rows, length, *(space.shape or ()))
        if space.dtype == np.uint8:
            obs[key] = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
        elif isinstance(space, gym.spaces.Discrete):
            obs[key] = torch.randint(0, int(space.n), shape, generator=rng)
        else:
            obs[key] = torch.randn(shape, generator=rng)
    action = torch.rand(rows, length, spaces.action_width, generator=rng) * 2 - 1
    if spaces.action_groups:
        action = functional.one_hot(action.argmax(-1), spaces.action_width).float()
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    ended = torch.zeros_like(first)
    return Batch(obs, action, first, torch.randn(rows, length, generator=rng), ended, ended)


@dataclasses.dataclass(frozen=True)
class Place(Struct):
    """Where a drifting point is, and what that was drawn from."""

    x: Tensor
    belief: Gaussian


class Drift(WorldModel[Place]):
    """Sees its place and believes that an action moves it by `gain` times the action, give or take 0.5.

    The reward head reads the place, the continue head is `discount` where the place is below `limit`.
    """

    def __init__(self, gain: float = 1.0, *, limit: float = 1e9, discount: float = 1.0) -> None:
        space = gym.spaces.Box(-99, 99, (1,), np.float32)
        super().__init__(Spaces({"x": space}, gym.spaces.Box(-1, 1, (1,), np.float32)))
        self.gain, self.discount = gain, discount
        self.heads["reward"] = FirstFeature()
        self.heads["continue"] = _Below(limit, discount)
        self.heads["decoder"] = _Draws()

    def initial(self, batch_size: int) -> Place:
        return self._at(torch.zeros(batch_size, 1))

    def observe(self, state, action, obs, *, generator=None) -> Place:
        return self._at(obs["x"])

    def imagine(self, state, action, *, generator=None) -> Place:
        return self._at(state.x + self.gain * action)

    def features(self, state) -> Tensor:
        return state.x

    def loss(self, batch: Batch) -> Losses:
        return {}

    @staticmethod
    def _at(x: Tensor) -> Place:
        return Place(x, Gaussian(x, torch.full_like(x, 0.5)))


class FirstFeature(nn.Module):
    """A reward head that reads one feature."""

    def forward(self, features: Tensor) -> Regression:
        mean = features[..., 0]
        return Regression(mean, torch.ones_like(mean), 0)


class _Below(nn.Module):
    def __init__(self, limit: float, discount: float) -> None:
        super().__init__()
        self.limit, self.discount = limit, discount

    def forward(self, features: Tensor) -> Bernoulli:
        chance = self.discount * (features[..., 0] < self.limit).float()
        return Bernoulli(chance.clamp(1e-6, 1 - 1e-6).logit())


class _Draws(nn.Module):
    """Draws the place and, as brightness, a picture of it."""

    def forward(self, features: Tensor) -> Regression:
        @dataclasses.dataclass
        class Parts:
            parts: dict

        picture = features[..., None, None].expand(*features.shape[:-1], 4, 4, 1) / 10
        return Parts({"x": Regression(features, features), "view": Regression(picture, picture)})  # type: ignore[return-value]


def drifting(rows: int = 4, length: int = 8, gain: float = 1.0) -> Batch:
    """What a point that moves by `gain` times the action goes through; its reward is its place."""
    rng = torch.Generator().manual_seed(3)
    action = torch.rand(rows, length, 1, generator=rng)
    x = torch.cat([torch.zeros(rows, 1, 1), gain * action[:, :-1].cumsum(1)], 1)
    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    view = (x / 10 * 255).round().byte()[..., None, None].expand(rows, length, 4, 4, 1)
    ended = torch.zeros_like(first)
    return Batch({"x": x, "view": view}, action, first, x[..., 0], ended, ended)
