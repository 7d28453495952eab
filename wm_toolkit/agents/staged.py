"""Learning one part after the other: vision, then memory, then a controller."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from torch import nn

from wm_toolkit.agents.agent import Learner
from wm_toolkit.agents.model_learner import Program
from wm_toolkit.batch import Batch, Losses, Metrics
from wm_toolkit.errors import CheckpointError, ConfigError
from wm_toolkit.models.base import WorldModel


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of the training.

    Attributes:
        name: for people.
        updates: how many it takes.
        modules: whose parameters learn by gradients in it.
        learner: makes an update of it.
    """

    name: str
    updates: int
    modules: tuple[nn.Module, ...]
    learner: Learner


class StagedLearner:
    """One learner after the other, each for its number of updates; the last one goes on for ever.

    Args:
        model: of all of them; outside its stage no part of it needs a gradient.
        stages: in order.

    Attributes:
        updates: made so far, in all stages.

    Raises:
        ConfigError: without stages, or for one without updates.

    Example:
        >>> StagedLearner(model, [Stage("vision", 1000, model.vision(), ModelLearner(...)), ...])
    """

    def __init__(self, model: WorldModel, stages: Sequence[Stage]) -> None:
        if not stages or min(stage.updates for stage in stages) < 1:
            raise ConfigError(
                f"stages of {[s.updates for s in stages]} updates; each needs at least 1"
            )
        self.model, self.stages, self.updates = model, list(stages), 0
        train_only(model, self.stage.modules)

    @property
    def number(self) -> int:
        """Of the stage that the next update belongs to."""
        return stage_of([stage.updates for stage in self.stages], self.updates)[0]

    @property
    def stage(self) -> Stage:
        """That stage."""
        return self.stages[self.number]

    def prepare(self, accelerator: Accelerator) -> None:
        """Prepare every stage's learner, each with gradients for its own part alone."""
        for stage in self.stages:
            train_only(self.model, stage.modules)
            stage.learner.prepare(accelerator)
        train_only(self.model, self.stage.modules)

    def learn(self, batch: Batch) -> Metrics:
        """One update of the present stage on the batch [B, T] it asks for.

        Returns:
            what the stage's learner reports, and "stage", its number.
        """
        number, stage = self.number, self.stage
        train_only(self.model, stage.modules)
        metrics = stage.learner.learn(batch)
        self.updates += 1
        return metrics | {"stage": float(number)}

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """As the present stage says."""
        with self.stage.learner.evaluation_weights():
            yield

    def state_dict(self) -> dict[str, Any]:
        """Updates, and the state of every stage."""
        states = [stage.learner.state_dict() for stage in self.stages]
        return {"updates": self.updates, "stages": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: if there were other stages.
        """
        if len(state["stages"]) != len(self.stages):
            raise CheckpointError(
                f"the saved learner has {len(state['stages'])} stages, this one {len(self.stages)}"
            )
        self.updates = state["updates"]
        for stage, saved in zip(self.stages, state["stages"], strict=True):
            stage.learner.load_state_dict(saved)


class Part(Program):
    """Some of a model's losses: those of one stage.

    Args:
        model: the model.
        losses: name of its method from a batch [B, T] to them.
    """

    def __init__(self, model: WorldModel, losses: str) -> None:
        super().__init__(model)
        self.losses = losses

    def forward(self, batch: Batch) -> Losses:
        """The unreduced losses of [B, T] windows."""
        return getattr(self.model, self.losses)(batch)


def stage_of(lengths: Sequence[int], update: int) -> tuple[int, int]:
    """Which stage update `update` (from 0) belongs to, and its number inside it."""
    for number, length in enumerate(lengths[:-1]):
        if update < length:
            return number, update
        update -= length
    return len(lengths) - 1, update


def train_only(model: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Let exactly the parameters of these modules need a gradient."""
    model.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
