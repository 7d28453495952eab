"""Looks at a model's dreams while it trains: numbers into the log, pictures into the run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from wm_toolkit.batch import Batch, Metrics
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.data.trajectory import OBS
from wm_toolkit.errors import ConfigError
from wm_toolkit.render.dreams import look, save_look
from wm_toolkit.training.hooks import Hook
from wm_toolkit.training.offline import OfflineData
from wm_toolkit.training.trainer import Trainer

WINDOWS, ROWS = 16, 50
"""How many sequences are dreamt along, and their most rows."""


class DreamReport(Hook):
    """Dreams along recorded sequences and compares with what happened.

    Logs `dream/...`: errors of latent state and decoded observations some steps ahead beside copy-last's,
    calibration of reward and continue head. Every strip is put into TensorBoard; the newest pictures lie in
    the run folder, where the report page finds them. Sequences in which there is nothing to dream are passed over.

    Args:
        sequences: held-out windows [B, T], or where to get them; None takes the newest finished episodes
            of the replay that the run collects.
        every: updates between two looks; the last update is looked at too.
        context: rows observed before the dream begins.
        examples: windows in every picture.

    Raises:
        ConfigError: if a number is out of range, or there is no replay to take sequences from.

    Example:
        >>> train_online("dreamer_v3.nano", config, "CartPole-v1", "runs/1", hooks=[DreamReport()])
    """

    def __init__(
        self,
        sequences: Batch | Callable[[], Batch | None] | None = None,
        *,
        every: int = 1000,
        context: int = 5,
        examples: int = 3,
    ) -> None:
        if min(every, context, examples) < 1:
            raise ConfigError(
                f"every is {every}, context {context}, examples {examples}; expected at least 1"
            )
        self.sequences, self.every = sequences, every
        self.context, self.examples = context, examples

    def before_training(self, trainer: Trainer) -> None:
        """Find the replay, if sequences come from there."""
        if self.sequences is None:
            replay = getattr(trainer.source, "replay", None)
            if not isinstance(replay, ReplayBuffer):
                raise ConfigError(
                    f"DreamReport has no sequences, and {type(trainer.source).__name__} keeps no replay "
                    "to take them from; give it held-out windows"
                )
            self.sequences = lambda: newest_windows(replay, least=self.context + 1)

    def due(self, trainer: Trainer) -> bool:
        """Whether this is an `every`-th update, or the last."""
        return trainer.update % self.every == 0 or trainer.update >= trainer.config.updates

    def after_update(self, trainer: Trainer, metrics: Metrics) -> Metrics:
        """Look, if it is time to."""
        if not self.due(trainer):
            return {}
        batch = self.sequences() if callable(self.sequences) else self.sequences
        if batch is None or batch.action.shape[1] <= self.context:
            return {}
        model = trainer.agent.model
        found = look(model, batch, context=self.context, examples=self.examples)
        if trainer.is_main:
            save_look(found, trainer.run_dir)
        for key, strip in found.strips.items():
            trainer.picture(f"dream/{key}", strip)
        return dict(found.dreams.metrics())


def held_out_windows(ready: OfflineData) -> Batch | None:
    """Evenly spaced windows [B, T] of the episodes that training never sees.

    Returns:
        the windows, T at most half the episodes' median length but at least 2 rows; or None if no held-out
        episode is so long.
    """
    typical = int(np.median(ready.held_out.episode_lengths))
    windows = ready.windows(ready.held_out, max(2, min(ROWS, typical // 2)))
    if not len(windows):
        return None
    chosen = np.linspace(0, len(windows) - 1, min(WINDOWS, len(windows)))
    return windows.gather(chosen.round().astype(np.int64))


def newest_windows(
    replay: ReplayBuffer, *, windows: int = WINDOWS, length: int = ROWS, least: int = 6
) -> Batch | None:
    """The newest finished episodes of a replay, cut into windows [B, T] from their beginning on.

    Every row of an episode is in at most one window, so ends are as rare here as they are in truth. What
    a window has less than T rows is padded, and `mask` says so.

    Args:
        replay: where to look.
        windows: most of them, the newest episodes first.
        length: most rows of a window.
        least: rows below which a window is left out.

    Returns:
        the windows, or None while no episode is long enough.
    """
    pieces: list[tuple[int, int, int]] = []
    for stream, first, last in sorted(_episodes(replay), key=lambda e: e[2], reverse=True):
        begins = range(first, last - least + 2, length)
        pieces += [(stream, begin, min(begin + length - 1, last)) for begin in begins]
        if len(pieces) >= windows:
            break
    if not pieces:
        return None
    stream, first, last = np.array(pieces[:windows]).T
    number = first[:, None] + np.arange((last - first).max() + 1)
    mask = number <= last[:, None]
    return _read(replay, stream, np.minimum(number, last[:, None]), mask)


def _episodes(replay: ReplayBuffer) -> Iterator[tuple[int, int, int]]:
    """Stream, first and last row of every whole episode that is kept."""
    rings = replay.rings
    number = np.arange(rings.oldest, rings.written)[None]
    for stream in range(rings.streams):
        rows = {
            name: rings.read(name, np.array([stream]), number)[0]
            for name in ("is_first", "terminated", "truncated")
        }
        begin = np.maximum.accumulate(np.where(rows["is_first"], number[0], -1))
        for last in number[0][rows["terminated"] | rows["truncated"]]:
            first = begin[last - rings.oldest]
            if first >= 0:
                yield stream, int(first), int(last)


def _read(replay: ReplayBuffer, stream: np.ndarray, number: np.ndarray, mask: np.ndarray) -> Batch:
    """Rows [B, T] of streams [B]."""
    names = [name for name in replay.rings.specs if name not in replay.extras]
    rows = {n: torch.from_numpy(replay.rings.read(n, stream, number)) for n in names}
    return Batch(
        {name.removeprefix(OBS): x for name, x in rows.items() if name.startswith(OBS)},
        rows["action"],
        rows["is_first"],
        rows["reward"],
        rows["terminated"],
        rows["truncated"],
        mask=torch.from_numpy(mask),
    )
