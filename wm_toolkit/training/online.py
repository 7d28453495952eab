"""Learning from rewards as one job: environments, replay, updates; from nothing, from data, or from a run."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.model_learner import ModelLearner
from wm_toolkit.checkpoint import load_state
from wm_toolkit.config import to_dict
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.envs.wrappers import steps_per_action
from wm_toolkit.errors import ConfigError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import seeding
from wm_toolkit.training.checkpoints import Checkpoint, Checkpoints, load_checkpoint
from wm_toolkit.training.collector import Collecting
from wm_toolkit.training.dream_hooks import DreamReport, held_out_windows
from wm_toolkit.training.experience import Experience, ExperienceLog
from wm_toolkit.training.experience_config import ExperienceConfig
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.lines import open_lines
from wm_toolkit.training.offline import OfflineData, about_data, offline_data, protocol_for
from wm_toolkit.training.remote import RemoteCollectors, actor_jobs
from wm_toolkit.training.returns import evaluate_otherwise
from wm_toolkit.training.trainer import CHECKPOINTS, Evaluate, Trainer, TrainResult
from wm_toolkit.training.worker import make_collector, one_env, vector_env

__all__ = ["StartFrom", "train_online", "vector_env"]

FILES = "replay.files"
"""Where in the run folder a replay lies that is too large for memory, while the run lasts."""

log = logging.getLogger(__name__)


def train_online(
    recipe: str,
    config: Any,
    env: str | None,
    run_dir: str | Path,
    *,
    data: TrajectoryDataset | None = None,
    init: str | Path | None = None,
    hooks: Sequence[Hook] = (),
) -> tuple[Agent, TrainResult]:
    """Train a recipe that learns from rewards, or go on with a run that was stopped.

    Args:
        recipe: "dreamer_v3", or a preset "dreamer_v3.nano".
        config: its full config (an `ExperienceConfig`).
        env: id of the environment to act in; None learns from `data` alone.
        run_dir: the run folder; checkpoints in it are continued.
        data: recorded episodes with rewards, with which the replay is filled before the start; the
            protocol's share is held out.
        init: an artefact or a run folder whose weights are the start; of a run with checkpoints the
            learner's state (optimiser, slow critic, return scale) too.
        hooks: further hooks, such as a progress bar; the model's dreams are looked at in any case, by a
            `DreamReport` among them or one of our own.

    Raises:
        ConfigError: if the recipe does not learn from rewards, or environment, data and recipe do not fit.

    Example:
        >>> agent, result = train_online("dreamer_v3.nano", config, "CartPole-v1", "runs/cartpole")
    """
    config = _checked(recipe, config, env, data)
    ready = None if data is None else offline_data(data, config)
    agent = _agent(recipe, config, _spaces(config, env, ready), env, ready)
    with ExitStack() as stack:
        files = stack.enter_context(_scratch(Path(run_dir) / FILES))
        collector = stack.enter_context(_collecting(recipe, config, agent, env))
        source = _source(config, agent, collector, ready, fresh=init is None, files=files)
        own: list[Hook] = [] if init is None else [StartFrom(init)]
        if env is not None:
            own.append(ExperienceLog(source, every=config.train.log_every))
        if not any(isinstance(hook, DreamReport) for hook in hooks):
            own.append(DreamReport(None if ready is None else held_out_windows(ready)))
        trainer = Trainer(
            agent,
            source,
            run_dir=run_dir,
            config=config.train,
            evaluate=_evaluation(agent, config),
            hooks=[*own, *hooks],
        )
        return agent, trainer.train()


class StartFrom(Hook):
    """Gives a fresh agent the weights of another before its first update.

    Args:
        init: an artefact or a run folder; of a run with checkpoints the learner's state is taken too, if
            the same parameters learn (one `frozen_model` for both).
    """

    def __init__(self, init: str | Path) -> None:
        self.init = init

    def before_training(self, trainer: Trainer) -> None:
        """Load them, unless the run goes on from a checkpoint of its own."""
        if trainer.update:
            return
        learner, saved = trainer.learner, self.load(trainer.agent.model)
        if saved is not None:
            # An optimiser of other parameters would not fit.
            frozen = saved.facts.get("agent", {}).get("frozen_model", False)
            same = frozen == getattr(trainer.agent.config, "frozen_model", False)
            if same and isinstance(learner, ModelLearner):
                learner.load_state_dict(saved.state["learner"], own_rates=True)
                return
        if isinstance(learner, ModelLearner):
            learner.program.restart()

    def load(self, model: WorldModel) -> Checkpoint | None:
        """Give a model the weights; returns the checkpoint they are of, if it is one.

        Raises:
            CheckpointError: if they are of other sizes, or missing.
        """
        path = Checkpoints(Path(self.init) / CHECKPOINTS).latest()
        if path is None:
            load_state(model, Agent.from_pretrained(self.init).model.state_dict(), str(self.init))
            return None
        saved = load_checkpoint(path)
        load_state(model, saved.model, str(path))
        return saved


@contextmanager
def _collecting(
    recipe: str, config: ExperienceConfig, agent: Agent, env: str | None
) -> Iterator[Collecting | None]:
    """What acts in the environments, here or elsewhere; nothing without an environment."""
    if env is None:
        yield None
    elif config.actors == "inline":
        with closing(vector_env(env, config)) as envs:
            yield make_collector(agent, envs, config.train.seed)
    else:
        jobs = actor_jobs(recipe, config, agent.spaces, env)
        with open_lines(config.actors, jobs) as lines:
            yield RemoteCollectors(agent, lines, num_envs=config.envs, sync_every=config.sync_every)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for what only a running process needs; what a killed one left there is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def _checked(
    recipe: str, config: Any, env: str | None, data: TrajectoryDataset | None
) -> ExperienceConfig:
    """The config with the environment that is measured in filled in."""
    if not isinstance(config, ExperienceConfig):
        raise ConfigError(f"recipe {recipe!r} does not learn from rewards")
    if env is None and data is None:
        raise ConfigError("name an environment to act in, or a data set to learn from")
    if config.train.processes > 1:
        raise ConfigError(
            f"train.processes is {config.train.processes}, but the replay lies in one process; use 1"
        )
    protocol = dataclasses.replace(config.evaluation, frame_skip=config.frame_skip)
    if env is not None and not protocol.env:
        options = {**config.env_options, **protocol.env_options}
        protocol = dataclasses.replace(protocol, env=env, env_options=options)
    elif data is not None:
        protocol = protocol_for(protocol, data)
    return dataclasses.replace(config, evaluation=protocol)


def _spaces(config: ExperienceConfig, env: str | None, ready: OfflineData | None) -> Spaces:
    """What the agent sees and does: as the environment says, else as the data set does.

    Of an environment it is told, too, how often what happens in it will be learnt from.
    """
    if env is None:
        assert ready is not None
        return ready.spaces
    if config.action_scaling == "standardise":
        raise ConfigError(
            "action_scaling is 'standardise', which only data sets have statistics for"
        )
    with closing(one_env(env, config)) as one:
        spaces = dataclasses.replace(Spaces.of(one), block=config.frame_skip)
        log.info(config.ratio_text(steps_per_action(one) * config.frame_skip))
    spaces = spaces.only(config.observations) if config.observations else spaces
    if ready is not None and not _same(spaces, ready.spaces):
        raise ConfigError(
            f"environment and data set do not fit: {spaces.observation}, {spaces.action} against "
            f"{ready.spaces.observation}, {ready.spaces.action}"
        )
    return spaces


def _same(one: Spaces, other: Spaces) -> bool:
    """Whether observations have the same names and shapes, and actions are the same."""
    shapes = [{key: space.shape for key, space in s.observation.items()} for s in (one, other)]
    return shapes[0] == shapes[1] and one.action == other.action


def _agent(
    recipe: str,
    config: ExperienceConfig,
    spaces: Spaces,
    env: str | None,
    ready: OfflineData | None,
) -> Agent:
    """A fresh agent that knows what it will learn from and how it will be measured."""
    with seeding.own_stream(config.train.seed):
        agent = build(recipe, spaces, config)
    agent.info["evaluation"] = to_dict(config.evaluation)
    if env is not None:
        agent.info["experience"] = {"env": env, "env_options": config.env_options}
    if ready is not None:
        agent.info["data"] = about_data(ready, config)
    return agent


def _source(
    config: ExperienceConfig,
    agent: Agent,
    collector: Collecting | None,
    ready: OfflineData | None,
    *,
    fresh: bool,
    files: Path,
) -> Experience:
    """The replay, filled with the data there is, and what collects into it."""
    learner = agent.learner
    program = learner.program if isinstance(learner, ModelLearner) else None
    columns = program.latent_columns() if program is not None else {}
    ranking = learner if config.mix.priority and isinstance(learner, ModelLearner) else None
    if ranking is not None:
        ranking.surprises = []
    replay = ReplayBuffer(
        agent.spaces,
        capacity=config.capacity,
        streams=1 if collector is None else collector.num_envs,
        batch_size=config.train.batch_size,
        length=config.sequence,
        context=1 if columns else 0,
        seed=config.train.seed,
        mix=config.mix,
        online=config.online_queue,
        memory=config.memory,
        folder=files,
        extras=columns,
        expected=_expected(config, collector, ready),
        # States made anew change every file between two checkpoints; else files are shared.
        copies=2 + (config.train.keep_checkpoints if columns else 0),
    )
    if ready is not None:
        _fill(replay, ready.train, config)
    return Experience(
        collector,
        replay,
        train_ratio=config.train_ratio,
        prefill=config.prefill if ready is None else 0,
        explore="random" if fresh and ready is None else "agent",
        burst=config.burst,
        pretrain=config.pretrain,
        ahead=config.actors != "inline" and config.collect_ahead,
        program=program if columns else None,
        surprises=None if ranking is None else lambda: ranking.surprises,
    )


def _expected(
    config: ExperienceConfig, collector: Collecting | None, ready: OfflineData | None
) -> int:
    """Rows that the whole run writes."""
    recorded = 0 if ready is None else ready.train.num_rows
    if collector is None:
        return recorded
    return recorded + config.prefill + math.ceil(config.train.updates * config.rows_per_update)


def _fill(replay: ReplayBuffer, data: TrajectoryDataset, config: ExperienceConfig) -> None:
    if config.frame_skip != 1:
        raise ConfigError(
            f"frame_skip is {config.frame_skip}, but recorded episodes are replayed row by row; use 1"
        )
    rows = (data.rows(number) for number in range(len(data)))
    replay.fill(rows, data.num_rows)
    log.info("the replay holds %s rows of %s", f"{len(replay):,}", data.name)


def _evaluation(agent: Agent, config: ExperienceConfig) -> Evaluate | None:
    """What measures the agent while it trains, if it is asked for and there is an environment."""
    wanted = config.train.eval_every or config.train.keep == "best"
    return evaluate_otherwise if wanted and agent.info["evaluation"]["env"] else None
