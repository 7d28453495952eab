"""Extensions of a training run, called at fixed points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.errors import ConfigError, did_you_mean
from wm_toolkit.training.representation import effective_rank, probe_r2, spread

if TYPE_CHECKING:
    from wm_toolkit.training.trainer import Trainer


class Hook:
    """Called by a `Trainer` in every process; a subclass overrides what it needs.

    What a hook draws from torch's global generator does not move the training's own stream. A hook with
    a memory returns it from `state_dict`, so that a resumed run equals an uninterrupted one.
    """

    def before_training(self, trainer: Trainer) -> None:
        """Before the first update of this start, after a checkpoint was restored."""
        return

    def after_update(self, trainer: Trainer, metrics: Metrics) -> Metrics:
        """After update `trainer.update`; what is returned is logged, whatever `log_every` says."""
        return {}

    def before_evaluation(self, trainer: Trainer) -> None:
        """Before an evaluation and before the artefact is written, with the weights for both."""
        return

    def at_evaluation(self, trainer: Trainer, results: Mapping[str, float]) -> None:
        """After an evaluation."""
        return

    def after_training(self, trainer: Trainer) -> None:
        """After the last update of this start, also when it failed."""
        return

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        return


class CollapseMonitor(Hook):
    """Watches a representation for collapse on a fixed held-out batch.

    Logs `monitor/spread` (mean deviation per feature; 0 is collapse, 1 what SIGReg aims at),
    `monitor/effective_rank` (how many directions are used) and `monitor/probe_r2/<column>` (how well a
    linear map reads a known quantity off the features of windows it was not fitted to).

    Args:
        batch: held-out windows [B, T]; half of the windows fit the probes, the others test them.
        probes: names of columns of `batch.extras` or `batch.obs`, [B, T, n] each, to read off.
        every: updates between two looks.
        features: model and batch to features [B, T, F]; by default those of the filtered states.

    Raises:
        ConfigError: if the batch has no such column, or fewer than two windows.

    Example:
        >>> Trainer(agent, source, hooks=[CollapseMonitor(batch, probes=("position",))], ...)
    """

    def __init__(
        self,
        batch: Batch,
        probes: Sequence[str] = (),
        *,
        every: int = 50,
        features: Callable[[Any, Batch], Tensor] | None = None,
    ) -> None:
        if len(batch) < 2:
            raise ConfigError("CollapseMonitor needs at least two windows, to fit and to test on")
        columns = batch.obs | batch.extras
        for name in probes:
            if name not in columns:
                raise ConfigError(f"no column {name!r} to probe.{did_you_mean(name, columns)}")
        self.batch, self.every = batch, every
        self.targets = {name: columns[name] for name in probes}
        self.features = features or observed_features

    def after_update(self, trainer: Trainer, metrics: Metrics) -> Metrics:
        """Look at the representation on every `every`-th update."""
        if trainer.update % self.every:
            return {}
        return self.measure(trainer.agent.model)

    def measure(self, model: Any) -> Metrics:
        """Spread, effective rank and probe R2 of a model now."""
        training = model.training
        model.eval()
        with torch.no_grad():
            features = self.features(model, self.batch.to(model.device)).float()
        model.train(training)
        rows = features.flatten(0, 1)
        found: Metrics = {
            "monitor/spread": spread(rows),
            "monitor/effective_rank": effective_rank(rows),
        }
        half, length = len(features) // 2, features.shape[1]
        for name, target in self.targets.items():
            values = target.to(features.device).float().reshape(len(rows), -1)
            # Neighbouring rows are alike, so whole windows are held out.
            found[f"monitor/probe_r2/{name}"] = probe_r2(rows, values, split=half * length)
        return found


class Calibrate(Hook):
    """Re-estimates BatchNorm statistics before every evaluation and before the model is saved.

    Args:
        batches: training batches [B, T], the same ones every time.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = list(batches)

    def before_evaluation(self, trainer: Trainer) -> None:
        """Call `model.calibrate` on the batches."""
        model = trainer.agent.model
        model.calibrate(batch.to(model.device) for batch in self.batches)


def observed_features(model: Any, batch: Batch) -> Tensor:
    """[B, T, F] features of the states that the model filters from a batch, always with equal noise."""
    noise = torch.Generator(model.device).manual_seed(0)
    return model.features(model.observe_sequence(batch, generator=noise))
