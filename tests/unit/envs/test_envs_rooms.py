"""Physics and pictures of two rooms against the specification and a scalar re-implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_toolkit.envs.rooms import Rooms
from wm_toolkit.errors import ConfigError, SpaceError

ROOMS = Rooms()
UNIT = st.floats(-1.5, 1.5, width=32)


def move_by_hand(x: float, y: float, dx: float, dy: float) -> tuple[float, float]:
    """The specification in scalars: border 4, wall 30..34, door 22 +- 6, radius 2, 2 px per unit."""

    def free(x: float, y: float) -> bool:
        if not (6 <= x <= 57 and 6 <= y <= 57):
            return False
        touches_wall = 28 - 1e-6 < x < 36 + 1e-6
        return not touches_wall or 18 <= y <= 26

    f = np.float32
    new_x = f(x) + f(2) * f(np.clip(dx, -1, 1))
    x = new_x if free(float(new_x), y) else f(x)
    new_y = f(y) + f(2) * f(np.clip(dy, -1, 1))
    y = new_y if free(float(x), float(new_y)) else f(y)
    return float(x), float(y)


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), UNIT, UNIT)
def test_a_move_follows_the_written_rules(u, v, dx, dy):
    x, y = (float(c) for c in ROOMS.place(np.array([u, v])))
    moved = ROOMS.move(np.array([x, y]), np.array([dx, dy]))
    assert tuple(map(float, moved)) == move_by_hand(x, y, dx, dy)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_a_walk_never_enters_a_wall(seed):
    rng = np.random.default_rng(seed)
    position = ROOMS.sample(rng, 50)
    for _ in range(40):
        position = ROOMS.move(position, rng.uniform(-1, 1, (50, 2)))
        assert ROOMS.free(position[:, 0], position[:, 1]).all()


def test_the_wall_blocks_one_axis_and_lets_the_other_slide():
    moved = ROOMS.move(np.array([27.0, 40.0]), np.array([1.0, 1.0]))
    np.testing.assert_array_equal(moved, np.float32([27, 42]))


def test_the_door_lets_the_dot_through_and_only_the_door():
    through, beside = np.array([26.0, 22.0]), np.array([26.0, 30.0])
    for _ in range(10):
        through = ROOMS.move(through, np.array([1.0, 0.0]))
        beside = ROOMS.move(beside, np.array([1.0, 0.0]))
    np.testing.assert_array_equal(through, np.float32([46, 22]))
    np.testing.assert_array_equal(beside, np.float32([26, 30]))


def test_success_is_closer_than_four_and_a_half():
    goal = np.array([20.0, 20.0])
    near, far = np.array([24.49, 20.0]), np.array([24.5, 20.0])
    assert ROOMS.is_success(near, goal)
    assert not ROOMS.is_success(far, goal)


def test_the_board_has_white_floor_black_border_wall_and_one_door():
    board = ROOMS.background
    expected = np.full((64, 64), 255)
    expected[:4] = expected[-4:] = 0
    expected[:, :4] = expected[:, -4:] = 0
    expected[:, 30:35] = 0
    expected[16:29, 30:35] = 255
    np.testing.assert_array_equal(board, expected)


def test_a_picture_is_the_gaussian_dot_blended_over_the_board():
    rng = np.random.default_rng(0)
    position = ROOMS.sample(rng, 40)
    position[0], position[1] = [6, 6], [57, 57]
    at = np.arange(64)
    square = (at[None, None] - position[:, 0, None, None]) ** 2
    square = square + (at[None, :, None] - position[:, 1, None, None]) ** 2
    red = np.exp(-square / (2 * 2.2**2))[..., None]
    board = ROOMS.background[None, :, :, None].astype(float)
    expected = board * (1 - red) + np.array([255.0, 0, 0]) * red
    picture = ROOMS.render(position)
    assert picture.dtype == np.uint8
    assert np.abs(picture - expected).max() <= 0.51


def test_pictures_of_one_and_of_many_positions_are_equal():
    position = ROOMS.sample(np.random.default_rng(1), 6)
    many = ROOMS.render(position.reshape(2, 3, 2))
    for i in range(6):
        np.testing.assert_array_equal(many[i // 3, i % 3], ROOMS.render(position[i]))


def test_a_finer_resolution_shows_the_same_board():
    fine = Rooms(resolution=128)
    np.testing.assert_array_equal(fine.background[::2, ::2], ROOMS.background)
    position = np.array([20.0, 40.0])
    coarse = ROOMS.render(position).astype(float)
    means = fine.render(position).reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(means - coarse).max() < 6


def test_size_wall_and_doors_are_options():
    rooms = Rooms(size=40, wall_x=15, wall_thickness=3, doors=(10.0, 30.0), door_half_height=4)
    assert rooms.background.shape == (40, 40)
    assert (rooms.background[20, 14:17] == 0).all()
    assert rooms.background[20, 13] == rooms.background[20, 17] == 255
    start = np.array([[11.0, 10.0], [11.0, 30.0], [11.0, 20.0]])
    moved = rooms.move(start, np.array([1.0, 0.0]))
    np.testing.assert_array_equal(moved[:, 0], [13, 13, 11])


def test_samples_are_free_uniform_and_in_the_room_that_was_asked_for():
    rng = np.random.default_rng(0)
    position = ROOMS.sample(rng, 20_000)
    assert ROOMS.free(position[:, 0], position[:, 1]).all()
    assert not ((position[:, 0] > 28) & (position[:, 0] < 36)).any()
    assert ROOMS.room(position).mean() == pytest.approx(21 / 43, abs=0.02)
    same = ROOMS.place_goal(rng.random((500, 2)), position[:500], "same")
    other = ROOMS.place_goal(rng.random((500, 2)), position[:500], "opposite")
    np.testing.assert_array_equal(ROOMS.room(same), ROOMS.room(position[:500]))
    np.testing.assert_array_equal(ROOMS.room(other), 1 - ROOMS.room(position[:500]))


def test_layouts_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="jumps over a wall"):
        Rooms(step=9.0)
    with pytest.raises(ConfigError, match="no free position"):
        Rooms(wall_x=8)
    with pytest.raises(SpaceError, match="lies in a wall"):
        ROOMS.check(np.array([32.0, 40.0]))
    with pytest.raises(ConfigError, match="goal_room is 'there'"):
        ROOMS.place_goal(np.zeros(2), np.zeros(2, np.float32), "there")  # type: ignore[arg-type]
