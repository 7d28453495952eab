"""Disturbed actions: only while exploring, within bounds, and any choice at its share."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from wm_toolkit.agents.actors import Decision, NoisyActor
from wm_toolkit.errors import ConfigError
from wm_toolkit.spaces import Spaces

OBSERVED = {"vector": gym.spaces.Box(-1, 1, (1,), np.float32)}
BOX = Spaces(OBSERVED, gym.spaces.Box(-1, 1, (1,), np.float32))
CHOICE = Spaces(OBSERVED, gym.spaces.Discrete(4))


class Always:
    """The same action, and a count of the rounds."""

    def __init__(self, action: list[float]) -> None:
        self.action = torch.tensor(action)

    def initial(self, batch_size):
        return 7

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        return Decision(self.action.expand(len(is_first), -1)), memory + 1


def act(actor: NoisyActor, rows: int, *, explore: bool, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(rows, dtype=torch.bool)
    memory = actor.initial(rows)
    return actor.act(None, {}, memory, is_first=first, explore=explore, generator=generator)


def test_without_exploring_the_action_stays_as_it_is():
    decision, memory = act(NoisyActor(Always([0.25]), BOX), 5, explore=False)
    assert_close(decision.action, torch.full((5, 1), 0.25))
    assert memory == 8


def test_numbers_gain_gaussian_noise_of_the_stated_deviation():
    decision, _ = act(NoisyActor(Always([0.0]), BOX, noise=0.1), 20_000, explore=True)
    assert float(decision.action.std()) == pytest.approx(0.1, rel=0.03)
    assert float(decision.action.mean()) == pytest.approx(0.0, abs=0.005)


def test_disturbed_numbers_stay_within_their_bounds():
    decision, _ = act(NoisyActor(Always([0.9]), BOX, noise=0.3), 1000, explore=True)
    assert float(decision.action.max()) == 1.0


def test_a_choice_is_replaced_at_its_share_by_any_other():
    actor = NoisyActor(Always([0.0, 1.0, 0.0, 0.0]), CHOICE, random=0.4)
    decision, _ = act(actor, 20_000, explore=True)
    assert_close(decision.action.mean(0), torch.tensor([0.1, 0.7, 0.1, 0.1]), atol=0.012, rtol=0)
    assert torch.equal(decision.action.sum(-1), torch.ones(20_000))


def test_noise_below_zero_is_refused():
    with pytest.raises(ConfigError, match="noise is -1"):
        NoisyActor(Always([0.0]), BOX, noise=-1)
