"""Dreamer V1: behaviour by gradients through learnt dynamics (Hafner et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import nn

from wm_toolkit.agents.actor_critic import ActorCritic
from wm_toolkit.agents.actors import NoisyActor, PolicyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.behaviour import BehaviourConfig
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.config import check_ranges
from wm_toolkit.heads.policy import TanhPolicy
from wm_toolkit.models.dreamer import KL, Dreamer
from wm_toolkit.models.rssm import GaussianBelief
from wm_toolkit.nn.conv import StrideDecoder, StrideEncoder
from wm_toolkit.nn.dense import PLAIN_ELU, init_glorot
from wm_toolkit.recipes.dreamer_parts import (
    Networks,
    check_one_discount,
    discounted,
    learner,
    three_adams,
)
from wm_toolkit.registry import recipe
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.experience_config import ExperienceConfig, updates_within
from wm_toolkit.training.optimizer import AdamPart

BEHAVIOUR = BehaviourConfig(
    horizon=15,
    returns="dreamt",
    estimator="dynamics",
    entropy=0.0,
    normalise=False,
    slow_pull=0.0,
    replay_value=0.0,
)


@dataclasses.dataclass(frozen=True)
class DreamerV1Config(ExperienceConfig):
    """Hyper-parameters of Dreamer V1; the defaults are the official code's for the DeepMind Control Suite.

    Rows are decisions: with action repeat 2, five seed episodes are 2,500 rows, and 100 updates follow
    500 rows (1,000 environment steps). The presets "dmc" and "paper" repeat actions so and see pictures;
    "discrete" is for choices.

    Attributes:
        deter: D.
        hidden: width of the RSSM's layers.
        stoch: width of the Gaussian.
        least_std: smallest deviation of it.
        depth: channels of the first convolution.
        units: of every head (the paper's text: 300).
        encoder_layers: of vectors, in and out.
        reward_layers: of the reward head (paper: 3).
        value_layers: of the critic.
        ending_layers: of the "continue" head.
        actor_layers: of the actor (paper: 3).
        actor_std: deviation of the actor before anything is learnt.
        free_nats: of the mean divergence.
        kl_scale: weight of the divergence (discrete actions: 0.1, unconfirmed).
        predict_ending: learn where episodes end, and discount dreams by it; off in the paper's runs.
        ending_scale: weight of that loss.
        discount: gamma, of dreams too; `behaviour.discount` stays 1.
        noise: deviation added to actions while exploring.
        tanh_reward: learn tanh of the rewards (discrete actions; unconfirmed).
        random: chance of a random choice while exploring, with discrete actions, at first (these three
            numbers are unconfirmed).
        random_last: the same in the end.
        random_updates: updates in which it falls from the one to the other, in a straight line.
        model_adam: of the model.
        actor_adam: of the actor.
        critic_adam: of the critic.
        behaviour: how actor and critic learn.

    Raises:
        ConfigError: for a number out of range, or a second discount.
    """

    sequence: int = 50
    train_ratio: float = 500.0
    burst: int = 100
    prefill: int = 2500
    capacity: int = 1_000_000
    deter: int = 200
    hidden: int = 200
    stoch: int = 30
    least_std: float = 0.1
    depth: int = 32
    units: int = 400
    encoder_layers: int = 2
    reward_layers: int = 2
    value_layers: int = 3
    ending_layers: int = 3
    actor_layers: int = 4
    actor_std: float = 5.0
    free_nats: float = 3.0
    kl_scale: float = 1.0
    predict_ending: bool = False
    ending_scale: float = 10.0
    discount: float = 0.99
    noise: float = 0.3
    tanh_reward: bool = False
    random: float = 0.4
    random_last: float = 0.1
    random_updates: int = 200_000
    model_adam: AdamPart = AdamPart(6e-4, eps=1e-7)
    actor_adam: AdamPart = AdamPart(8e-5, eps=1e-7)
    critic_adam: AdamPart = AdamPart(8e-5, eps=1e-7)
    behaviour: BehaviourConfig = BEHAVIOUR
    train: TrainConfig = TrainConfig(
        updates=updates_within(2_500_000, 2500 / train_ratio, prefill, burst),
        batch_size=50,
        clip=None,
        checkpoint_every=1000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = ("deter", "hidden", "stoch", "depth", "units", "random_updates")
        layers = (
            "encoder_layers",
            "reward_layers",
            "value_layers",
            "ending_layers",
            "actor_layers",
        )
        weights = ("least_std", "free_nats", "kl_scale", "ending_scale", "noise")
        shares = ("random", "random_last")
        shared = {"[1, inf)": (*widths, *layers), "[0, inf)": weights, "[0, 1]": shares}
        check_ranges(self, shared, actor_std="(0, inf)", discount="(0, 1]")
        check_one_discount(self)


# Pictures, and every action twice (also of `dmc/` ids).
SEEN = {"obs_mode": "image", "action_repeat": 2}
DMC = DreamerV1Config(env_options=SEEN)
# As the paper's text has it, where that differs from the code.
PAPER = dataclasses.replace(DMC, units=300, reward_layers=3, actor_layers=3)
# Choices, as in its appendix (unconfirmed).
DISCRETE = DreamerV1Config(
    kl_scale=0.1,
    tanh_reward=True,
    predict_ending=True,
    behaviour=dataclasses.replace(BEHAVIOUR, horizon=10),
)
# Learns Pendulum-v1 on one CPU core in minutes. Unit variances hide what one action does to a few numbers:
# free nats and a full divergence leave it unlearnt. Values of -500 would take the critic too long.
NANO = DreamerV1Config(
    sequence=16,
    envs=4,
    train_ratio=128.0,
    burst=1,
    prefill=1000,
    capacity=100_000,
    deter=64,
    hidden=64,
    stoch=16,
    depth=4,
    units=64,
    encoder_layers=2,
    value_layers=2,
    actor_layers=2,
    actor_std=1.0,
    free_nats=0.0,
    kl_scale=0.05,
    discount=0.95,
    model_adam=AdamPart(2e-3, eps=1e-7),
    actor_adam=AdamPart(5e-4, eps=1e-7),
    critic_adam=AdamPart(1e-3, eps=1e-7),
    behaviour=dataclasses.replace(BEHAVIOUR, horizon=10),
    train=TrainConfig(updates=2500, batch_size=32, clip=None, checkpoint_every=500),
)


@recipe(
    "dreamer_v1",
    DreamerV1Config,
    presets={"dmc": DMC, "paper": PAPER, "discrete": DISCRETE, "nano": NANO},
    about={
        "dmc": "Control Suite from pictures, action repeat 2 (official code)",
        "paper": "the same with the heads of the paper's text: 3 layers of 300",
        "discrete": "for choices: predicted endings, tanh rewards, dreams of 10 steps (appendix; unconfirmed)",
        "nano": "learns Pendulum-v1 on one CPU core in minutes",
    },
)
def dreamer_v1(spaces: Spaces, config: DreamerV1Config) -> Agent:
    """Dreamer V1: Gaussian latents, the actor learns by gradients through the dreamt dynamics."""
    model = _model(spaces, config)
    behaviour = discounted(config)
    if behaviour.but_last is None:  # a sequence's last state may be an ending
        behaviour = dataclasses.replace(behaviour, but_last=config.predict_ending)
    scales = {"divergence": config.kl_scale}
    if config.predict_ending:
        scales["continue"] = config.ending_scale
    adams = config.model_adam, config.actor_adam, config.critic_adam
    trained = learner(
        model,
        config,
        three_adams(model, *adams),
        scales=scales,
        program=ActorCritic(model, behaviour),
    )
    actor = NoisyActor(
        PolicyActor(model), spaces, noise=config.noise, random=_chance(config, trained)
    )
    return Agent(model, actor, trained)


def _chance(config: DreamerV1Config, trained: ModelLearner) -> Callable[[], float]:
    """How often a random choice is made, by the updates so far."""
    fall = config.random - config.random_last
    return lambda: config.random - fall * min(1.0, trained.updates / config.random_updates)


def _model(spaces: Spaces, config: DreamerV1Config) -> Dreamer:
    nets = Networks(spaces, PLAIN_ELU, config.units)
    inner = Networks(spaces, PLAIN_ELU, config.hidden)
    belief = GaussianBelief(config.stoch, config.least_std)
    width = config.deter + belief.width
    encoder = nets.encoder(
        lambda count: StrideEncoder(count, config.depth), config.encoder_layers, squash=False
    )
    decoder = nets.decoder(
        lambda count: StrideDecoder(width, count, config.depth),
        width,
        config.encoder_layers,
        squash=False,
        offset=0.5,
        scale=0.5,
    )
    ending = nets.ending(width, config.ending_layers) if config.predict_ending else None
    model = Dreamer(
        spaces,
        inner.dense_rssm(nn.GRUCell, belief, config.deter, encoder.width),
        encoder,
        decoder=decoder,
        reward=nets.scalar(width, config.reward_layers),
        ending=ending,
        kl=KL("one", config.free_nats, "mean"),
        discount=config.discount,
        squash_reward=config.tanh_reward,
    )
    model.heads["policy"] = nets.policy(
        width, config.actor_layers, lambda net: TanhPolicy(net, start=config.actor_std)
    )
    model.heads["value"] = nets.scalar(width, config.value_layers)
    init_glorot(model)
    return model
