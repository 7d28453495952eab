"""What a model dreams against what happened: error by horizon, and pictures where it can draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.errors import MissingHeadError, ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.render.plots import Series, line_chart
from wm_toolkit.render.video import Pixels, film_strip


@dataclasses.dataclass(frozen=True)
class HorizonError:
    """Open-loop error 1 ... H steps ahead, in units of the embedding's variance.

    Attributes:
        model: [H] of the dream.
        copy: [H] of repeating the last seen embedding, the baseline every model must beat.
    """

    model: tuple[float, ...]
    copy: tuple[float, ...]


@torch.no_grad()
def horizon_error(
    model: WorldModel,
    batch: Batch,
    *,
    context: int = 1,
    generator: torch.Generator | None = None,
) -> HorizonError:
    """Dream on from the first rows of windows and compare with what the model sees there.

    error(k) = E |g(dreamt k) - g(seen k)|^2 / Var g(seen), g = `goal_features`, Var summed over width.

    Args:
        model: any world model.
        batch: [B, T] held-out windows.
        context: rows that are observed before the dream begins; T - context rows are dreamt.
        generator: for models that dream at random.

    Raises:
        ShapeError: if the windows leave nothing to dream.
    """
    seen, dreamt = _dream(model, batch, context, generator)
    truth = model.goal_features(seen)
    ahead = truth[:, context:]
    variance = truth.flatten(0, 1).var(0, unbiased=False).sum().clamp(min=1e-12)

    def error(guess: Tensor) -> tuple[float, ...]:
        return tuple(((guess - ahead).square().sum(-1).mean(0) / variance).tolist())

    last = truth[:, context - 1 : context].expand_as(ahead)
    return HorizonError(error(model.goal_features(dreamt)), error(last))


def horizon_chart(error: HorizonError) -> str:
    """The error by horizon beside copy-last, as an SVG chart."""
    steps = list(range(1, len(error.model) + 1))
    return line_chart(
        [
            Series("model", steps, error.model, markers=True),
            Series("copy last", steps, error.copy, dashed=True, markers=True),
        ],
        title="Open-loop prediction error",
        x_label="steps ahead",
        y_label="error / variance",
        log_y=min(*error.model, *error.copy) > 0,
    )


@torch.no_grad()
def dream_strips(
    model: WorldModel,
    batch: Batch,
    *,
    context: int = 1,
    windows: int = 2,
    image: str = "image",
    generator: torch.Generator | None = None,
) -> Pixels | None:
    """Truth, dream and their difference, one below the other, for some windows: [H, W, 3].

    Args:
        model: with a "decoder" head whose mean is an image [..., h, w, 3] in [0, 1].
        batch: [B, T] windows with that image.
        context: rows observed before the dream begins; they are shown decoded.
        windows: how many of the batch, evenly spaced.
        image: key of the observation the decoder draws.
        generator: for models that dream at random.

    Returns:
        the picture, or None for a model without a decoder.
    """
    if "decoder" not in model.heads:
        return None
    chosen = torch.linspace(0, len(batch) - 1, min(windows, len(batch))).round().long()
    batch = batch[chosen]
    seen, dreamt = _dream(model, batch, context, generator)
    begun = _pictures(model, seen[:, :context])
    drawn = np.concatenate([begun, _pictures(model, dreamt)], 1)
    truth = batch.obs[image].cpu().numpy()
    if drawn.shape != truth.shape:
        raise ShapeError(f"the decoder draws {drawn.shape}, the observation is {truth.shape}")
    error = np.abs(drawn.astype(np.int16) - truth).astype(np.uint8)
    groups = zip(truth, drawn, 255 - error, strict=True)
    return stacked([stacked([film_strip(film) for film in trio]) for trio in groups], gap=12)


def stacked(rows: Sequence[Pixels], gap: int = 3) -> Pixels:
    """Pictures [h, w, 3] of one width below each other, on white."""
    space = np.full((gap, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (space, row)][1:])


def _dream(
    model: WorldModel, batch: Batch, context: int, generator: torch.Generator | None
) -> tuple[Any, Any]:
    """The states [B, T] that were observed and those [B, T - context] that were dreamt."""
    length = batch.action.shape[1]
    if not 1 <= context < length:
        raise ShapeError(f"context is {context}, expected 1 to {length - 1} in windows of {length}")
    training = model.training
    model.eval()
    seen = model.observe_sequence(batch)
    actions = batch.action[:, None, context - 1 : length - 1]
    dreamt = model.rollout(seen[:, context - 1], actions, generator=generator)[:, 0]
    model.train(training)
    return seen, dreamt


def _pictures(model: WorldModel, state: Any) -> Pixels:
    try:
        mean = model.predict("decoder", state).mean
    except AttributeError as error:
        raise MissingHeadError(f"the 'decoder' head returns no image: {error}") from error
    return (mean.clamp(0, 1) * 255).round().byte().cpu().numpy()
