"""Pictures from frames: animations, film strips, grids of episodes. All frames are uint8 RGB."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wm_toolkit.checkpoint import replace_file
from wm_toolkit.errors import ShapeError

Pixels = NDArray[np.uint8]
"""uint8 RGB: one frame [h, w, 3] or a film [T, h, w, 3]."""

Colour = tuple[int, int, int]

GOOD: Colour = (22, 163, 74)
BAD: Colour = (220, 38, 38)
GREY: Colour = (100, 116, 139)
PAPER: Colour = (255, 255, 255)

MAX_COLOURS = 256  # a GIF has no more


def as_film(frames: Pixels | Sequence[Pixels]) -> Pixels:
    """Stack frames to a film [T, h, w, 3].

    Raises:
        ShapeError: if they are not uint8 RGB pictures of one size, or if there are none.
    """
    sizes = {np.shape(frame) for frame in frames}
    if len(sizes) != 1:
        raise ShapeError(f"a film needs frames of one size, got {sorted(sizes) or 'no frames'}")
    film = np.stack([np.asarray(frame) for frame in frames])
    if film.ndim != 4 or film.shape[-1] != 3 or film.dtype != np.uint8:
        raise ShapeError(f"a film is uint8 [T, h, w, 3], got {film.dtype} {list(film.shape)}")
    return film


def upscale(pixels: Pixels, factor: int) -> Pixels:
    """Enlarge [..., h, w, 3] by a whole factor; every pixel becomes a sharp square."""
    return pixels.repeat(factor, axis=-3).repeat(factor, axis=-2)


def bordered(pixels: Pixels, colour: Colour, width: int = 2) -> Pixels:
    """Frame [..., h, w, 3] with a border of `width` pixels inside a larger picture."""
    *lead, height, across, _ = pixels.shape
    out = np.empty((*lead, height + 2 * width, across + 2 * width, 3), np.uint8)
    out[...] = colour
    out[..., width : height + width, width : across + width, :] = pixels
    return out


def marked(film: Pixels, success: bool, width: int = 2) -> Pixels:
    """Give an episode a border that says how it ended: green for success, red for failure."""
    return bordered(film, GOOD if success else BAD, width)


def side_by_side(pictures: Sequence[Pixels], gap: int = 2, colour: Colour = PAPER) -> Pixels:
    """Join pictures [..., h, w, 3] of one height from left to right."""
    if not pictures:
        raise ShapeError("nothing to put side by side")
    spacer = np.empty((*pictures[0].shape[:-2], gap, 3), np.uint8)
    spacer[...] = colour
    parts = [part for picture in pictures for part in (spacer, picture)][1:]
    return np.concatenate(parts, axis=-2)


def film_strip(
    frames: Pixels | Sequence[Pixels], most: int = 12, gap: int = 2, colour: Colour = PAPER
) -> Pixels:
    """Lay a film out as one wide picture [h, W, 3].

    Args:
        frames: [T, h, w, 3]; of a longer film, evenly spaced frames with first and last.
        most: frames in the strip at most.
        gap: pixels between two frames.
        colour: of the gaps.
    """
    film = as_film(frames)
    chosen = np.linspace(0, len(film) - 1, min(most, len(film))).round().astype(int)
    return side_by_side(list(film[chosen]), gap, colour)


def tiled(
    films: Sequence[Pixels], columns: int | None = None, gap: int = 4, colour: Colour = PAPER
) -> Pixels:
    """Play several episodes [T_i, h, w, 3] beside each other as one film [max T_i, H, W, 3].

    An episode that ends early stays on its last frame.

    Args:
        films: at least one; frames of one size.
        columns: by default a square grid.
        gap: pixels between and around the tiles.
        colour: of the gaps and of empty tiles.
    """
    as_film([film[0] for film in films])
    columns = columns or math.ceil(math.sqrt(len(films)))
    length, rows = max(len(film) for film in films), math.ceil(len(films) / columns)
    height, width = films[0].shape[1:3]
    down, across = height + gap, width + gap
    out = np.empty((length, rows * down + gap, columns * across + gap, 3), np.uint8)
    out[...] = colour
    for i, film in enumerate(films):
        top, left = gap + i // columns * down, gap + i % columns * across
        held = film[np.minimum(np.arange(length), len(film) - 1)]
        out[:, top : top + height, left : left + width] = held
    return out


def gif_bytes(
    frames: Pixels | Sequence[Pixels], fps: float = 10.0, hold_seconds: float = 0.0
) -> bytes:
    """Encode an endless animation with one palette, so that colours do not flicker.

    Args:
        frames: [T, h, w, 3]. Equal neighbours become one frame that is shown longer.
        fps: frames a second.
        hold_seconds: how much longer the last frame stays.
    """
    film = as_film(frames)
    palette = _palette(film)
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in film
    ]
    shown = [round(1000 / fps)] * len(film)
    shown[-1] += round(1000 * hold_seconds)
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=shown, loop=0
    )
    return buffer.getvalue()


def save_gif(
    frames: Pixels | Sequence[Pixels],
    path: str | Path,
    fps: float = 10.0,
    hold_seconds: float = 0.0,
) -> Path:
    """Write an endless animation; see `gif_bytes`. An older file is replaced in one step."""
    with replace_file(path) as temporary:
        temporary.write_bytes(gif_bytes(frames, fps, hold_seconds))
    return Path(path)


def png_bytes(picture: Pixels) -> bytes:
    """Encode one picture [h, w, 3] without loss."""
    buffer = io.BytesIO()
    Image.fromarray(as_film([picture])[0]).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_png(picture: Pixels, path: str | Path) -> Path:
    """Write one picture [h, w, 3]."""
    with replace_file(path) as temporary:
        temporary.write_bytes(png_bytes(picture))
    return Path(path)


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> Pixels:
    """Read any picture file as uint8 RGB [h, w, 3].

    Args:
        path: the file.
        size: (h, w) to resample it to, if it has another size.

    Raises:
        ShapeError: if it is no picture.
    """
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
            if size is not None and picture.size != (size[1], size[0]):
                picture = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
            return np.asarray(picture).copy()
    except OSError as error:
        raise ShapeError(f"{path} cannot be read as a picture: {error}") from error


def _palette(film: Pixels) -> Image.Image:
    """The film's own colours where a palette holds them, else its best few."""
    # Three bytes as one number: sorting rows takes many times as long.
    numbers = np.unique(film.reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1]))
    colours = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1).astype(np.uint8)
    if len(colours) <= MAX_COLOURS:
        palette = Image.new("P", (1, 1))
        filled = np.resize(colours, (MAX_COLOURS, 3))
        palette.putpalette(filled.tobytes())
        return palette
    few = film[np.linspace(0, len(film) - 1, min(16, len(film))).round().astype(int)]
    return Image.fromarray(few.reshape(-1, film.shape[2], 3)).quantize(MAX_COLOURS)
