"""Training in stages: random rollouts, then vision, memory and controller, one after the other."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.evolution import EvolutionLearner
from wm_toolkit.agents.fitness import EnvFitness
from wm_toolkit.agents.staged import StagedLearner
from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.config import check_ranges
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.envs.make import make_vec
from wm_toolkit.errors import ConfigError, DataError
from wm_toolkit.models.mdn_rnn import MDNRNN
from wm_toolkit.nn.distributed import rank, sum_over_processes
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import seeding
from wm_toolkit.training.checkpoints import Checkpoints
from wm_toolkit.training.collect import Progress, RandomPolicy, collect
from wm_toolkit.training.config import ReturnConfig
from wm_toolkit.training.dream_hooks import DreamReport, held_out_windows
from wm_toolkit.training.experience_config import ExperienceConfig
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.offline import OfflineData, offline_agent, offline_data, protocol_for
from wm_toolkit.training.online import StartFrom
from wm_toolkit.training.returns import evaluate_otherwise
from wm_toolkit.training.staged_source import StageData, StagedSource
from wm_toolkit.training.trainer import CHECKPOINTS, Evaluate, Trainer, TrainResult

ROLLOUTS = "rollouts.h5"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StagedConfig(ExperienceConfig):
    """Learns from random rollouts in stages. `train.updates` counts the updates of all of them.

    With `frozen_model` the last stage is the only one, and all updates are its own.

    Attributes:
        rollouts: episodes that are recorded in the environment before the first update.
        rollout_steps: an episode is cut after so many steps.
        sticky: probability that a random action is held for another step, for coverage.

    Raises:
        ConfigError: for a number out of range.
    """

    rollouts: int = 10_000
    rollout_steps: int = 1_000
    sticky: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, rollouts="[1, inf)", rollout_steps="[1, inf)", sticky="[0, 1)")

    @property
    def stages(self) -> tuple[StageData, ...]:
        """What each stage reads, in order."""
        raise ConfigError(f"{type(self).__name__} does not say what its stages are")

    @property
    def before_last(self) -> int:
        """Updates of all stages but the last."""
        return sum(stage.updates for stage in self.stages[:-1])


def train_in_stages(
    recipe: str,
    config: StagedConfig,
    env: str | None,
    run_dir: str | Path,
    *,
    data: TrajectoryDataset | None = None,
    init: Any = None,
    hooks: Sequence[Hook] = (),
    progress: Progress | None = None,
) -> tuple[Agent, TrainResult]:
    """Train a staged recipe, or go on with a run that was stopped, in whichever stage.

    Args:
        recipe: "world_models", or a preset "world_models.small".
        config: its full config.
        env: registered id of the environment that is to be mastered; None with `data` takes the data's.
        run_dir: the run folder; the rollouts recorded for it lie there too.
        data: recorded trajectories to learn from instead of new rollouts.
        init: an artefact or a run folder whose weights are the start: all stages go on from them, or, with
            `frozen_model`, the last alone.
        hooks: further hooks, such as a progress bar; the model's dreams are looked at in any case, by a
            `DreamReport` among them or one of our own.
        progress: told how many rollouts are recorded.

    Raises:
        ConfigError: with neither environment nor data; if one is needed for more than rollouts and missing;
            for a frozen model without `init`.
        CheckpointError: if the weights of `init` do not fit.
        DataError: if the folder's rollouts were recorded with other settings.
    """
    config = _named(config, env, data)
    begun = Checkpoints(Path(run_dir) / CHECKPOINTS).latest() is not None
    start = None if init is None or begun else StartFrom(init)
    _refuse(recipe, config, weights=begun or init is not None)
    if data is None:
        if config.evaluation.env and not (Path(run_dir) / ROLLOUTS).exists():
            _try_out(recipe, config, start)
        data = record_rollouts(config, Path(run_dir) / ROLLOUTS, progress)
    ready = offline_data(data, config)
    agent = offline_agent(recipe, config, ready)
    model, learner = agent.model, agent.learner
    if not (isinstance(model, MDNRNN) and isinstance(learner, StagedLearner)):
        raise ConfigError(f"{recipe} builds a {type(model).__name__} that does not learn in stages")
    log.info("updates: %s", _updates(learner, config))
    own: list[Hook] = [] if start is None else [start]
    last = learner.stages[-1].learner
    if isinstance(last, EvolutionLearner) and isinstance(last.fitness, EnvFitness):
        own.append(RealEpisodes(last.fitness, agent, config.evaluation))
    trainer = Trainer(
        agent,
        StagedSource(ready.train, model, config.stages, seed=config.train.seed),
        run_dir=run_dir,
        config=config.train,
        evaluate=_evaluation(learner, config),
        hooks=[*own, *_looking(hooks, ready, config.stages), *hooks],
    )
    return agent, trainer.train()


def _named(config: StagedConfig, env: str | None, data: TrajectoryDataset | None) -> StagedConfig:
    """The config whose protocol says which environment is meant, and how it is made."""
    protocol = config.evaluation
    if env:
        options = {**config.env_options, **protocol.env_options}
        protocol = dataclasses.replace(protocol, env=protocol.env or env, env_options=options)
    if data is not None:
        protocol = protocol_for(protocol, data)
    return dataclasses.replace(config, evaluation=protocol)


# -- what cannot work is refused before anything is recorded -----------------------------------------
def _refuse(recipe: str, config: StagedConfig, *, weights: bool) -> None:
    """Refuse a config that would fail later; `weights` says whether there are any to begin with."""
    if config.frame_skip != 1:
        raise ConfigError(f"{recipe} learns from every frame; frame_skip is {config.frame_skip}")
    if config.actors != "inline":
        raise ConfigError(f"{recipe} records its rollouts itself; actors is {config.actors!r}")
    if config.frozen_model and not weights:
        raise ConfigError(
            "frozen_model trains the behaviour alone, on a world model that stays as it is; say which one "
            "with --init, an artefact or a run folder, or leave frozen_model off"
        )
    if _evaluates(config):
        _refuse_evaluation(config)
    if any(stage.plays for stage in config.stages) and not config.evaluation.env:
        raise ConfigError(
            f"{recipe} plays in the real environment while it learns (fitness='real'); {NAME_ONE}"
        )


NAME_ONE = "name one with --env, or set evaluation.env"


def _evaluates(config: StagedConfig) -> bool:
    return bool(config.train.eval_every) or config.train.keep == "best"


def _refuse_evaluation(config: StagedConfig) -> None:
    """Refuse evaluations without an environment, and those to go by that a run would never come to."""
    train, before = config.train, config.before_last
    if not config.evaluation.env:
        raise ConfigError(
            f"train.eval_every={train.eval_every} with train.keep={train.keep!r} measures returns in the "
            f"environment; {NAME_ONE}"
        )
    if (train.keep == "best" or train.patience) and train.updates <= before:
        raise ConfigError(
            f"train.keep={train.keep!r} with train.patience={train.patience} goes by evaluations, and only "
            f"the last stage is evaluated: it begins behind update {before:,}, but train.updates is "
            f"{train.updates:,}; give more"
        )


def _try_out(recipe: str, config: StagedConfig, start: StartFrom | None) -> None:
    """Build the model for the environment, and load the weights it is to begin with."""
    protocol = config.evaluation
    with closing(make_vec(protocol.env, 1, **protocol.env_options)) as envs:
        spaces = Spaces.of(envs)
    if config.observations:
        spaces = spaces.only(config.observations)
    with seeding.preserved():
        model = build(recipe, spaces, config).model
        if start is not None:
            start.load(model)


# -- what happens beside the updates -----------------------------------------------------------------
def _updates(learner: StagedLearner, config: StagedConfig) -> str:
    """How many each stage makes, for people: the last one what is left."""
    left, found = config.train.updates, []
    for stage in learner.stages:
        own = left if stage is learner.stages[-1] else min(stage.updates, left)
        found.append(f"{own:,} of {stage.name}")
        left -= own
    return ", ".join(found)


def _evaluation(learner: StagedLearner, config: StagedConfig) -> Evaluate | None:
    """What measures the agent while it trains, if it is asked for: in the last stage, where it acts."""
    if not _evaluates(config):
        return None

    def evaluate(agent: Agent) -> Mapping[str, float]:
        return evaluate_otherwise(agent) if learner.updates > config.before_last else {}

    return evaluate


class RealEpisodes(Hook):
    """Counts what controllers play in the real environment, over all processes, and closes it in the end.

    Logs `env/steps`, `env/episodes` and `env/return`, the mean of a generation.

    Args:
        fitness: what plays.
        agent: whose artefact is to say how much was seen, and where.
        protocol: of the environment.
    """

    def __init__(self, fitness: EnvFitness, agent: Agent, protocol: ReturnConfig) -> None:
        self.fitness, self.steps, self.episodes = fitness, 0, 0
        agent.info["experience"] = {"env": protocol.env, "env_options": protocol.env_options}

    def after_update(self, trainer: Trainer, metrics: Metrics) -> Metrics:
        """A line for every generation."""
        if "fitness/mean" not in metrics:
            return {}
        mine = (self.fitness.steps, self.fitness.played)
        together = sum_over_processes(torch.tensor(mine, device=trainer.accelerator.device))
        self.steps, self.episodes = together.tolist()
        seen = {"env/steps": float(self.steps), "env/episodes": float(self.episodes)}
        return {**seen, "env/return": metrics["fitness/mean"]}

    def before_evaluation(self, trainer: Trainer) -> None:
        """Let the artefact say how much was seen."""
        info = trainer.agent.info
        info["experience"] = {**info["experience"], **self.state_dict()}

    def after_training(self, trainer: Trainer) -> None:
        """Close the environments."""
        self.fitness.close()

    def state_dict(self) -> dict[str, Any]:
        """Steps and episodes so far."""
        return {"steps": self.steps, "episodes": self.episodes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting: the first process from the sum of all, the others from nothing."""
        self.steps, self.episodes = state["steps"], state["episodes"]
        if rank() == 0:
            self.fitness.steps, self.fitness.played = self.steps, self.episodes


