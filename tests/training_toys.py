"""A tiny world model and source for tests of training: quick, noisy (dropout), with a batch statistic."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from wm_toolkit.agents.actors import RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.batch import Batch, Losses
from wm_toolkit.models.base import WorldModel
from wm_toolkit.nn.distributed import mean_over_processes
from wm_toolkit.nn.norm import BatchNorm
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct
from wm_toolkit.training.optimizer import adamw, warmup_cosine

SPACES = Spaces(
    {"vector": gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)},
    gym.spaces.Box(-1, 1, (2,), np.float32),
)


@dataclasses.dataclass(frozen=True)
class Latent(Struct):
    z: Tensor


class Toy(WorldModel[Latent]):
    """z = encoder(obs); z' = predictor(z, action); optional BatchNorm, dropout and batch statistic."""

    def __init__(
        self, *, dropout: float = 0.0, norm: bool = False, statistic: bool = False
    ) -> None:
        super().__init__(SPACES)
        # A bias before a norm has no gradient but rounding, which Adam would blow up to full steps.
        self.encoder = nn.Linear(3, 4, bias=not norm)
        self.norm = BatchNorm(4) if norm else nn.Identity()
        self.predictor = nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 4)
        )
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.statistic, self.pieces = statistic, 1

    def initial(self, batch_size: int) -> Latent:
        return Latent(torch.zeros(batch_size, 4, device=self.device))

    def encode(self, x: Tensor) -> Tensor:
        return self.norm(self.encoder(x))

    def observe(
        self, state: Latent, action: Tensor, obs: dict[str, Tensor], *, generator: Any = None
    ) -> Latent:
        return Latent(self.encode(obs["vector"]))

    def imagine(self, state: Latent, action: Tensor, *, generator: Any = None) -> Latent:
        return Latent(self.predictor(torch.cat([state.z, action], -1)))

    def features(self, state: Latent) -> Tensor:
        return state.z

    def loss(self, batch: Batch) -> Losses:
        z = self.encode(batch.obs["vector"])
        predicted = self.predictor(torch.cat([z[:, :-1], batch.action[:, :-1]], -1))
        size = (self.frozen(z) - z).square().mean(-1)
        losses = {"prediction": (predicted - z[:, 1:]).square().mean(-1), "size": size}
        if self.statistic:
            power = mean_over_processes(z.square().mean((0, 1)))
            losses["statistic"] = (power - 1).square().sum()
        return losses

    def microbatches(self, pieces: int) -> bool:
        self.pieces = pieces
        return self.statistic


def toy_agent(seed: int = 0, *, lr: float = 0.01, **options: Any) -> Agent:
    """A toy with a learner; `options` of both."""
    mine = {k: options.pop(k) for k in ("dropout", "norm", "statistic") if k in options}
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = Toy(**mine)
    learner = ModelLearner(
        model,
        optimizer=adamw(lr, weight_decay=0.01),
        **{"schedule": warmup_cosine(50, 3), "clip": 1.0} | options,
    )
    return Agent(model, RandomActor(model), learner)


def toy_batch(generator: torch.Generator, size: int = 8, length: int = 4) -> Batch:
    """Linear dynamics; some windows end in padding, and windows have different weights."""
    action = torch.rand(size, length, 2, generator=generator) * 2 - 1
    start = torch.randn(size, 1, 3, generator=generator)
    mixing = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]])
    moved = torch.cat([torch.zeros(size, 1, 3), (action @ mixing)[:, :-1].cumsum(1)], 1)
    real = torch.randint(2, length + 1, (size, 1), generator=generator)
    first = torch.zeros(size, length, dtype=torch.bool)
    first[:, 0] = True
    return Batch(
        {"vector": start + moved},
        action,
        first,
        mask=torch.arange(length) < real,
        weight=torch.rand(size, generator=generator) + 0.5,
    )


class ToySource:
    """Batches from a seeded generator; this process's share of every global batch."""

    def __init__(self, seed: int = 0, *, size: int = 8, rank: int = 0, processes: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.size, self.rank, self.processes = size, rank, processes
        self.drawn = 0

    spaces = SPACES

    def __iter__(self) -> ToySource:
        return self

    def __next__(self) -> Batch:
        self.drawn += 1
        batch = toy_batch(self.generator, self.size)
        share = self.size // self.processes
        return batch[self.rank * share : (self.rank + 1) * share]

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state().tolist(), "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))
        self.drawn = state["drawn"]


@dataclasses.dataclass(frozen=True)
class Seen(Struct):
    """What an `Eyes` saw last: position [B, n]."""

    position: Tensor


class Eyes(WorldModel[Seen]):
    """Knows its one observation, a vector, and remembers every look [B, n]."""

    def __init__(self, spaces: Spaces) -> None:
        super().__init__(spaces)
        (self.key,) = spaces.observation
        self.looks: list[np.ndarray] = []

    def initial(self, batch_size: int) -> Seen:
        return Seen(torch.zeros(batch_size, *(self.spaces.observation[self.key].shape or ())))

    def observe(
        self, state: Seen, action: Tensor, obs: dict[str, Tensor], *, generator: Any = None
    ) -> Seen:
        self.looks.append(obs[self.key].numpy().copy())
        return Seen(obs[self.key])

    def imagine(self, state: Seen, action: Tensor, *, generator: Any = None) -> Seen:
        return state

    def features(self, state: Seen) -> Tensor:
        return state.position

    def loss(self, batch: Batch) -> Losses:
        return {}
