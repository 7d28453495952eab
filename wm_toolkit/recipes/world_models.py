"""World Models: see, remember, and let a linear controller grow up in the dream (Ha and Schmidhuber 2018)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import nn

from wm_toolkit.agents.actors import PolicyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.evolution import EvolutionLearner
from wm_toolkit.agents.fitness import DreamFitness, EnvFitness, Fitness
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.agents.recorded import recording
from wm_toolkit.agents.staged import Part, Stage, StagedLearner, train_only
from wm_toolkit.config import check_ranges
from wm_toolkit.envs.dream import Termination
from wm_toolkit.envs.make import make_vec
from wm_toolkit.errors import ConfigError
from wm_toolkit.heads.controller import Controller, Squash
from wm_toolkit.models.mdn_rnn import MDNRNN, Choices
from wm_toolkit.planning.objective import Survival
from wm_toolkit.registry import recipe
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.config import ReturnConfig, TrainConfig
from wm_toolkit.training.staged_source import StageData
from wm_toolkit.training.stages import StagedConfig, train_in_stages


@dataclasses.dataclass(frozen=True)
class WorldModelsConfig(StagedConfig):
    """Hyper-parameters; the defaults are those of CarRacing.

    Attributes:
        latent: Z.
        width: H, units of the LSTM.
        depth: channels of V's first convolution.
        log_variance: of z at first, see `VAEEncoder`.
        components: Gaussians of a mixture.
        shared_mixture: one choice of component for all of z (the port of Tallec et al.).
        restart: the LSTM is told where an episode begins.
        ending: M learns where episodes terminate.
        cell: the controller reads [z, c, h], not [z, h].
        choices: how M reads a choice among n.
        squash: how the controller's outputs become actions, see `Controller`; "auto" takes "tanh" for a
            Box, "level" or "one_hot" for a choice, as `choices` says.
        controller_bias: of its layer.
        floor: free nats per number of z.
        terminal_weight: of terminating rows in the loss of the ending.
        vision_updates, vision_batch, vision_rate: of V: updates, frames of a batch, learning rate.
        memory_updates, memory_rate: of M; its batches are `train.batch_size` windows of `sequence` rows.
        memory_decay: factor on M's learning rate after every update, which ends at a hundredth.
        memory_clip: every element of M's gradient is cut to this.
        fitness: where controllers are measured: "dream" or "real".
        temperature: of dreams (the paper's best 1.15; the released code trains at 1.25).
        termination: how a dream ends, see `WorldModelEnv`; as published a done logit above 0 ("likely").
        horizon: steps after which a dream is cut.
        population, sigma: of CMA-ES.
        starts: R, dreams or episodes of each member.
        remeasure: generations from one champion to the next.

    Raises:
        ConfigError: for a number out of range.
    """

    latent: int = 32
    width: int = 256
    depth: int = 32
    log_variance: float = 0.0
    components: int = 5
    shared_mixture: bool = False
    restart: bool = False
    ending: bool = False
    cell: bool = False
    choices: Choices = "level"
    squash: Squash | Literal["auto"] = "auto"
    controller_bias: bool = True
    floor: float = 0.5
    terminal_weight: float = 10.0
    vision_updates: int = 1_000_000
    vision_batch: int = 100
    vision_rate: float = 1e-4
    memory_updates: int = 4_000
    memory_rate: float = 1e-3
    memory_decay: float = 1.0
    memory_clip: float = 1.0
    fitness: Literal["dream", "real"] = "real"
    temperature: float = 1.0
    termination: Termination = "likely"
    horizon: int = 1_000
    population: int = 64
    sigma: float = 0.1
    starts: int = 16
    remeasure: int = 25
    observations: tuple[str, ...] = ("image",)
    sequence: int = 999
    envs: int = 16
    train: TrainConfig = TrainConfig(
        updates=1_005_800, batch_size=100, clip=None, checkpoint_every=1000
    )
    evaluation: ReturnConfig = ReturnConfig(episodes=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        updates = ("vision_updates", "memory_updates")
        counts = (*updates, "vision_batch", "horizon", "starts")
        check_ranges(self, {"[1, inf)": counts}, temperature="(0, inf)")
        if self.fitness == "dream" and not self.ending:
            raise ConfigError(
                "dreams pay for survival here, so M must learn endings; set ending=true, or fitness='real'"
            )

    @property
    def stages(self) -> tuple[StageData, ...]:
        """V on single frames, M on codes of sequences, C from the beginnings of episodes; or C alone."""
        vision = StageData(self.vision_updates, 1, self.vision_batch, dreams=False)
        memory = StageData(self.memory_updates, self.sequence, self.train.batch_size, reads="codes")
        real = self.fitness == "real"
        reads = "frames" if real else "both"
        controller = StageData(1, 1, self.starts, "first", reads, plays=real)
        return (controller,) if self.frozen_model else (vision, memory, controller)


CAR_RACING = WorldModelsConfig(squash="car")
TAKE_COVER = WorldModelsConfig(
    latent=64,
    width=512,
    restart=True,
    ending=True,
    cell=True,
    controller_bias=False,
    vision_updates=210_000,
    memory_decay=0.99999,
    fitness="dream",
    temperature=1.15,
    horizon=2_100,
    sequence=500,
    train=TrainConfig(updates=216_000, batch_size=100, clip=None, checkpoint_every=1000),
)
SMALL = dataclasses.replace(
    TAKE_COVER,
    latent=16,
    width=128,  # 64 are too few once V sees well: two of three seeds then evolve nothing
    depth=8,
    log_variance=-4.0,
    rollouts=400,
    rollout_steps=300,
    sticky=0.8,
    envs=50,
    vision_updates=3_000,
    vision_batch=32,
    vision_rate=3e-3,
    memory_updates=1_000,
    memory_rate=3e-3,
    memory_decay=0.998,
    termination="sampled",
    horizon=300,
    population=16,
    sequence=48,
    train=TrainConfig(updates=4_075, batch_size=32, clip=None, checkpoint_every=500),
)


@recipe(
    "world_models",
    WorldModelsConfig,
    presets={"car_racing": CAR_RACING, "take_cover": TAKE_COVER, "small": SMALL},
    about={
        "car_racing": "the published CarRacing: Z 32, C of 867 numbers evolved in the real game",
        "take_cover": "the published VizDoom TakeCover: Z 64, C of 1,088 numbers evolved in the dream",
        "small": "learns wm_toolkit/Dodge-v0 on one CPU core in minutes, C in the dream",
    },
    job=train_in_stages,
)
def world_models(spaces: Spaces, config: WorldModelsConfig) -> Agent:
    """VAE, recurrent mixture density network and an evolved linear controller."""
    model = MDNRNN(
        spaces,
        latent=config.latent,
        width=config.width,
        depth=config.depth,
        log_variance=config.log_variance,
        components=config.components,
        shared_mixture=config.shared_mixture,
        restart=config.restart,
        ending=config.ending,
        cell=config.cell,
        choices=config.choices,
        floor=config.floor,
        terminal_weight=config.terminal_weight,
    )
    model.temperature = config.temperature
    controller = Controller(
        spaces, model.features_width, squash=_squash(spaces, config), bias=config.controller_bias
    )
    model.heads["policy"] = controller
    seeing = [] if config.frozen_model else [_vision(model, config), _memory(model, config)]
    stages = [*seeing, _controller(model, config)]
    return Agent(model, PolicyActor(model), StagedLearner(model, stages))


def _squash(spaces: Spaces, config: WorldModelsConfig) -> Squash:
    if config.squash != "auto":
        return config.squash
    return config.choices if spaces.discrete else "tanh"


def _vision(model: MDNRNN, config: WorldModelsConfig) -> Stage:
    train_only(model, model.vision())
    learner = ModelLearner(
        model,
        optimizer=partial(torch.optim.Adam, lr=config.vision_rate),
        clip=config.train.clip,
        record=recording(config.train.cuda_graphs),
        program=Part(model, "vision_loss"),
    )
    return Stage("vision", config.vision_updates, model.vision(), learner)


def _memory(model: MDNRNN, config: WorldModelsConfig) -> Stage:
    train_only(model, model.memory())
    learner = ModelLearner(
        model,
        optimizer=clipping(partial(torch.optim.Adam, lr=config.memory_rate), config.memory_clip),
        schedule=lambda update: max(0.01, config.memory_decay**update),
        clip=config.train.clip,
        record=recording(config.train.cuda_graphs),
        program=Part(model, "memory_loss"),
    )
    return Stage("memory", config.memory_updates, model.memory(), learner)


def _controller(model: MDNRNN, config: WorldModelsConfig) -> Stage:
    learner = EvolutionLearner(
        model,
        model.heads["policy"],
        _fitness(model, config),
        population=config.population,
        sigma=config.sigma,
        remeasure=config.remeasure,
        seed=config.train.seed,
    )
    return Stage("controller", 1, (), learner)


def _fitness(model: MDNRNN, config: WorldModelsConfig) -> Fitness:
    if config.fitness == "dream":
        return DreamFitness(
            model, Survival(), horizon=config.horizon, termination=config.termination
        )
    return EnvFitness(model, partial(_open, config.evaluation), episodes=config.starts)


def _open(protocol: ReturnConfig, rows: int) -> gym.vector.VectorEnv:
    """The real environment, side by side."""
    if not protocol.env:
        raise ConfigError(
            "fitness='real' needs an environment: train with --env, or set evaluation.env"
        )
    options: Mapping[str, Any] = protocol.env_options
    return make_vec(protocol.env, rows, **options)


def clipping(
    make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], limit: float
) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """An optimiser that first cuts every element of the gradient to [-limit, limit]."""

    def build(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        own = list(parameters)
        optimizer = make(own)
        optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_value_(own, limit))
        return optimizer

    return build
