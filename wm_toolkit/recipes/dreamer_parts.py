"""What the recipes of the Dreamer family have in common: networks around an RSSM, and the learner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import nn

from wm_toolkit.agents.actor_critic import ActorCritic
from wm_toolkit.agents.behaviour import BehaviourConfig
from wm_toolkit.agents.model_learner import MakeOptimizer, ModelLearner, Program, Schedule
from wm_toolkit.agents.recorded import recording
from wm_toolkit.encoders.observations import (
    ObservationEncoder,
    channels,
    image_keys,
    vectors_of,
)
from wm_toolkit.errors import ConfigError, SpaceError
from wm_toolkit.heads.bernoulli import BernoulliHead
from wm_toolkit.heads.observations import ObservationHead
from wm_toolkit.heads.policy import ChoicePolicy
from wm_toolkit.heads.squared import ScalarHead
from wm_toolkit.models.dreamer import Dreamer
from wm_toolkit.models.rssm import RSSM, CategoricalBelief, DenseCore, GaussianBelief
from wm_toolkit.nn.dense import Style, dense, init_scaled, linear, read
from wm_toolkit.spaces import Spaces, image_shape
from wm_toolkit.training.experience_config import ExperienceConfig
from wm_toolkit.training.optimizer import AdamPart, adam_parts


@dataclasses.dataclass(frozen=True)
class Networks:
    """Builds the networks of one generation.

    Attributes:
        spaces: what is seen and done.
        style: of hidden layers.
        units: their width.
    """

    spaces: Spaces
    style: Style
    units: int

    def __post_init__(self) -> None:
        if self.spaces.discrete and not self.spaces.action_groups:
            raise SpaceError(
                f"the Dreamer family acts in Box, Discrete and MultiDiscrete spaces, not in "
                f"{self.spaces.action}; make its bits a MultiDiscrete of twos"
            )

    def encoder(
        self, image: Callable[[int], nn.Module], layers: int, **options: Any
    ) -> ObservationEncoder:
        """Images through `image(channels)`, vectors through hidden layers; options of the encoder."""
        width = sum(vector.width for vector in vectors_of(self.spaces).values())
        return ObservationEncoder(
            self.spaces,
            image=image(channels(self.spaces)) if image_keys(self.spaces) else None,
            vector=dense(width, self.units, layers, style=self.style) if width else None,
            vector_width=self.units if width else 0,
            **options,
        )

    def decoder(
        self, image: Callable[[int], nn.Module], features: int, layers: int, **options: Any
    ) -> ObservationHead:
        """Images from `image(channels)`, vectors from hidden layers; options of the head."""
        vectors, spaces = vectors_of(self.spaces), self.spaces.observation
        keys = image_keys(self.spaces)
        return ObservationHead(
            images={key: image_shape(spaces[key]) for key in keys},
            image=image(channels(self.spaces)) if keys else None,
            vectors=vectors,
            trunk=dense(features, self.units, layers, style=self.style) if vectors else None,
            reads={k: linear(self.units, v.width, style=self.style) for k, v in vectors.items()},
            **options,
        )

    def scalar(self, features: int, layers: int) -> ScalarHead:
        """A number as a Gaussian of unit deviation."""
        return ScalarHead(read(features, self.units, layers, 1, style=self.style))

    def ending(self, features: int, layers: int) -> nn.Module:
        """Whether the episode goes on."""
        head = BernoulliHead(self.units)
        last = head.net[-1]
        assert isinstance(last, nn.Linear)
        init_scaled(last.weight, self.style.scale(self.units, 1))
        nn.init.zeros_(last.bias)
        return nn.Sequential(dense(features, self.units, layers, style=self.style), head)

    def policy(
        self,
        features: int,
        layers: int,
        box: Callable[[nn.Module], nn.Module],
        *,
        scale: float = 1.0,
        unimix: float = 0.0,
    ) -> nn.Module:
        """Categoricals over choices, or `box` over numbers."""
        spaces = self.spaces
        width = spaces.action_width * (1 if spaces.discrete else 2)
        net = read(features, self.units, layers, width, scale=scale, style=self.style)
        if spaces.discrete:
            return ChoicePolicy(net, spaces.action_groups, unimix=unimix)
        return box(net)

    def dense_rssm(
        self,
        cell: Callable[[int, int], nn.Module],
        belief: GaussianBelief | CategoricalBelief,
        deter: int,
        embedding: int,
        *,
        learned_initial: bool = False,
        bound: bool = False,
    ) -> RSSM:
        """One layer before a dense cell (inputs, width), one in the prior, one in the posterior.

        `bound` scales actions beyond [-1, 1] back.
        """
        units, style = self.units, self.style
        mix = dense(belief.width + self.spaces.action_width, units, style=style)
        return RSSM(
            DenseCore(cell(units, deter), mix, deter, bound=bound),
            read(deter, units, 1, belief.inputs, style=style),
            read(deter + embedding, units, 1, belief.inputs, style=style),
            belief,
            learned_initial=learned_initial,
        )


class OneDiscount(Protocol):
    """A config whose gamma is its field `discount` (Dreamer V1 and V2)."""

    @property
    def discount(self) -> float:
        """Gamma."""
        ...

    @property
    def predict_ending(self) -> bool:
        """Whether the "continue" head learns it."""
        ...

    @property
    def behaviour(self) -> BehaviourConfig:
        """How actor and critic learn."""
        ...


def check_one_discount(config: OneDiscount) -> None:
    """Refuse settings of the behaviour that say something else than the config around it.

    Raises:
        ConfigError: for a gamma at two places, or for endings that count where none are learnt.
    """
    said = config.behaviour
    if said.discount != 1:
        raise ConfigError(
            f"behaviour.discount is {said.discount}, but gamma is {type(config).__name__}.discount, which "
            f"is {config.discount}; set discount, and leave behaviour.discount at 1"
        )
    for name, kept in (("start", "predicted"), ("go_on", "mean")):
        value = getattr(said, name)
        if value != kept and not config.predict_ending:
            raise ConfigError(
                f"behaviour.{name} is {value!r}, but predict_ending is False, so no dream ends; set "
                f"predict_ending to True, or behaviour.{name} to {kept!r}"
            )


def discounted(config: OneDiscount) -> BehaviourConfig:
    """How actor and critic learn, with gamma: a factor of its own if no "continue" head learns it."""
    said, changes = config.behaviour, {}
    if not config.predict_ending:
        changes["discount"] = config.discount
    if said.replay_discount is None:
        changes["replay_discount"] = config.discount
    return dataclasses.replace(said, **changes)


def three_adams(
    model: Dreamer, world: AdamPart, actor: AdamPart, critic: AdamPart
) -> MakeOptimizer:
    """Adam with settings of their own for model, actor and critic."""
    heads = model.heads
    return adam_parts([(heads["policy"], actor), (heads["value"], critic), (model, world)])


def learner(
    model: Dreamer,
    config: ExperienceConfig,
    optimizer: MakeOptimizer,
    *,
    scales: Mapping[str, float],
    program: Program,
    schedule: Schedule | None = None,
) -> ModelLearner:
    """The learner that a config describes; of a frozen model only policy and value learn.

    Args:
        scales: weight of each loss term; those of terms that the model has not are left out. That of the
            replayed value is the program's own.

    Raises:
        ConfigError: if the model is to be frozen and there is no behaviour to train, or batches are to be
            cut into pieces where a loss is a statistic of the whole.
    """
    _refuse_pieces(model, config, program)
    if isinstance(program, ActorCritic) and program.config.replay_value:
        scales = {**scales, "replay_value": program.config.replay_value}
    if config.frozen_model:
        if not program.taught:
            raise ConfigError("frozen_model trains the behaviour alone, and this recipe plans")
        model.requires_grad_(False)
        for head in program.taught:
            model.heads[head].requires_grad_(True)
    return ModelLearner(
        model,
        optimizer=optimizer,
        schedule=schedule,
        scales=scales,
        clip=config.train.clip,
        accumulation=config.train.accumulation,
        record=recording(config.train.cuda_graphs),
        ema=config.train.ema,
        program=program,
    )


def _refuse_pieces(model: Dreamer, config: ExperienceConfig, program: Program) -> None:
    ranged = isinstance(program, ActorCritic) and program.config.normalise
    averaged = model.kl.free == "mean" and model.kl.nats > 0
    if config.train.accumulation > 1 and (ranged or averaged):
        what = "the range of the returns" if ranged else "the mean divergence above its free nats"
        raise ConfigError(
            f"train.accumulation is {config.train.accumulation}, but {what} counts for a whole batch, so "
            "pieces of it would learn something else; use 1, and a smaller batch_size"
        )
