"""Dreamer V3: one fixed recipe for every domain (Hafner et al. 2025), and its preprint's (2023)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from torch import nn

from wm_toolkit.agents.actor_critic import ActorCritic
from wm_toolkit.agents.actors import PolicyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.behaviour import BehaviourConfig
from wm_toolkit.config import check_ranges
from wm_toolkit.encoders.observations import ObservationEncoder
from wm_toolkit.errors import ConfigError
from wm_toolkit.heads.observations import ObservationHead
from wm_toolkit.heads.policy import BoxPolicy
from wm_toolkit.heads.twohot import Scale, TwoHotHead
from wm_toolkit.models.dreamer import KL, Dreamer
from wm_toolkit.models.rssm import RSSM, BlockCore, CategoricalBelief
from wm_toolkit.nn.conv import DoublingDecoder, HalvingEncoder, PoolEncoder, UpsampleDecoder
from wm_toolkit.nn.dense import V3, V3_PREPRINT, Style, dense, init_scaled, read
from wm_toolkit.nn.gru import NormGRU
from wm_toolkit.recipes.dreamer_parts import Networks, learner, three_adams
from wm_toolkit.recipes.dreamer_sizes import PREPRINT_SIZES, SIZES, Size
from wm_toolkit.registry import recipe
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.experience_config import ExperienceConfig, updates_within
from wm_toolkit.training.laprop import laprop
from wm_toolkit.training.optimizer import AdamPart, constant


@dataclasses.dataclass(frozen=True)
class DreamerV3Config(ExperienceConfig):
    """Hyper-parameters of Dreamer V3; the defaults are the newest official ones (2025, its code of 2026).

    Presets of domains are the newest code's. Where the paper (Hafner et al. 2025) has another protocol there
    is one ending in "_paper": "atari100k_paper" with a train ratio of 128 (code: 256), "dmc_proprio_paper"
    with size 12m, 512 and action repeat 2 (code: 1m, 1024 and 1), "dmc_vision_paper" with 512 and action
    repeat 2 (code: 256 and 1; size 12m is unconfirmed), and "size12m_paper", whose state has the 1024
    numbers of the paper's table (code: 2048). Their lengths are the paper's 400k frames, 500k and 1M
    simulator steps. "arxiv_v1_xs" to "arxiv_v1_xl" are the preprint's (2023).

    Attributes:
        size: of the networks.
        networks: "blocks": block GRU, RMSNorm, pooled convolutions; "preprint": dense GRU, LayerNorm,
            strided convolutions, a learnt first state.
        bins: how two-hot heads place them: "symexp"; or "symlog", in whose space targets are squashed
            (preprint).
        unimix: share of the uniform distribution in every categorical of the model.
        policy_unimix: the same in a policy over choices (paper and preprint: 0.01; newest code: 0).
        horizon: what the "continue" head learns is 1 - 1 / horizon where the episode goes on
            ("contdisc"), and so is the gamma of dreams and replayed rewards; 0 lets it learn 1 (preprint,
            whose gamma is `behaviour.discount`).
        free_nats: per state, of each divergence term.
        reconstruction: weight of the decoder's losses; above 1, numbers that vary by little are not lost beside
            divergence and rewards.
        dynamics: weight of the divergence that teaches the prior (preprint: 0.5).
        representation: weight of the one that teaches the posterior.
        optimizer: "laprop" with adaptive clipping for everything; or "adam", apart for model, actor and
            critic (preprint).
        lr: of LaProp.
        warmup: updates in which LaProp's rate rises from 0.
        model_adam: of the model (preprint).
        actor_adam: of the actor (preprint).
        critic_adam: of the critic (preprint).
        stored_latents: keep states with the rows of the replay, begin sequences with them, and write
            those made anew back.
        settled: actions when not exploring: a "sample" (the official code, in evaluation too), the policy's
            "mode", or "auto", the better one: a sample of choices, for which the policy was taught how often
            to take which, and the mode of numbers, whose deviation never falls below 0.1.
        behaviour: how actor and critic learn.
        compile: the recurrent cell through `torch.compile`. The first update takes minutes; a CPU needs a
            C++ compiler for it.

    Raises:
        ConfigError: for a number out of range, or for two discounts or none.
    """

    sequence: int = 64
    envs: int = 16
    train_ratio: float = 32.0
    prefill: int = 1024
    capacity: int = 5_000_000
    online_queue: bool = True
    size: Size = SIZES["200m"]
    networks: Literal["blocks", "preprint"] = "blocks"
    bins: Scale = "symexp"
    unimix: float = 0.01
    policy_unimix: float = 0.0
    horizon: int = 333
    free_nats: float = 1.0
    reconstruction: float = 1.0
    dynamics: float = 1.0
    representation: float = 0.1
    optimizer: Literal["laprop", "adam"] = "laprop"
    lr: float = 4e-5
    warmup: int = 1000
    model_adam: AdamPart = AdamPart(1e-4, eps=1e-8, clip=1000.0)
    actor_adam: AdamPart = AdamPart(3e-5, eps=1e-5, clip=100.0)
    critic_adam: AdamPart = AdamPart(3e-5, eps=1e-5, clip=100.0)
    stored_latents: bool = True
    settled: Literal["auto", "mode", "sample"] = "auto"
    behaviour: BehaviourConfig = BehaviourConfig()
    compile: bool = False
    train: TrainConfig = TrainConfig(
        updates=updates_within(50_000_000, 1024 / train_ratio, prefill),
        batch_size=16,
        clip=None,
        checkpoint_every=1000,
        precision="bf16",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = ("free_nats", "reconstruction", "dynamics", "representation", "horizon", "warmup")
        shares = ("unimix", "policy_unimix")
        check_ranges(self, {"[0, inf)": weights, "[0, 1]": shares}, lr="(0, inf)")
        self._check_discount()
        if self.networks == "blocks":
            self.size.check_blocks()

    def _check_discount(self) -> None:
        factor = self.behaviour.discount
        if self.horizon == 1 or (self.horizon == 0) == (factor == 1):
            raise ConfigError(
                f"horizon is {self.horizon} and behaviour.discount {factor}, but gamma is said at one of the "
                "two: take a horizon of at least 2 and behaviour.discount 1, or horizon 0 and a "
                "behaviour.discount below 1 (preprint: 0.997)"
            )


def _domain(decisions: int, ratio: float, **changes: Any) -> DreamerV3Config:
    """A published domain: how many decisions, how often each is replayed."""
    config = DreamerV3Config(train_ratio=ratio, **changes)
    train = dataclasses.replace(config.train, updates=config.updates_for(decisions))
    return dataclasses.replace(config, train=train)


# Learns CartPole-v1 and Pendulum-v1 on one CPU core in minutes. A few numbers that vary by little are seen sharply
# enough only if free nats are few and reconstruction counts; with few updates the critic must follow fast.
NANO = DreamerV3Config(
    size=Size(deter=128, units=64, classes=8, depth=4, latents=8),
    sequence=16,
    envs=8,
    train_ratio=16.0,
    burst=20,
    prefill=1000,
    capacity=100_000,
    horizon=100,
    free_nats=0.1,
    reconstruction=100.0,
    lr=7e-4,
    warmup=100,
    behaviour=BehaviourConfig(slow_rate=0.1),
    train=TrainConfig(updates=2000, batch_size=16, clip=None, checkpoint_every=500),
)

PREPRINT = DreamerV3Config(
    networks="preprint",
    bins="symlog",
    policy_unimix=0.01,
    horizon=0,
    dynamics=0.5,
    optimizer="adam",
    capacity=1_000_000,
    online_queue=False,
    stored_latents=False,
    behaviour=BehaviourConfig(
        discount=0.997,
        start="recorded",
        go_on="mode",
        estimator="auto",
        dynamics_of="advantage",
        replay_value=0.0,
    ),
)

# The paper's protocols where the newest code has other ones (Hafner et al. 2025, overview of benchmarks): every
# action twice on DMC, so 500,000 simulator steps are 250,000 decisions. Its text has a state of 1024 at 12M.
TWICE = {"action_repeat": 2}
PAPER = {
    "atari100k_paper": _domain(100_000, 128, envs=1),
    "dmc_proprio_paper": _domain(
        250_000, 512, size=SIZES["12m"], env_options={"obs_mode": "state", **TWICE}
    ),
    "dmc_vision_paper": _domain(
        500_000, 512, size=SIZES["12m"], env_options={"obs_mode": "image", **TWICE}
    ),
    "size12m_paper": DreamerV3Config(size=dataclasses.replace(SIZES["12m"], deter=1024)),
}

PRESETS = {
    "nano": NANO,
    **{f"size{name}": DreamerV3Config(size=widths) for name, widths in SIZES.items()},
    "atari": _domain(50_000_000, 32),
    "atari100k": _domain(100_000, 256, envs=1),
    "crafter": _domain(1_000_000, 512, envs=1),
    "dmc_proprio": _domain(500_000, 1024, size=SIZES["1m"], env_options={"obs_mode": "state"}),
    "dmc_vision": _domain(1_000_000, 256, env_options={"obs_mode": "image"}),
    "procgen": _domain(50_000_000, 64),
    "bsuite": _domain(500_000, 1024, envs=1),
    **PAPER,
    "arxiv_v1": dataclasses.replace(PREPRINT, size=PREPRINT_SIZES["xl"]),
    **{
        f"arxiv_v1_{name}": dataclasses.replace(PREPRINT, size=widths)
        for name, widths in PREPRINT_SIZES.items()
    },
}
ABOUT = {
    "nano": "learns CartPole-v1 and Pendulum-v1 on one CPU core in minutes",
    **{f"size{name}": f"the defaults with networks of {name} parameters" for name in SIZES},
    "atari": "200M frames, replay ratio 32 (newest code)",
    "atari100k": "400k frames, replay ratio 256 (newest code)",
    "crafter": "1M steps, replay ratio 512 (newest code)",
    "dmc_proprio": "Control Suite from numbers: size 1m, ratio 1024, no action repeat (newest code)",
    "dmc_vision": "Control Suite from pictures: size 200m, ratio 256, no action repeat (newest code)",
    "procgen": "50M steps, replay ratio 64 (newest code)",
    "bsuite": "Behaviour Suite, replay ratio 1024 (newest code)",
    "atari100k_paper": "400k frames, replay ratio 128 (paper)",
    "dmc_proprio_paper": "Control Suite from numbers: size 12m, ratio 512, action repeat 2 (paper)",
    "dmc_vision_paper": "Control Suite from pictures: ratio 512, action repeat 2 (paper; size 12m unconfirmed)",
    "size12m_paper": "size 12m with the state of 1024 of the paper's table (code: 2048)",
    "arxiv_v1": "the preprint of 2023 in its largest size, xl",
    **{f"arxiv_v1_{name}": f"the preprint of 2023, size {name}" for name in PREPRINT_SIZES},
}


@recipe("dreamer_v3", DreamerV3Config, presets=PRESETS, about=ABOUT)
def dreamer_v3(spaces: Spaces, config: DreamerV3Config) -> Agent:
    """Dreamer V3: a world model with categorical latents, actor and critic learnt in its dreams."""
    kl = KL("two", config.free_nats, "each")
    model = world_model(
        spaces,
        config.size,
        networks=config.networks,
        horizon=config.horizon,
        bins=config.bins,
        unimix=config.unimix,
        kl=kl,
    )
    add_behaviour(model, config)
    if config.compile:
        model.rssm.core.recurrent.compile()
    if config.optimizer == "laprop":
        optimizer, schedule = laprop(config.lr), constant(config.warmup)
    else:
        adams = config.model_adam, config.actor_adam, config.critic_adam
        optimizer, schedule = three_adams(model, *adams), None
    trained = learner(
        model,
        config,
        optimizer,
        scales=_scales(spaces, config),
        program=ActorCritic(model, config.behaviour, stored_latents=config.stored_latents),
        schedule=schedule,
    )
    settled = config.settled
    if settled == "auto":
        settled = "sample" if spaces.discrete else "mode"
    return Agent(model, PolicyActor(model, settled=settled), trained)


def _scales(spaces: Spaces, config: DreamerV3Config) -> dict[str, float]:
    scales = dict.fromkeys(spaces.observation, config.reconstruction)
    return scales | {"dynamics": config.dynamics, "representation": config.representation}


# -- networks --------------------------------------------------------------------------------------
def world_model(
    spaces: Spaces,
    size: Size,
    *,
    networks: Literal["blocks", "preprint"] = "blocks",
    horizon: int = 333,
    bins: Scale = "symexp",
    unimix: float = 0.01,
    kl: KL | None = None,
) -> Dreamer:
    """The world model; its "continue" head learns the discounted chance of going on (horizon 0: all)."""
    belief = CategoricalBelief(size.latents, size.classes, unimix)
    build = _blocks if networks == "blocks" else _preprint
    rssm, encoder, decoder = build(spaces, size, belief)
    layers, style = _heads(size, networks, newest=1)
    return Dreamer(
        spaces,
        rssm,
        encoder,
        decoder=decoder,
        reward=two_hot(rssm.width, size.units, layers=layers, style=style, bins=bins),
        ending=Networks(spaces, style, size.units).ending(rssm.width, layers),
        kl=kl,
        discount=1 - 1 / horizon if horizon else 1.0,
    )


def _heads(size: Size, networks: str, *, newest: int) -> tuple[int, Style]:
    """Layers and style of a head that has `newest` layers in the newest recipe."""
    return (newest, V3) if networks == "blocks" else (size.layers, V3_PREPRINT)


def _blocks(
    spaces: Spaces, size: Size, belief: CategoricalBelief
) -> tuple[RSSM, ObservationEncoder, ObservationHead]:
    """RSSM, encoder and decoder of the newest recipe."""
    size.check_blocks()
    nets, deter, units = Networks(spaces, V3, size.units), size.deter, size.units
    encoder = nets.encoder(lambda count: PoolEncoder(count, size.depth), 3)
    decoder = nets.decoder(
        lambda count: UpsampleDecoder(
            deter, belief.width, count, depth=size.depth, units=units, groups=size.groups
        ),
        deter + belief.width,
        3,
    )
    core = BlockCore(
        belief.width, spaces.action_width, width=deter, hidden=units, groups=size.groups
    )
    prior = read(deter, units, 2, belief.inputs)
    posterior = read(deter + encoder.width, units, 1, belief.inputs)
    return RSSM(core, prior, posterior, belief), encoder, decoder


def _preprint(
    spaces: Spaces, size: Size, belief: CategoricalBelief
) -> tuple[RSSM, ObservationEncoder, ObservationHead]:
    """RSSM, encoder and decoder of the preprint."""
    nets, width = Networks(spaces, V3_PREPRINT, size.units), size.deter + belief.width
    encoder = nets.encoder(lambda count: HalvingEncoder(count, size.depth), size.layers)
    decoder = nets.decoder(
        lambda count: DoublingDecoder(width, count, size.depth), width, size.layers, offset=0.5
    )
    rssm = nets.dense_rssm(
        _cell, belief, size.deter, encoder.width, learned_initial=True, bound=True
    )
    return rssm, encoder, decoder


def _cell(inputs: int, width: int) -> NormGRU:
    cell = NormGRU(inputs, width, bias=False)
    init_scaled(cell.project.weight, V3_PREPRINT.scale(inputs + width, 3 * width))
    return cell


def add_behaviour(model: Dreamer, config: DreamerV3Config) -> None:
    """Attach actor and critic."""
    layers, style = _heads(config.size, config.networks, newest=3)
    width, units = model.rssm.width, config.size.units
    model.heads["policy"] = actor(
        model.spaces,
        width,
        units,
        layers=layers,
        style=style,
        scale=0.01 if config.networks == "blocks" else 1.0,
        unimix=config.policy_unimix,
    )
    model.heads["value"] = two_hot(width, units, layers=layers, style=style, bins=config.bins)


def actor(
    spaces: Spaces,
    features: int,
    units: int,
    *,
    layers: int = 3,
    style: Style = V3,
    scale: float = 0.01,
    unimix: float = 0.0,
) -> nn.Module:
    """Hidden layers to a policy over encoded actions; a small scale leaves the first ones unguided."""
    nets = Networks(spaces, style, units)
    return nets.policy(features, layers, BoxPolicy, scale=scale, unimix=unimix)


def two_hot(
    features: int, units: int, *, layers: int = 3, style: Style = V3, bins: Scale = "symexp"
) -> nn.Module:
    """Hidden layers to a two-hot distribution over numbers, 0 at first."""
    return nn.Sequential(dense(features, units, layers, style=style), TwoHotHead(units, scale=bins))
