"""A data set made ready for a recipe, and a fresh agent made ready for a data set."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from wm_toolkit.agents.agent import Agent
from wm_toolkit.config import to_dict
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.windows import LastAction, Windows
from wm_toolkit.errors import ConfigError, did_you_mean
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import seeding
from wm_toolkit.training.config import EvaluationConfig, OfflineConfig, ReturnConfig
from wm_toolkit.training.evaluate import state_key
from wm_toolkit.training.inputs import observation_spaces


@dataclasses.dataclass(frozen=True)
class OfflineData:
    """A data set made ready for a recipe.

    Attributes:
        train: the episodes the model learns from.
        held_out: the episodes it never sees.
        spaces: what the model reads and does: chosen observations, blocked and scaled actions.
    """

    train: TrajectoryDataset
    held_out: TrajectoryDataset
    spaces: Spaces

    def windows(
        self, part: TrajectoryDataset, length: int, *, last_action: LastAction = "filler"
    ) -> Windows:
        """Windows of one part, with actions as the model takes them."""
        return part.windows(
            length,
            frame_skip=self.spaces.block,
            spaces=self._all_spaces(part),
            last_action=last_action,
        )

    def _all_spaces(self, part: TrajectoryDataset) -> Spaces:
        return dataclasses.replace(self.spaces, observation=part.spaces.observation)


def offline_data(data: TrajectoryDataset, config: OfflineConfig) -> OfflineData:
    """Split a data set as the evaluation protocol says, and derive the model's spaces from it.

    Actions are standardised with the statistics of the training part alone.

    Raises:
        ConfigError: if the data set lacks an observation the recipe reads.
        DataError: naming file, episode and row of an action that is no number or lies outside its space;
            or if the release's own split is asked for and there is none.
    """
    data.check_actions()
    protocol = config.evaluation
    if protocol.split == "released":
        train, held_out = data.released_split()
    else:
        train, held_out = data.split(1 - protocol.holdout, seed=protocol.split_seed)
    have = observation_spaces(data)
    for key in config.observations:
        if key not in have:
            raise ConfigError(f"{data!r} has no observation {key!r}.{did_you_mean(key, have)}")
    chosen = {key: have[key] for key in config.observations or have}
    spaces = dataclasses.replace(data.spaces, observation=chosen).blocked(config.frame_skip)
    if config.action_scaling == "standardise" and not spaces.discrete:
        action = train.statistics(["action"])["action"]
        spaces = spaces.standardised(np.asarray(action.mean), np.asarray(action.std))
    return OfflineData(train, held_out, spaces)


def offline_agent(recipe: str, config: Any, ready: OfflineData) -> Agent:
    """A fresh agent that knows what it will be trained on and how it will be measured.

    Initial weights are drawn from the run's seed and leave the caller's random stream as it was.
    """
    with seeding.own_stream(config.train.seed):
        agent = build(recipe, ready.spaces, config)
    protocol = protocol_for(config.evaluation, ready.train)
    agent.info |= {"evaluation": to_dict(protocol), "data": about_data(ready, config)}
    return agent


def protocol_for(
    protocol: EvaluationConfig | ReturnConfig, data: TrajectoryDataset
) -> EvaluationConfig | ReturnConfig:
    """A protocol with what it leaves to the data set: the environment, the column of states."""
    if isinstance(protocol, EvaluationConfig):
        protocol = dataclasses.replace(protocol, state_key=state_key(protocol, data))
    if protocol.env:
        return protocol
    recorded = data.metadata.get("env_options") or {}
    return dataclasses.replace(
        protocol,
        env=str(data.metadata.get("env", "")),
        env_options={**recorded, **protocol.env_options},
    )


def about_data(ready: OfflineData, config: OfflineConfig) -> dict[str, Any]:
    """What an artefact says about the data it was trained on."""
    data = ready.train
    return {
        "name": data.name,
        "path": str(data.path.resolve()) if data.path else None,
        "checksum": data.checksum,
        "episodes": len(ready.train) + len(ready.held_out),
        "frame_skip": config.frame_skip,
        "made": data.metadata.get("made"),
    }
