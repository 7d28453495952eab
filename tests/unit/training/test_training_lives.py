"""Episodes that go on with the game of the one before: collected, and repeated after a stop."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from wm_toolkit.agents.actors import RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.envs.repeatable import GOES_ON, RepeatableEpisodes
from wm_toolkit.recipes.dreamer_v3 import Size, world_model
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collector import Collector

SIZE = Size(deter=16, units=8, classes=3, depth=1, latents=2, groups=2)


class Lives(gym.Env):
    """A game of three lives of two to four steps each; a reset after a lost life goes on with the next."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.game, self.life, self.left, self.sum = 0.0, 3, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None or self.life in (0, 3):
            self.game, self.life, self.sum = self.np_random.random(), 3, 0
        self.left = int(self.np_random.integers(2, 5))
        return self._obs(), {GOES_ON: False}

    def step(self, action):
        self.left, self.sum = self.left - 1, 2 * self.sum + int(action)
        self.life -= self.left == 0
        return self._obs(), 1.0, self.left == 0, False, {GOES_ON: self.left == 0 < self.life}

    def _obs(self):
        return np.array([self.game, self.life, self.left, self.sum], np.float32)


def test_lives_go_on_and_the_next_game_begins_elsewhere():
    env = RepeatableEpisodes(Lives(), 0)
    games, lives = [], []
    for _ in range(6):
        obs, _ = env.reset()
        games.append(obs[0])
        lives.append(obs[1])
        while not env.step(1)[2]:
            pass
    assert lives == [3, 2, 1] * 2
    assert len(set(games[:3])) == len(set(games[3:])) == 1
    assert games[0] != games[3]
    assert env.episode == 1


@pytest.mark.parametrize("stop", range(1, 30))
def test_a_collector_goes_on_in_the_middle_of_any_life(stop):
    def collector() -> Collector:
        envs = SyncVectorEnv([lambda n=n: RepeatableEpisodes(Lives(), n, n) for n in range(2)])
        model = world_model(Spaces.of(envs), SIZE)
        return Collector(Agent(model, RandomActor(model)), envs, seed=3)

    whole, again = collector(), collector()
    for _ in range(stop):
        whole.collect(random=True)
    whole.settle()
    assert not again.restore(whole.snapshot()), "the lives were repeated"
    for _ in range(15):
        a, b = whole.collect(random=True), again.collect(random=True)
        for name in ("action", "reward", "is_first", "terminated"):
            assert np.array_equal(a[name], b[name]), name
        assert np.array_equal(a["obs"]["vector"], b["obs"]["vector"])
    assert whole.lengths == again.lengths
    assert set(whole.lengths) <= {2, 3, 4}, "of lives, not of games"
