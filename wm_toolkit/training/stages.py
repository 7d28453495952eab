"""Training in stages: random rollouts, then vision, memory and controller, one after the other."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_toolkit.agents.agent import Agent
from wm_toolkit.agents.staged import stage_of
from wm_toolkit.batch import Batch
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.data.trajectory import OBS
from wm_toolkit.envs.make import make_vec
from wm_toolkit.errors import ConfigError, DataError
from wm_toolkit.models.mdn_rnn import LATENT, MDNRNN
from wm_toolkit.nn.distributed import processes, rank
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collect import Progress, RandomPolicy, collect
from wm_toolkit.training.config import ReturnConfig, at_least_one
from wm_toolkit.training.experience_config import ExperienceConfig
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.offline import offline_agent, offline_data, protocol_for
from wm_toolkit.training.trainer import Trainer, TrainResult

ROLLOUTS = "rollouts.h5"
ENCODED_AT_ONCE = 256  # frames


@dataclasses.dataclass(frozen=True)
class StageData:
    """What the batches of one stage hold.

    Attributes:
        updates: of the stage; the last one takes what is left of `train.updates`.
        length: T.
        batch_size: B, over all processes.
        begin: windows begin at "any" row, or at the "first" of an episode.
        reads: the "frames", what V made of them ("codes"), or "both".
    """

    updates: int
    length: int
    batch_size: int
    begin: Literal["any", "first"] = "any"
    reads: Literal["frames", "codes", "both"] = "frames"


@dataclasses.dataclass(frozen=True)
class StagedConfig(ExperienceConfig):
    """Learns from random rollouts in stages. `train.updates` counts all of them.

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
        at_least_one(self, "rollouts", "rollout_steps")
        if not 0 <= self.sticky < 1:
            raise ConfigError(f"sticky is {self.sticky}, expected a probability below 1")

    @property
    def stages(self) -> tuple[StageData, ...]:
        """What each stage reads, in order."""
        raise ConfigError(f"{type(self).__name__} does not say what its stages are")


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
        init: not taken; stages begin from nothing.
        hooks: further hooks, such as a progress bar.
        progress: told how many rollouts are recorded.

    Raises:
        ConfigError: with neither environment nor data, or with `init`.
        DataError: if the folder's rollouts were recorded with other settings.
    """
    if init is not None:
        raise ConfigError(f"{recipe} learns its stages from nothing; leave init out")
    if config.frame_skip != 1:
        raise ConfigError(f"{recipe} learns from every frame; frame_skip is {config.frame_skip}")
    if config.actors != "inline":
        raise ConfigError(f"{recipe} records its rollouts itself; actors is {config.actors!r}")
    config = _named(config, env)
    if data is None:
        data = record_rollouts(config, Path(run_dir) / ROLLOUTS, progress)
    config = dataclasses.replace(config, evaluation=protocol_for(config.evaluation, data))
    ready = offline_data(data, config)
    agent = offline_agent(recipe, config, ready)
    model = agent.model
    if not isinstance(model, MDNRNN):
        raise ConfigError(f"{recipe} builds a {type(model).__name__}, which has no stages")
    source = StagedSource(ready.train, model, config.stages, seed=config.train.seed)
    trainer = Trainer(agent, source, run_dir=run_dir, config=config.train, hooks=hooks)
    return agent, trainer.train()


def _named(config: StagedConfig, env: str | None) -> StagedConfig:
    """The config whose protocol says which environment is meant, and how it is made."""
    if not env:
        return config
    protocol = config.evaluation
    options = {**config.env_options, **protocol.env_options}
    named = dataclasses.replace(protocol, env=protocol.env or env, env_options=options)
    return dataclasses.replace(config, evaluation=named)


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


# -- batches -----------------------------------------------------------------------------------------
class StagedSource:
    """The batches that each stage asks for, drawn from (seed, position) alone (a `Source`).

    A window is T consecutive rows, across the ends of episodes: `is_first` says where one begins. So the
    rows that end an episode come up as often as any other.

    Args:
        data: recorded trajectories.
        model: makes codes of the frames, once, when a stage first asks for them.
        stages: in order; the last one goes on for ever.
        seed: of the draws.
    """

    def __init__(
        self, data: TrajectoryDataset, model: MDNRNN, stages: Sequence[StageData], *, seed: int = 0
    ) -> None:
        self.data, self.model, self.stages, self.seed = data, model, tuple(stages), seed
        self.position = 0
        lengths = data.episode_lengths
        begins = np.cumsum(lengths) - lengths
        self._rows = np.concatenate(
            [first + np.arange(n) for first, n in zip(data.episode_starts, lengths, strict=True)]
        )
        self._first = np.zeros(len(self._rows), bool)
        self._first[begins] = True
        self._begins = begins
        self._codes: Tensor | None = None
        for stage in self.stages:
            if len(self._rows) < stage.length or stage.batch_size % processes():
                raise DataError(
                    f"{len(self._rows)} rows cannot give {stage}, shared by {processes()} processes"
                )

    @property
    def spaces(self) -> Spaces:
        """What the batches hold."""
        return self.model.spaces

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        number, _ = stage_of([stage.updates for stage in self.stages], self.position)
        stage = self.stages[number]
        rng = np.random.default_rng([self.seed, self.position])
        self.position += 1
        if stage.begin == "first":
            allowed = self._begins[self._begins + stage.length <= len(self._rows)]
            starts = allowed[rng.integers(len(allowed), size=stage.batch_size)]
        else:
            starts = rng.integers(len(self._rows) - stage.length + 1, size=stage.batch_size)
        share = stage.batch_size // processes()
        return self._gather(starts[rank() * share :][:share], stage)

    def _gather(self, starts: NDArray[np.int64], stage: StageData) -> Batch:
        """[B, T] the windows that begin at these places of the stream."""
        places = starts[:, None] + np.arange(stage.length)
        rows = self._rows[places]
        columns = self.data.columns
        key = self.model.encoder.key
        frames = {} if stage.reads == "codes" else {key: columns[OBS + key].array[rows]}
        codes = (
            {} if stage.reads == "frames" else {LATENT: self._encoded()[torch.as_tensor(places)]}
        )
        return Batch(
            obs={name: torch.from_numpy(np.asarray(x)) for name, x in frames.items()},
            action=self.spaces.encode_action(columns["action"].array[rows]),
            is_first=torch.from_numpy(self._first[places]),
            terminated=torch.from_numpy(np.asarray(columns["terminated"].array[rows])),
            index=torch.from_numpy(starts),
            extras=codes,
        )

    @torch.no_grad()
    def _encoded(self) -> Tensor:
        """[rows, 2 Z] what V makes of every frame; V no longer changes when it is asked."""
        if self._codes is None:
            encoder, found = self.model.encoder, []
            frames = self.data.columns[OBS + encoder.key].array
            for at in range(0, len(self._rows), ENCODED_AT_ONCE):
                chunk = np.asarray(frames[self._rows[at : at + ENCODED_AT_ONCE]])
                images = torch.from_numpy(chunk).to(self.model.device)
                statistics = encoder.statistics(encoder.pixels({encoder.key: images}))
                found.append(torch.cat(statistics, -1).float().cpu())
            self._codes = torch.cat(found)
        return self._codes

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self.position = state["position"]
