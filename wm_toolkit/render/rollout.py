"""What a model dreams against what happened, in pictures and charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wm_toolkit.batch import Batch
from wm_toolkit.errors import ShapeError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.render.open_loop import HorizonError, OpenLoop, latent_error, open_loop
from wm_toolkit.render.plots import Series, line_chart
from wm_toolkit.render.video import GOOD, GREY, Pixels, bordered, film_strip, side_by_side
from wm_toolkit.structs import cat


class Films(NamedTuple):
    """One image observation of some windows, [B, T, h, w, 3] each.

    Attributes:
        truth: what happened.
        dream: the context as it was filtered, then the dream; white behind the end of the episode.
        error: white where both agree.
    """

    truth: Pixels
    dream: Pixels
    error: Pixels


def horizon_error(
    model: WorldModel,
    batch: Batch,
    *,
    context: int = 1,
    generator: torch.Generator | None = None,
) -> HorizonError:
    """Dream on from the first rows of windows and compare with what the model sees there.

    Args:
        model: any world model.
        batch: [B, T] held-out windows.
        context: rows that are observed before the dream begins; T - context rows are dreamt.
        generator: for models that dream at random.

    Raises:
        ShapeError: if the windows leave nothing to dream.
    """
    return latent_error(model, open_loop(model, batch, context=context, generator=generator))


def horizon_chart(
    error: HorizonError,
    *,
    title: str = "Open-loop prediction error",
    y_label: str = "error / variance",
) -> str:
    """The error by horizon beside copy-last, as an SVG chart."""
    steps = list(range(1, len(error.model) + 1))
    few = len(steps) <= 20
    return line_chart(
        [
            Series("model", steps, error.model, markers=few),
            Series("copy last", steps, error.copy, dashed=True, markers=few),
        ],
        title=title,
        x_label="steps ahead",
        y_label=y_label,
        log_y=min((*error.model, *error.copy), default=0.0) > 0,
    )


def dream_strips(
    model: WorldModel,
    batch: Batch,
    *,
    context: int = 1,
    windows: int = 2,
    image: str | None = None,
    generator: torch.Generator | None = None,
) -> Pixels | None:
    """Truth, dream and their difference, one below the other, for some windows: [H, W, 3].

    Args:
        model: with a "decoder" head that draws an image.
        batch: [B, T] windows with that image.
        context: rows observed before the dream begins; they are shown decoded.
        windows: how many of the batch, evenly spaced.
        image: key of the observation; by default the first image that is drawn.
        generator: for models that dream at random.

    Returns:
        the picture, or None for a model that draws no such image.
    """
    if "decoder" not in model.heads:
        return None
    chosen = evenly(batch, windows)
    films = dream_films(model, open_loop(model, chosen, context=context, generator=generator))
    name = next(iter(films), None) if image is None else image
    return strip(films[name]) if name in films else None


def evenly(rows: Any, most: int) -> Any:
    """Some rows of a record [B, ...], evenly spaced with first and last."""
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().long()]


@torch.no_grad()
def dream_films(model: WorldModel, loop: OpenLoop) -> dict[str, Films]:
    """Every image observation that the model's decoder draws, by key.

    Raises:
        ShapeError: if one is drawn in another size than it is seen.
    """
    drawn = model.decode(shown_states(loop))
    pictures = {k: x for k, x in drawn.items() if x.dtype == torch.uint8 and k in loop.batch.obs}
    return {key: _films(loop, loop.batch.obs[key], guess) for key, guess in pictures.items()}


def shown_states(loop: OpenLoop) -> Any:
    """[B, T] the states of the context as they were filtered, then the dreamt ones."""
    return cat([loop.seen[:, : loop.context], loop.dreamt], 1)


def strip(films: Films, most: int = 12) -> Pixels:
    """Truth, dream and error of every window below each other, time to the right: [H, W, 3]."""
    groups = zip(*films, strict=True)
    return stacked([stacked([film_strip(film, most) for film in trio]) for trio in groups], gap=12)


def film(films: Films, context: int) -> Pixels:
    """Truth, dream and error beside each other, a row per window, as an animation [T, H, W, 3].

    The border is green while the model observes, and grey while it dreams.
    """
    beside = side_by_side(list(films), gap=2)
    framed = bordered(beside, GREY, 2)
    framed[:, :context] = bordered(beside[:, :context], GOOD, 2)
    return np.stack([stacked(list(rows), gap=4) for rows in framed.swapaxes(0, 1)])


def stacked(rows: Sequence[Pixels], gap: int = 3) -> Pixels:
    """Pictures [h, w, 3] of one width below each other, on white."""
    space = np.full((gap, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (space, row)][1:])


def _films(loop: OpenLoop, seen: Tensor, drawn: Tensor) -> Films:
    if drawn.shape != seen.shape:
        raise ShapeError(f"the decoder draws {list(drawn.shape)}, seen was {list(seen.shape)}")
    truth, dream = _rgb(seen), _rgb(drawn)
    error = 255 - np.abs(truth.astype(np.int16) - dream).astype(np.uint8)
    over = ~loop.ahead.cpu().numpy()
    for film in (truth, dream, error):
        film[:, loop.context :][over] = 255
    return Films(truth, dream, error)


def _rgb(images: Tensor) -> Pixels:
    """Images [..., C] as RGB: of stacked frames the newest, grey ones as grey."""
    channels = 1 if images.shape[-1] % 3 else 3
    pixels = images[..., -channels:].expand(*images.shape[:-1], 3)
    return pixels.cpu().numpy().copy()
