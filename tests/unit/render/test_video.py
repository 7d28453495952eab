"""Frames survive tiling, strips and files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from wm_toolkit.errors import ShapeError
from wm_toolkit.render import video

RED, BLUE = (255, 0, 0), (10, 20, 250)


def plain(colour, length=1, size=4):
    return np.full((length, size, size, 3), colour, np.uint8)


def decoded(data):
    with Image.open(data) as picture:
        return [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(picture)]


def test_a_gif_keeps_every_frame_and_its_colours(tmp_path):
    film = np.stack([np.full((8, 6, 3), (i * 10, 255 - i, 7), np.uint8) for i in range(12)])
    film[:, 2, 3] = RED
    frames = decoded(video.save_gif(film, tmp_path / "film.gif", fps=20))
    np.testing.assert_array_equal(np.stack(frames), film)


def test_a_gif_plays_for_its_frames_and_the_hold(tmp_path):
    film = np.concatenate([plain(RED), plain(BLUE), plain(RED)])
    picture = Image.open(io.BytesIO(video.gif_bytes(film, fps=10, hold_seconds=1.0)))
    durations = [f.info["duration"] for f in ImageSequence.Iterator(picture)]
    assert durations == [100, 100, 1100]
    assert picture.info["loop"] == 0


def test_a_gif_of_more_colours_than_a_palette_stays_close():
    ramp = np.stack(np.meshgrid(np.arange(40), np.arange(40)), -1)
    frame = np.concatenate([ramp * 6, np.full((40, 40, 1), 90)], -1).astype(np.uint8)
    (out,) = decoded(io.BytesIO(video.gif_bytes([frame])))
    assert np.abs(out.astype(int) - frame).mean() < 8


def test_a_png_is_exact(tmp_path):
    frame = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(
        video.read_image(video.save_png(frame, tmp_path / "a.png")), frame
    )


def test_upscaling_makes_sharp_squares():
    small = np.stack([plain(RED)[0, 0], plain(BLUE)[0, 0]])[:, :2]
    large = video.upscale(small, 3)
    assert large.shape == (6, 6, 3)
    assert (large[:3] == RED).all()
    assert (large[3:] == BLUE).all()


def test_a_success_is_framed_green_and_a_failure_red():
    film = plain(BLUE, length=2)
    for success, colour in ((True, video.GOOD), (False, video.BAD)):
        out = video.marked(film, success, 1)
        assert (out[:, 1:-1, 1:-1] == BLUE).all()
        assert (out[:, 0] == colour).all()
        assert (out[:, :, -1] == colour).all()


def test_a_strip_shows_first_and_last_frame_of_a_long_film():
    film = np.stack([np.full((2, 2, 3), i, np.uint8) for i in range(30)])
    strip = video.film_strip(film, most=4, gap=1)
    assert strip.shape == (2, 4 * 2 + 3, 3)
    assert strip[0, ::3, 0].tolist() == [0, 10, 19, 29]
    assert (strip[:, 2] == video.PAPER).all()


def test_an_episode_that_ends_early_stays_on_its_last_frame():
    short, long = plain(RED, 2), plain(BLUE, 5)
    short[1] = 9
    grid = video.tiled([short, long, long], gap=1)
    assert grid.shape == (5, 2 * 5 + 1, 2 * 5 + 1, 3)
    assert (grid[0, 1:5, 1:5] == RED).all()
    assert (grid[1:, 1:5, 1:5] == 9).all()
    assert (grid[:, 1:5, 6:10] == BLUE).all()
    assert (grid[:, 6:10, 6:10] == video.PAPER).all()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)], "one size"),
        ([np.zeros((2, 2, 3), np.float32)], "float32"),
        ([np.zeros((2, 2, 4), np.uint8)], r"\[1, 2, 2, 4\]"),
    ],
)
def test_what_is_no_film_is_refused_with_its_shape(frames, message):
    with pytest.raises(ShapeError, match=message):
        video.as_film(frames)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(ShapeError, match=r"x\.png"):
        video.read_image(tmp_path / "x.png")
