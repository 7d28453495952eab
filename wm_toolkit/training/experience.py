"""Online data: run environments as fast as the updates ask for, and hand out what was seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.checkpoint import load_json, replace_folder, save_json
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.errors import ConfigError
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collector import Collecting, Rows
from wm_toolkit.training.hooks import Hook

if TYPE_CHECKING:
    from wm_toolkit.agents.model_learner import Program
    from wm_toolkit.training.trainer import Trainer

BUFFER, ACTING, HEAD = "replay", "acting", "experience.json"
NEWEST = 10
"""Finished episodes whose mean is logged."""
PIECE = 128
"""Rows of every environment that are asked for at once."""


class Experience:
    """A `StoredSource` that collects: before each batch the environments catch up with the updates.

    Args:
        collector: acts in the environments; None replays what is there, alone.
        replay: where rows go, with one stream per environment.
        train_ratio: rows replayed per row collected; B T / train_ratio rows lie between two updates.
        prefill: rows collected before the first batch, at least enough for one sequence of each
            environment if the replay is empty.
        explore: how the prefill is collected: by "random" actions, or as the "agent" acts.
        burst: updates made one after another before the environments catch up.
        pretrain: updates made on the prefill alone, before the environments go on.
        ahead: ask for the rows of the next burst before this one begins, for collectors that work beside
            the learner: they act with weights that are a burst older. Which rows are asked for when does
            not depend on how fast anybody is.
        program: what computes the losses, if it keeps the states it filtered: they are written back
            into the replay.
        surprises: [B] pieces that say, once an update is over, how badly its windows were predicted: their
            priorities from then on. For a replay that draws by priority.

    Attributes:
        rows: rows collected, of all environments; an episode's last row holds no decision.
        batches: handed out.

    Raises:
        ConfigError: if environments and replay do not fit, or a number is out of range.

    Example:
        >>> source = Experience(Collector(agent, envs), replay, train_ratio=512, prefill=1000)
        >>> Trainer(agent, source, run_dir="runs/1", config=TrainConfig(updates=5000)).train()
    """

    def __init__(
        self,
        collector: Collecting | None,
        replay: ReplayBuffer,
        *,
        train_ratio: float,
        prefill: int = 1000,
        explore: Literal["random", "agent"] = "random",
        burst: int = 1,
        pretrain: int = 0,
        ahead: bool = False,
        program: Program | None = None,
        surprises: Callable[[], Sequence[Tensor] | None] | None = None,
    ) -> None:
        streams = replay.rings.streams
        if collector is not None and collector.num_envs != streams:
            raise ConfigError(
                f"{collector.num_envs} environments and a replay of {streams} streams; expected as "
                "many"
            )
        if train_ratio <= 0 or burst < 1 or pretrain < 0:
            raise ConfigError(
                f"train_ratio is {train_ratio}, burst {burst}, pretrain {pretrain}; expected above 0, at "
                "least 1, at least 0"
            )
        self.collector, self.replay, self.program = collector, replay, program
        self.train_ratio, self.burst, self.explore = train_ratio, burst, explore
        self.pretrain, self.ahead, self.surprises = pretrain, ahead, surprises
        self.prefill = prefill if replay.starts else max(prefill, replay.span * streams)
        self.rows = self.batches = 0
        self._shown: Tensor | None = None

    @property
    def spaces(self) -> Spaces:
        """What the batches hold."""
        return self.replay.spaces

    @property
    def rows_per_update(self) -> float:
        """Rows that are collected between two updates."""
        return self.replay.batch_size * self.replay.length / self.train_ratio

    # -- the stream --------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self._write_back()
        if self.batches % self.burst == 0:
            self._catch_up()
        self.batches += 1
        batch = next(self.replay)
        self._shown = batch.index
        return batch

    def _catch_up(self) -> None:
        """Keep the rows that are due before this burst, and ask for those of the next."""
        self._receive()
        while steps := self._steps_before(self.batches):
            self._ask(min(steps, PIECE))
            self._receive()
        if self.ahead:
            self._ask(self._steps_before(self.batches + self.burst))

    def _steps_before(self, batches: int) -> int:
        """How often every environment has to step before so many batches have been handed out."""
        if self.collector is None:
            return 0
        due = self.prefill + max(0, batches - self.pretrain) * self.rows_per_update
        return max(0, math.ceil((due - self.rows) / self.replay.rings.streams))

    def _ask(self, steps: int) -> None:
        if self.collector is not None and steps:
            random = self.explore == "random" and self.rows < self.prefill
            self.collector.ask(steps, random=random, update=self.batches)

    def _receive(self) -> None:
        """Keep the rows that were asked for."""
        if self.collector is not None:
            for rows in self.collector.rows():
                self._keep(rows)

    def _keep(self, rows: Rows) -> None:
        self.replay.add(**rows)
        self.rows += self.replay.rings.streams

    def _write_back(self) -> None:
        """Keep what the newest update found out about its batch: latents made anew, and priorities."""
        if self._shown is None:
            return
        if self.program is not None and self.program.latents:
            self.replay.write(self._shown, self.program.latents)
        if self.surprises is not None and (pieces := self.surprises()):
            self.replay.prioritise(self._shown, torch.cat(list(pieces)))
        self._shown = None

    def progress(self) -> Metrics:
        """How far the environments are, and the mean return and length of the newest episodes."""
        done = self.collector
        if done is None:
            return {}
        found: Metrics = {"env/steps": done.steps, "env/episodes": len(done.returns)}
        for name, values in (("return", done.returns), ("length", done.lengths)):
            if newest := values[-NEWEST:]:
                found[f"env/{name}"] = sum(newest) / len(newest)
        return found

    # -- resuming ----------------------------------------------------------------------------------
    def save(self, folder: str | Path, previous: str | Path | None = None) -> None:
        """Write everything an exact resume needs.

        Args:
            folder: where to.
            previous: where it was saved to before, to share what has not changed.

        Raises:
            CheckpointError: if it cannot be written.
        """
        self._write_back()
        self._receive()
        if self.collector is not None and self.collector.settle():
            self._keep(self.collector.cut())
        with replace_folder(Path(folder)) as target:
            self.replay.save(target / BUFFER, previous and Path(previous) / BUFFER)
            if self.collector is not None:
                self.collector.save(target / ACTING)
            save_json(target / HEAD, {"rows": self.rows, "batches": self.batches})

    def load(self, folder: str | Path) -> None:
        """Go on where `save` was called.

        Raises:
            CheckpointError: if the folder is damaged, or of other environments.
        """
        folder = Path(folder)
        self.replay.load(folder / BUFFER)
        for name, value in load_json(folder / HEAD).items():
            setattr(self, name, value)
        if self.collector is not None and self.collector.load(folder / ACTING):
            self._keep(self.collector.cut())


class ExperienceLog(Hook):
    """Logs how far the environments are, and what the newest episodes returned.

    Args:
        source: what collects.
        every: updates between two lines.
    """

    def __init__(self, source: Experience, *, every: int = 10) -> None:
        self.source, self.every = source, every

    def after_update(self, trainer: Trainer, metrics: Metrics) -> Metrics:
        """A line on every `every`-th update and on the last."""
        due = trainer.update % self.every == 0 or trainer.update >= trainer.config.updates
        return self.source.progress() if due else {}

    def before_evaluation(self, trainer: Trainer) -> None:
        """Let the artefact say how much was seen."""
        seen = self.source.progress()
        counted = {name: int(seen[f"env/{name}"]) for name in ("steps", "episodes")}
        info = trainer.agent.info
        info["experience"] = {**info.get("experience", {}), **counted}
