"""Dodge: physics, pictures, endings, and the vector as single environments side by side."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import wm_toolkit.envs
from wm_toolkit.envs.dodge import BALL, FLOOR, PLAYER, Court, Dodge, DodgeVector, Rules
from wm_toolkit.envs.make import make, make_vec
from wm_toolkit.errors import ConfigError

assert wm_toolkit.envs
LEFT, STAY, RIGHT = 0, 1, 2


def court(player: int, *balls: tuple[int, int], **fields: float) -> Court:
    made = Court(1, Rules(**{"every": 10_000, "width": 6, "stride": 2, **fields}))  # type: ignore[arg-type]
    made.player[0] = player
    made.clock[0] = 10_000
    for slot, ball in enumerate(balls):
        made.balls[0, slot] = ball
    return made


def columns(image: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    return np.flatnonzero((image == colour).all(-1).any(0)).tolist()


def test_it_is_registered_and_the_checker_accepts_it():
    env = make("wm_toolkit/Dodge-v0")
    assert env.observation_space.shape == (64, 64, 3)
    assert env.action_space == gym.spaces.Discrete(3)
    check_env(env.unwrapped, skip_render_check=True)
    assert isinstance(make_vec("wm_toolkit/Dodge-v0", 3).unwrapped, DodgeVector)


def test_one_moves_a_stride_and_stops_at_the_walls():
    made = court(30)
    for move, expected in ((-1, 28), (0, 28), (1, 30)):
        made.step(np.array([move]), [])
        assert made.player[0] == expected
    for move, wall in ((-1, 0), (1, 58)):
        for _ in range(40):
            made.step(np.array([move]), [])
        assert made.player[0] == wall


def test_a_ball_falls_two_pixels_a_step_and_hits_who_stands_under_it():
    made = court(30, (32, 40))
    hits = [bool(made.step(np.zeros(1, int), [])[0]) for _ in range(5)]
    # its lower edge passes the player's head (row 54) when its upper edge passes 48
    assert hits == [False, False, False, False, True]
    assert made.balls[0, 0].tolist() == [32, 50]


@pytest.mark.parametrize(
    ("player", "hit"), [(25, False), (26, False), (27, True), (37, True), (38, False)]
)
def test_a_ball_misses_who_stands_a_whole_width_beside_it(player, hit):
    made = court(player, (32, 52))
    assert bool(made.step(np.zeros(1, int), [])[0]) == hit


def test_a_ball_that_reached_the_floor_is_gone():
    made = court(32, (32, FLOOR))
    assert not made.step(np.zeros(1, int), [])[0]
    assert not columns(made.image(0), BALL)


def test_a_new_ball_is_thrown_every_so_many_steps():
    env = Dodge(every=5, aim=1.0)
    env.reset(seed=0)
    thrown = []
    for step in range(11):
        before = (env._court.balls[0, :, 1] < FLOOR).sum()
        env.step(RIGHT if step % 2 else LEFT)
        thrown.append(int((env._court.balls[0, :, 1] < FLOOR).sum() - before))
    assert thrown == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


def test_aimed_balls_fall_where_the_player_stood():
    env = Dodge(aim=1.0)
    env.reset(seed=3)
    image, *_ = env.step(STAY)
    for _ in range(5):
        image, *_ = env.step(STAY)
    assert columns(image, BALL) == columns(image, PLAYER)


def test_pictures_show_player_and_balls_where_they_are():
    image = court(12, (40, 10)).image(0)
    assert columns(image, PLAYER) == list(range(12, 18))
    assert columns(image, BALL) == list(range(40, 46))
    assert image.dtype == np.uint8


def test_every_step_survived_pays_one_and_a_hit_terminates_without_pay():
    env = make("wm_toolkit/Dodge-v0", aim=1.0)
    env.reset(seed=0)
    rewards, terminated, truncated = [], False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, _ = env.step(STAY)
        rewards.append(reward)
    assert terminated
    assert not truncated
    assert rewards == [1.0] * 28 + [0.0]  # 28 steps from the sky to the head of who stands still


def test_the_time_limit_truncates_and_does_not_terminate():
    envs = make_vec("wm_toolkit/Dodge-v0", 2, max_episode_steps=5)
    envs.reset(seed=0)
    for step in range(1, 6):
        _, _, terminated, truncated, _ = envs.step(np.full(2, STAY))
        assert not terminated.any()
        assert truncated.tolist() == [step == 5] * 2


def test_a_vectors_row_is_the_single_environment_of_its_seed_over_several_episodes():
    rng = np.random.default_rng(0)
    envs = DodgeVector(2, every=6)
    single = [Dodge(every=6) for _ in range(2)]
    seen, _ = envs.reset(seed=5)
    for row, env in enumerate(single):
        np.testing.assert_array_equal(env.reset(seed=5 + row)[0], seen[row])
    ended, episodes = np.zeros(2, bool), 0
    for _ in range(200):
        actions = rng.integers(0, 3, 2)
        seen, reward, terminated, _, _ = envs.step(actions)
        for row, env in enumerate(single):
            if ended[row]:
                own, paid, over = env.reset()[0], 0.0, False
                episodes += 1
            else:
                own, paid, over, _, _ = env.step(actions[row])
            np.testing.assert_array_equal(own, seen[row])
            assert (paid, over) == (reward[row], terminated[row])
        ended = terminated
    assert episodes > 3


def test_a_mask_restarts_some_rows_only():
    envs = DodgeVector(3)
    envs.reset(seed=0)
    for _ in range(4):
        seen, *_ = envs.step(np.full(3, STAY))
    again, _ = envs.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(again[[0, 2]], seen[[0, 2]])
    assert not columns(again[1], BALL)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [({"aim": 2.0}, "aim is 2.0"), ({"every": 0}, "every=0"), ({"render_mode": "human"}, "human")],
)
def test_rules_that_make_no_game_are_refused(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Dodge(**fields)


def test_rules_are_given_once():
    with pytest.raises(ConfigError, match="not both"):
        Dodge(rules=Rules(), every=3)