class StageDreams(DreamReport):
    """Looks at dreams as `DreamReport` does, from the first stage on in which the model dreams.

    The first update of that stage is looked at too, and the last one of every stage from there on.

    Args:
        sequences: as for `DreamReport`.
        stages: in order.
    """

    def __init__(self, sequences: Callable[[], Batch | None], stages: Sequence[StageData]) -> None:
        super().__init__(sequences)
        blind = itertools.takewhile(lambda stage: not stage.dreams, stages)
        self.before = sum(stage.updates for stage in blind)
        ends = itertools.accumulate(stage.updates for stage in stages[:-1])
        self.always = {self.before + 1, *ends}

    def due(self, trainer: Trainer) -> bool:
        """Whether there are dreams by now, and it is time to look."""
        return trainer.update > self.before and (
            trainer.update in self.always or super().due(trainer)
        )


def _looking(hooks: Sequence[Hook], ready: OfflineData, stages: Sequence[StageData]) -> list[Hook]:
    """A look at dreams of held-out episodes: by the hooks that are given for it, else one of our own."""
    windows = held_out_windows(ready)
    given = [hook for hook in hooks if isinstance(hook, DreamReport)]
    for hook in given:
        if hook.sequences is None:
            hook.sequences = lambda: windows
    return [] if given else [StageDreams(lambda: windows, stages)]


