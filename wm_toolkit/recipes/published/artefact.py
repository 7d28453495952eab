"""What converting any published checkpoint needs: spaces and statistics, where it came from, a card."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np

from wm_toolkit.agents.agent import Agent
from wm_toolkit.config import to_dict
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.errors import ConfigError, SpaceError
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.training import seeding
from wm_toolkit.training.config import OfflineConfig
from wm_toolkit.training.jobs import offline_agent, offline_data, open_data


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Mean and deviation of every component of a column, as the published code standardises it."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or not all(x > 0 for x in self.std):
            raise ConfigError(
                f"mean {self.mean} and std {self.std}: expected as many positive deviations as means"
            )


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a published checkpoint was trained on, as far as it is known here.

    Attributes:
        data: name or path of its data set; everything else is then told from it.
        action: without data, statistics of one raw action.
        proprio: without data, statistics of the proprioception.
        bound: without data, raw actions lie between minus and plus this.
    """

    data: str | Path | None = None
    action: Numbers | None = None
    proprio: Numbers | None = None
    bound: float = 1.0

    def known(self, action: Numbers | None, proprio: Numbers | None) -> Origin:
        """With statistics that the release itself names, where none are given."""
        return dataclasses.replace(
            self, action=self.action or action, proprio=self.proprio or proprio
        )

    def proprio_numbers(self, size: int) -> Numbers:
        """Statistics of a proprioception of `size` numbers.

        Raises:
            ConfigError: if they are not known, with the ways to give them.
        """
        known = self.proprio
        if self.data is not None:
            known = _numbers(open_data(self.data), "obs/proprio")
        if known is None:
            raise ConfigError(MISSING.format("proprioception", "--proprio-mean, --proprio-std"))
        if len(known.mean) != size:
            raise ConfigError(
                f"the model reads {size} numbers of proprioception, the statistics are of "
                f"{len(known.mean)}"
            )
        return known


MISSING = (
    "published checkpoints do not hold mean and deviation of the {}, without which nothing can be "
    "planned. Name the data set (--data), or give both ({})"
)


def spaced_agent(
    recipe: str,
    config: OfflineConfig,
    origin: Origin,
    observation: Mapping[str, gym.Space],
    width: int,
) -> Agent:
    """A fresh agent of a recipe, whose weights are about to be replaced.

    Published models are standardised with statistics of the whole data set, not of the part they were
    trained on.

    Args:
        recipe: its name.
        config: filled from the published settings.
        origin: the data, or statistics.
        observation: what the model reads, where there are no data to tell it.
        width: of an action block.

    Raises:
        ConfigError: if there are neither data nor statistics, or the data lack an observation.
        SpaceError: if action blocks have another width.
    """
    if origin.data is None:
        spaces = _spaces(observation, origin, config.frame_skip)
        check_width(spaces, width)
        agent = fresh(recipe, config, spaces)
        agent.info["evaluation"] = to_dict(config.evaluation)
        return agent
    data = open_data(origin.data)
    ready = offline_data(data, config)
    action = _numbers(data, "action")
    spaces = ready.spaces.standardised(np.asarray(action.mean), np.asarray(action.std))
    check_width(spaces, width)
    return offline_agent(recipe, config, dataclasses.replace(ready, spaces=spaces))


def fresh(recipe: str, config: OfflineConfig, spaces: Spaces) -> Agent:
    """A new agent; the caller's random stream stays as it was."""
    with seeding.own_stream(0):
        return build(recipe, spaces, config)


def check_width(spaces: Spaces, width: int) -> None:
    """Raise a SpaceError unless encoded actions are `width` wide."""
    if spaces.action_width != width:
        raise SpaceError(
            f"the model takes action blocks {width} wide, but {spaces.block} actions of "
            f"{spaces.action_width // spaces.block} numbers are {spaces.action_width} wide; give the "
            "frame skip and the data it was trained with"
        )


def _spaces(observation: Mapping[str, gym.Space], origin: Origin, frame_skip: int) -> Spaces:
    if origin.action is None:
        raise ConfigError(MISSING.format("actions", "--mean, --std"))
    box = gym.spaces.Box(-origin.bound, origin.bound, (len(origin.action.mean),), np.float32)
    spaces = Spaces(dict(observation), box).blocked(frame_skip)
    return spaces.standardised(np.asarray(origin.action.mean), np.asarray(origin.action.std))


def _numbers(data: TrajectoryDataset, column: str) -> Numbers:
    """Of a column; a component that never changes is left as it is."""
    found = data.statistics([column])[column]
    std = [x if x > 0 else 1.0 for x in found.std.ravel().tolist()]
    return Numbers(tuple(found.mean.ravel().tolist()), tuple(std))


def save(agent: Agent, out: str | Path, files: Sequence[str | Path], about: str) -> Path:
    """Write a converted agent with a card that says what it was made from.

    Args:
        agent: filled.
        out: the artefact's folder.
        files: published files; their checksums are kept.
        about: sentences for the card.
    """
    agent.info["converted"] = {Path(file).name: checksum(file) for file in files}
    rows = "\n".join(f"| {name} | {sum_} |" for name, sum_ in agent.info["converted"].items())
    table = f"| published file | sha256 |\n|---|---|\n{rows}\n"
    card = f"{agent.default_card().rstrip()}\n\n{about}\n\n{table}"
    return agent.save_pretrained(out, card)


def checksum(file: str | Path) -> str:
    """sha256 of a file."""
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
