"""Several collectors in processes of their own, which an `Experience` uses as if they were one here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load

from wm_toolkit.agents.agent import Agent
from wm_toolkit.checkpoint import load_json, save_json
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collector import Rows, load_snapshot, save_snapshot
from wm_toolkit.training.experience_config import ExperienceConfig
from wm_toolkit.training.lines import Line
from wm_toolkit.training.worker import ActorJob, Collected, Copy, packed

FACTS = "acting.json"


class RemoteCollectors:
    """Actors that collect side by side, with copies of the learner's agent.

    Nothing depends on who is fast: rows are asked for in fixed numbers, weights are sent at fixed updates,
    and rows of all actors are put together in their order. One actor, whose weights are sent before every
    question and waited for, collects what a `Collector` here would collect, bit for bit. Several draw
    their noise apart and see smaller batches, so they do not.

    Args:
        agent: the learner's.
        lines: to each actor.
        num_envs: of all of them together.
        sync_every: updates after which the weights are sent again.

    Attributes:
        steps, returns, lengths: as `Collector`'s, of all actors together.

    Example:
        >>> with open_lines("process", actor_jobs(recipe, config, spaces, env)) as lines:
        ...     source = Experience(RemoteCollectors(agent, lines, num_envs=8), replay, ahead=True, ...)
    """

    def __init__(
        self, agent: Agent, lines: Sequence[Line], *, num_envs: int, sync_every: int = 1
    ) -> None:
        self.agent, self.lines, self.sync_every = agent, lines, sync_every
        self._num_envs = num_envs
        self.steps = 0
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self._sent: int | None = None
        self._waiting = False

    @property
    def num_envs(self) -> int:
        """N, environments side by side, of all actors together."""
        return self._num_envs

    # -- acting ------------------------------------------------------------------------------------
    def ask(self, steps: int, *, random: bool = False, update: int = 0) -> None:
        """Let every actor begin so many rows, with new weights if those it has are too old."""
        copy = None
        if self._sent is None or update - self._sent >= self.sync_every:
            copy, self._sent = Copy.of(self.agent), update
        for line in self.lines:
            line.ask("collect", steps, random, copy)
        self._waiting = True

    def rows(self) -> Iterator[Rows]:
        """Wait for the rows that were asked for; none where none were.

        Raises:
            ActorError: if an actor failed or died.
        """
        if not self._waiting:
            return
        self._waiting = False
        parts: list[Collected] = [line.answer() for line in self.lines]
        self.steps = sum(part.steps for part in parts)
        for part in parts:
            self.returns += part.returns
            self.lengths += part.lengths
        yield from map(beside, zip(*(part.rows for part in parts), strict=True))

    # -- stopping and going on -----------------------------------------------------------------------
    def settle(self) -> bool:
        """Be ready to be saved; whether episodes of any actor must be cut first.

        The weights are sent anew after it, as they are not saved with the actors.
        """
        self._sent = None
        return any(self._everywhere("settle"))

    def cut(self) -> Rows:
        """As `Collector.cut`, everywhere."""
        return beside(self._everywhere("cut"))

    def save(self, folder: str | Path) -> None:
        """Write what `load` needs; call `settle` first."""
        folder = Path(folder)
        folder.mkdir(exist_ok=True)
        for number, (tensors, about) in enumerate(self._everywhere("snapshot")):
            save_snapshot(_folder(folder, number), (load(tensors), about))
        facts = {name: getattr(self, name) for name in ("steps", "returns", "lengths")}
        save_json(folder / FACTS, facts)

    def load(self, folder: str | Path) -> bool:
        """Go on where `save` was called; whether episodes of any actor must be cut.

        Raises:
            CheckpointError: if the folder is damaged.
        """
        folder = Path(folder)
        for name, value in load_json(folder / FACTS).items():
            setattr(self, name, value)
        for number, line in enumerate(self.lines):
            tensors, about = load_snapshot(_folder(folder, number))
            line.ask("restore", packed(tensors), about)
        cut = [line.answer() for line in self.lines]
        return any(cut)

    def _everywhere(self, method: str) -> list[Any]:
        """What every actor answers, after all of them were asked."""
        for line in self.lines:
            line.ask(method)
        return [line.answer() for line in self.lines]


def actor_jobs(recipe: str, config: ExperienceConfig, spaces: Spaces, env: str) -> list[ActorJob]:
    """What each actor of a config does: neighbouring environments, as many everywhere as can be."""
    parts = np.array_split(np.arange(config.envs), config.actor_processes)
    return [
        ActorJob(number, recipe, config, spaces, env, range(int(part[0]), int(part[-1]) + 1))
        for number, part in enumerate(parts)
    ]


def beside(parts: Sequence[Rows]) -> Rows:
    """Rows of several collectors as those of one."""
    if len(parts) == 1:
        return parts[0]

    def joined(values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):
            return {name: joined([value[name] for value in values]) for name in values[0]}
        return np.concatenate(values)

    return joined(parts)


def _folder(folder: Path, number: int) -> Path:
    return folder / f"actor_{number}"