# -- rollouts ----------------------------------------------------------------------------------------
def record_rollouts(
    config: StagedConfig, path: Path, progress: Progress | None = None
) -> TrajectoryDataset:
    """Random rollouts of the protocol's environment, recorded once; a recording that stopped goes on.

    Raises:
        ConfigError: if the protocol names no environment.
        SpaceError: if that shows no observation which the recipe reads.
        DataError: if the file there was recorded with other settings.
    """
    protocol: ReturnConfig = config.evaluation
    if not protocol.env:
        raise ConfigError("name an environment with --env, or recorded data with --data")
    made = {
        "rollouts": config.rollouts,
        "rollout_steps": config.rollout_steps,
        "sticky": config.sticky,
        "seed": config.train.seed,
    }
    about = {"env": protocol.env, "env_options": protocol.env_options, "made": made}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        envs = make_vec(protocol.env, config.envs, **protocol.env_options)
        try:
            Spaces.of(envs).only(config.observations)  # before hours of recording, not after
            _record(envs, config, path, about, progress)
        finally:
            envs.close()
    data = TrajectoryDataset.load(path)
    found = {key: data.metadata.get(key) for key in about}
    if found != about:
        raise DataError(f"{path} was recorded with {found}, not with {about}; delete it to go on")
    return data


def _record(
    envs: gym.vector.VectorEnv,
    config: StagedConfig,
    path: Path,
    about: dict[str, Any],
    progress: Progress | None,
) -> None:
    policy = StickyPolicy(envs.single_action_space, config.sticky)
    metadata = {"name": path.stem, **about}
    with Hdf5Writer(path, Spaces.of(envs), metadata=metadata, append=True) as writer:
        collect(
            envs,
            policy,
            writer,
            episodes=config.rollouts,
            seed=config.train.seed,
            max_steps=config.rollout_steps,
            progress=progress,
        )


class StickyPolicy(RandomPolicy):
    """Uniform draws that are held for a while; row i's depend on its seed alone.

    Args:
        space: of one environment's action.
        sticky: probability that the last action is taken once more.
    """

    def __init__(self, space: gym.Space, sticky: float) -> None:
        super().__init__(space)
        self.sticky = sticky

    def begin(self, seed: int, count: int) -> None:
        """A generator for every row."""
        super().begin(seed, count)
        self._holds = [np.random.default_rng([seed + row, 1]) for row in range(count)]
        self._last: NDArray | None = None

    def act(self, obs: Any) -> NDArray:
        """[N, ...] a new draw, or the last one once more."""
        new = super().act(obs)
        held = np.array([generator.random() < self.sticky for generator in self._holds])
        if self._last is not None:
            new[held] = self._last[held]
        self._last = copy.copy(new)
        return new
