"""PlaNet: plan in the latent space of a recurrent model by CEM, without a policy (Hafner et al. 2019)."""

from __future__ import annotations

import dataclasses

from torch import nn

from wm_toolkit.agents.actors import NoisyActor, PlanningActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import Program
from wm_toolkit.config import check_ranges
from wm_toolkit.heads.squared import ScalarHead
from wm_toolkit.models.dreamer import KL, Dreamer
from wm_toolkit.models.rssm import GaussianBelief
from wm_toolkit.nn.conv import StrideDecoder, StrideEncoder
from wm_toolkit.nn.dense import PLAIN_RELU, init_glorot, read
from wm_toolkit.planning.categorical import CategoricalCEM
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Reward
from wm_toolkit.recipes.dreamer_parts import Networks, learner
from wm_toolkit.registry import recipe
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.experience_config import ExperienceConfig, updates_within
from wm_toolkit.training.optimizer import AdamPart, adam_parts


@dataclasses.dataclass(frozen=True)
class PlaNetConfig(ExperienceConfig):
    """Hyper-parameters of PlaNet; the defaults are the official code's.

    Rows are decisions: with action repeat 4 an episode of 1,000 environment steps is 250 rows, which 100
    updates follow, and five seed episodes are 1,250 rows. The presets "repeat2", "repeat4" and "repeat8"
    repeat actions and see pictures, each in the tasks that are run so (finger, walker; reacher, cheetah,
    cup; cartpole).

    The official search differs from the default in three options of `planner`: it takes the deviation of
    the elites themselves (`deviation="population"`), adds 1e-6 to their variance, where we keep deviations
    from falling below the same 1e-3 (`least="added"`), and does not count its present mean among the
    candidates (`mean_candidate=False`).

    Attributes:
        deter: D.
        stoch: width of the Gaussian.
        least_std: smallest deviation of it.
        depth: channels of the first convolution.
        units: of the RSSM's layers and of vectors, in and out.
        encoder_layers: of vectors, in and out.
        reward_units: of the reward head.
        reward_layers: of the reward head.
        reward_scale: weight of its loss.
        bits: kept of an image's 8.
        free_nats: subtracted from every state's divergence.
        kl_scale: weight of the divergence.
        overshooting: longest open-loop prediction compared with the posterior; 1 as in the released code.
        overshooting_scale: weight of that loss.
        adam: of the model.
        planner: the search for numbers; choices are searched by `CategoricalCEM` with those of its settings
            that do not concern numbers alone.
        noise: deviation added to planned actions while exploring.
        random: chance of a random choice while exploring, with discrete actions.

    Raises:
        ConfigError: for a number out of range.
    """

    sequence: int = 50
    train_ratio: float = 1000.0
    burst: int = 100
    prefill: int = 1250
    capacity: int = 1_000_000
    deter: int = 200
    stoch: int = 30
    least_std: float = 0.1
    depth: int = 32
    units: int = 200
    encoder_layers: int = 2
    reward_units: int = 300
    reward_layers: int = 3
    reward_scale: float = 10.0
    bits: int = 5
    free_nats: float = 3.0
    kl_scale: float = 1.0
    overshooting: int = 1
    overshooting_scale: float = 1.0
    adam: AdamPart = AdamPart(1e-3, eps=1e-4, clip=1000.0)
    planner: CEM = CEM(horizon=12, samples=1000, elites=100, iterations=10, min_std=1e-3)
    noise: float = 0.3
    random: float = 0.1
    train: TrainConfig = TrainConfig(
        updates=updates_within(250_000, 2500 / train_ratio, prefill, burst),
        batch_size=50,
        clip=None,
        checkpoint_every=1000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = ("deter", "stoch", "depth", "units", "reward_units")
        counts = ("encoder_layers", "reward_layers", "overshooting")
        weights = (
            "least_std",
            "reward_scale",
            "free_nats",
            "kl_scale",
            "overshooting_scale",
            "noise",
        )
        shared = {"[1, inf)": (*widths, *counts), "[0, inf)": weights}
        check_ranges(self, shared, bits="[1, 8]", random="[0, 1]")


def _repeat(times: int) -> PlaNetConfig:
    """For tasks in which every action is taken so often; pictures are seen."""
    return PlaNetConfig(
        train_ratio=250.0 * times,
        prefill=5000 // times,
        env_options={"obs_mode": "image", "action_repeat": times},
    )


# Learns Pendulum-v1 on one CPU core in minutes. Unit variances hide what one action does to a few numbers:
# free nats and a full divergence leave it unlearnt. Searches cost more than updates, so rows are replayed often.
NANO = PlaNetConfig(
    sequence=32,
    envs=4,
    train_ratio=256.0,
    burst=50,
    prefill=800,
    capacity=100_000,
    deter=64,
    stoch=16,
    depth=4,
    units=64,
    reward_units=64,
    reward_layers=2,
    reward_scale=1.0,
    free_nats=0.0,
    kl_scale=0.03,
    adam=AdamPart(2e-3, eps=1e-4, clip=1000.0),
    planner=CEM(horizon=12, samples=100, elites=10, iterations=4),
    train=TrainConfig(updates=3000, batch_size=32, clip=None, checkpoint_every=500),
)


@recipe(
    "planet",
    PlaNetConfig,
    presets={**{f"repeat{n}": _repeat(n) for n in (2, 4, 8)}, "nano": NANO},
    about={
        "repeat2": "Control Suite from pictures, action repeat 2: finger, walker (official code)",
        "repeat4": "action repeat 4: reacher, cheetah, cup (official code)",
        "repeat8": "action repeat 8: cartpole (official code)",
        "nano": "learns Pendulum-v1 on one CPU core in minutes",
    },
)
def planet(spaces: Spaces, config: PlaNetConfig) -> Agent:
    """PlaNet: a recurrent model with Gaussian latents, searched by CEM for reward at every step."""
    model = _model(spaces, config)
    scales = {"reward": config.reward_scale, "divergence": config.kl_scale}
    if config.overshooting > 1:
        scales["overshooting"] = config.overshooting_scale
    trained = learner(
        model,
        config,
        adam_parts([(model, config.adam)]),
        scales=scales,
        program=Program(model),
    )
    # The published search starts from scratch at every step and counts rewards only.
    objective = Reward(gamma=1.0, bootstrap="none")
    actor = PlanningActor(model, _planner(spaces, config.planner), objective, warm_start=False)
    noisy = NoisyActor(actor, spaces, noise=config.noise, random=config.random)
    return Agent(model, noisy, trained)


def _planner(spaces: Spaces, cem: CEM) -> CEM | CategoricalCEM:
    if not spaces.discrete:
        return cem
    known = {field.name for field in dataclasses.fields(cem)}
    shared = [f.name for f in dataclasses.fields(CategoricalCEM) if f.name in known]
    return CategoricalCEM(**{name: getattr(cem, name) for name in shared})


def _model(spaces: Spaces, config: PlaNetConfig) -> Dreamer:
    nets = Networks(spaces, PLAIN_RELU, config.units)
    belief = GaussianBelief(config.stoch, config.least_std)
    width = config.deter + belief.width
    encoder = nets.encoder(
        lambda count: StrideEncoder(count, config.depth),
        config.encoder_layers,
        squash=False,
        bits=config.bits,
    )
    decoder = nets.decoder(
        lambda count: StrideDecoder(width, count, config.depth),
        width,
        config.encoder_layers,
        squash=False,
        offset=0.5,
        scale=0.5,
    )
    reward = read(width, config.reward_units, config.reward_layers, 1, style=PLAIN_RELU)
    model = Dreamer(
        spaces,
        nets.dense_rssm(nn.GRUCell, belief, config.deter, encoder.width),
        encoder,
        decoder=decoder,
        reward=ScalarHead(reward),
        kl=KL("one", config.free_nats, "subtract", config.overshooting),
    )
    init_glorot(model)
    return model
