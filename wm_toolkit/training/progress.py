"""A live progress bar for a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from wm_toolkit.batch import Metrics
from wm_toolkit.registry import RECIPES
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.logging import to_floats

if TYPE_CHECKING:
    from wm_toolkit.training.trainer import Trainer

HIDDEN = ("learning_rate", "grad_norm", "loss")
SMALL = ("nano", "small")
"""Presets that learn on a CPU."""
MANY = 20_000_000
"""Parameters that make a CPU take seconds for an update."""


def what_learns(trainer: Trainer) -> str:
    """How many parameters, where, for how long, on what; on a CPU, what would be small enough for it."""
    count = sum(p.numel() for p in trainer.agent.model.parameters())
    device = trainer.accelerator.device.type
    begun = f", going on after {trainer.update:,}" if trainer.update else ""
    read = ", ".join(trainer.agent.spaces.observation)
    text = f"{count:,} parameters on {device}, {trainer.config.updates:,} updates{begun}, reading {read}"
    name = trainer.agent.recipe.partition(".")[0]
    if device == "cpu" and count > MANY and name:
        text += "".join(
            f" ({name}.{preset} is the preset for a CPU)"
            for preset in SMALL
            if preset in RECIPES[name].presets
        )
    return text


class ProgressBar(Hook):
    """Updates done, time left, losses and what the monitors say.

    Give it last, so that it shows what the hooks before it measured.

    Args:
        console: where to draw; by default standard error, so that results can be piped.
        every: updates between two redraws of the numbers; reading them waits for the device.
    """

    def __init__(self, console: Console | None = None, *, every: int = 10) -> None:
        self.every = every
        self._shown: dict[str, float] = {}
        self._progress = _BarAndNumbers(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
        )
        self._task = self._progress.add_task("training", total=None)

    def before_training(self, trainer: Trainer) -> None:
        """Say what learns where, and start drawing, in the first process only."""
        if trainer.is_main:
            self._progress.console.print(what_learns(trainer), highlight=False)
            self._progress.update(
                self._task, total=trainer.config.updates, completed=trainer.update
            )
            self._progress.start()

    def after_update(self, trainer: Trainer, metrics: Metrics) -> Metrics:
        """Move on; refresh the numbers on every `every`-th update."""
        if trainer.is_main:
            if trainer.update % self.every == 0 or trainer.update == trainer.config.updates:
                self._shown |= _named(to_floats(metrics | trainer.measured))
            self._progress.numbers = _line(self._shown)
            self._progress.update(self._task, completed=trainer.update)
        return {}

    def at_evaluation(self, trainer: Trainer, results: Mapping[str, float]) -> None:
        """Show the first number of an evaluation."""
        self._shown |= dict(list(results.items())[:1])

    def after_training(self, trainer: Trainer) -> None:
        """Stop drawing; the last line stays."""
        if trainer.is_main:
            self._progress.stop()


class _BarAndNumbers(Progress):
    """A bar with a line of numbers below it, which wraps where the terminal is narrow."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the numbers."""
        yield from super().get_renderables()
        yield Text(self.numbers, style="dim")


def _named(metrics: dict[str, float]) -> dict[str, float]:
    """Short names for what is worth showing."""
    return {name.split("/", 1)[-1]: v for name, v in metrics.items() if name not in HIDDEN}


def _line(shown: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in shown.items())
