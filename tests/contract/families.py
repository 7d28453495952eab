"""One member of each model family, an agent of each, and data for them: what contract tests run over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from toys import ToyDreamer4, ToyMuZero, ToyRSSM, random_batch, vector_spaces

from wm_toolkit.agents.actors import PlanningActor, PolicyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.batch import Batch
from wm_toolkit.encoders.dinov2 import DINOv2
from wm_toolkit.encoders.vit import ViT
from wm_toolkit.models.base import WorldModel
from wm_toolkit.models.dino_wm import DinoWM
from wm_toolkit.models.lewm import LeWorldModel, Predictor
from wm_toolkit.planning.categorical import CategoricalCEM
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Goal, Objective, Reward
from wm_toolkit.registry import recipe
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.optimizer import adamw


def image_spaces() -> Spaces:
    image = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    return Spaces({"image": image}, gym.spaces.Box(-1, 1, (2,), np.float32)).blocked(2)


def small_lewm(spaces: Spaces | None = None) -> LeWorldModel:
    encoder = ViT(image_size=16, patch=8, width=24, layers=2, heads=2)
    predictor = Predictor(8, width=12, layers=2, heads=2, head_width=8, hidden=16)
    return LeWorldModel(
        spaces or image_spaces(),
        encoder,
        predictor,
        projector_hidden=16,
        action_hidden=8,
        image_size=16,
    )


def proprio_spaces() -> Spaces:
    proprio = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    made = image_spaces()
    return dataclasses.replace(made, observation={**made.observation, "proprio": proprio})


def small_dino_wm(spaces: Spaces) -> DinoWM:
    """As first published: actions and places are appended to and added to the tokens."""
    predictor = Predictor(
        384 + 10, tokens=4, conditioning="concat", condition=10, layers=2, heads=2, head_width=8,
        hidden=16,
    )  # fmt: skip
    return DinoWM(spaces, frozen_encoder(), predictor)


def small_jepa_wm(spaces: Spaces) -> DinoWM:
    """The same with modulated blocks, rotary positions and a short look back."""
    predictor = Predictor(
        384 + 16, tokens=4, width=24, history=5, layers=2, heads=2, head_width=12, hidden=16,
        positions="rotary", window=2, inner_norms=False, modulation_std=0.2,
    )  # fmt: skip
    return DinoWM(spaces, frozen_encoder(), predictor, proprio_width=16, rollout_steps=2)


def frozen_encoder() -> DINOv2:
    return DINOv2(image_size=28, block=0, weights="random")


def cem() -> CEM:
    return CEM(horizon=3, samples=12, elites=4, iterations=2)


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family is made, trained on and acted with.

    Attributes:
        spaces: of its observations and actions.
        model: from spaces.
        length: rows of a training window.
        objective: what its planners look for.
        actor: from a model.
    """

    spaces: Callable[[], Spaces]
    model: Callable[[Spaces], WorldModel]
    length: int
    objective: Objective
    actor: Callable[[WorldModel], Any]

    def batch(self, rows: int = 4, seed: int = 0) -> Batch:
        return random_batch(self.spaces(), rows, self.length, seed)

    def obs(self, rows: int = 4, seed: int = 0) -> dict[str, Tensor]:
        """[B, ...] observations, and as many goals."""
        seen = self.batch(rows, seed).obs
        goals = {f"goal/{key}": value[:, 1] for key, value in seen.items()}
        return {key: value[:, 0] for key, value in seen.items()} | goals

    def agent(self, spaces: Spaces) -> Agent:
        model = self.model(spaces)
        learner = ModelLearner(model, optimizer=adamw(1e-2), scales={}, clip=1.0)
        return Agent(model, self.actor(model), learner)


FAMILIES = {
    "rssm": Family(
        vector_spaces,
        ToyRSSM,
        5,
        Reward(),
        lambda model: PlanningActor(model, cem(), Reward(), replan_every=2),
    ),
    "muzero": Family(
        lambda: vector_spaces(gym.spaces.Discrete(3)),
        ToyMuZero,
        5,
        Reward(),
        lambda model: PlanningActor(
            model, CategoricalCEM(horizon=3, samples=12, elites=4, iterations=2), Reward()
        ),
    ),
    "dreamer4": Family(vector_spaces, ToyDreamer4, 4, Reward(), PolicyActor),
    "lewm": Family(
        image_spaces,
        small_lewm,
        4,
        Goal(),
        lambda model: PlanningActor(model, cem(), Goal(), replan_every=2),
    ),
    "dino_wm": Family(
        proprio_spaces,
        small_dino_wm,
        4,
        Goal(),
        lambda model: PlanningActor(model, cem(), Goal(), replan_every=2),
    ),
    "jepa_wm": Family(
        proprio_spaces,
        small_jepa_wm,
        4,
        Goal(),
        lambda model: PlanningActor(model, cem(), Goal(), replan_every=2),
    ),
}


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    """Which family a toy recipe builds."""

    family: str = "rssm"


@recipe(
    "toy_of_the_contract_tests",
    ToyConfig,
    presets={name: ToyConfig(name) for name in FAMILIES},
)
def toy(spaces: Spaces, config: ToyConfig) -> Agent:
    """A toy of one family."""
    return FAMILIES[config.family].agent(spaces)


def state_of(model: WorldModel, obs: dict[str, Tensor]) -> Any:
    """[B] states after one observation."""
    rows = len(next(iter(obs.values())))
    action = torch.zeros(rows, model.spaces.action_width)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return model.observe(model.initial(rows), action, obs, generator=generator)
