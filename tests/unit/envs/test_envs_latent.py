"""Features as observations: the filter's state follows the episodes."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_sb3
from torch import Tensor

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.envs.action_block import ActionBlock, VectorActionBlock
from wm_toolkit.envs.latent import LatentObservation, LatentObservationVector
from wm_toolkit.envs.two_rooms import TwoRooms, TwoRoomsVector
from wm_toolkit.errors import SpaceError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Sums(Struct):
    """Sums along an episode."""

    brightness: Tensor
    action: Tensor
    count: Tensor


class Summer(WorldModel[Sums]):
    """Features: sum of mean pixels, sum of actions, number of observations so far."""

    def initial(self, batch_size: int) -> Sums:
        action = torch.zeros(batch_size, self.spaces.action_width)
        return Sums(torch.zeros(batch_size), action, torch.zeros(batch_size))

    def observe(
        self, state: Sums, action: Tensor, obs: dict[str, Tensor], *, generator=None
    ) -> Sums:
        bright = obs["image"].float().mean((1, 2, 3))
        return Sums(state.brightness + bright, state.action + action, state.count + 1)

    def imagine(self, state: Sums, action: Tensor, *, generator=None) -> Sums:
        return state

    def features(self, state: Sums) -> Tensor:
        return torch.cat([state.brightness[..., None], state.action, state.count[..., None]], -1)

    def loss(self, batch: Batch) -> Losses:
        return {}


def test_features_follow_the_episode_and_begin_anew():
    raw = TwoRooms()
    env = LatentObservation(TwoRooms(), Summer(Spaces.of(raw)))
    total = raw.reset(seed=2)[0].mean()
    np.testing.assert_allclose(env.reset(seed=2)[0], [total, 0, 0, 1], rtol=1e-5)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    for step, action in enumerate(actions, 1):
        total += raw.step(action)[0].mean()
        expected = [total, *actions[:step].sum(0), step + 1]
        np.testing.assert_allclose(env.step(action)[0], expected, rtol=1e-4)
    assert env.reset(seed=3)[0][-1] == 1


def test_it_reads_blocks_of_actions():
    env = ActionBlock(TwoRooms(), 5)
    env = LatentObservation(env, Summer(Spaces.of(env)))
    assert env.reset(seed=0)[0].shape == (12,)
    block = np.linspace(-1, 1, 10, dtype=np.float32)
    np.testing.assert_allclose(env.step(block)[0][1:11], block, rtol=1e-6)


@pytest.mark.parametrize("block", [1, 2])
def test_the_vector_equals_single_wrappers_through_an_autoreset(block):
    kwargs = {"max_episode_steps": 4}
    envs = VectorActionBlock(TwoRoomsVector(2, **kwargs), block)
    model = Summer(Spaces.of(envs))
    ours = LatentObservationVector(envs, model)
    theirs = gym.vector.SyncVectorEnv(
        [
            lambda: LatentObservation(
                ActionBlock(gym.make("wm_toolkit/TwoRooms-v0", **kwargs), block), model
            )
            for _ in range(2)
        ]
    )
    assert ours.observation_space == theirs.observation_space
    a, b = ours.reset(seed=1)[0], theirs.reset(seed=1)[0]
    for step in range(9):
        if step < 3:  # later starts are drawn anew; episodes still begin and end together
            np.testing.assert_allclose(a, b, rtol=1e-5)
        assert a[:, -1].tolist() == b[:, -1].tolist()
        action = np.full((2, 2 * block), 0.3, np.float32)
        a, b = ours.step(action)[0], theirs.step(action)[0]


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_both_checkers_accept_it():
    env = gym.make("wm_toolkit/TwoRooms-v0", disable_env_checker=True)
    env = LatentObservation(env, Summer(Spaces.of(TwoRooms())))
    check_env(env)
    check_sb3(env)


def test_a_model_for_other_spaces_is_refused():
    model = Summer(Spaces.of(TwoRooms(size=40, wall_x=20)))
    with pytest.raises(SpaceError, match=r"'image' is \(64, 64, 3\).*expected \(40, 40, 3\)"):
        LatentObservation(TwoRooms(), model)
    envs = LatentObservationVector(TwoRoomsVector(2), Summer(Spaces.of(TwoRooms())))
    with pytest.raises(SpaceError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.array([True, False])})
