import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from training_toys import Eyes

from wm_toolkit.agents.actors import Decision
from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.errors import ConfigError, DataError, SpaceError
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collect import AgentPolicy, RandomPolicy, collect


def record(path, env, episodes, **options):
    single = getattr(env, "single_action_space", None) or env.action_space
    with Hdf5Writer(path, Spaces.of(env), append=True) as writer:
        collect(env, RandomPolicy(single), writer, episodes=episodes, **options)
    return TrajectoryDataset.load(path)


def vector(count=3):
    return SyncVectorEnv([lambda: gym.make("CartPole-v1")] * count)


def equal(one, two):
    pairs = zip(one, two, strict=True)
    return all(
        np.array_equal(a.obs["vector"], b.obs["vector"])
        and np.array_equal(a.action, b.action)
        and np.array_equal(a.terminated, b.terminated)
        for a, b in pairs
    )


def test_what_is_recorded_replays_in_the_environment(tmp_path):
    data = record(tmp_path / "a.h5", gym.make("CartPole-v1"), 3, seed=5)
    env = gym.make("CartPole-v1")
    for number, episode in enumerate(data):
        obs, _ = env.reset(seed=5 + number)
        np.testing.assert_array_equal(obs, episode.obs["vector"][0])
        for t, action in enumerate(episode.action):
            obs, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(obs, episode.obs["vector"][t + 1])
            assert reward == episode.reward[t]
            assert (terminated, truncated) == (episode.terminated[t], episode.truncated[t])
        assert episode.terminated[-1]


def test_rows_of_a_vector_record_the_same_episodes_as_one_environment(tmp_path):
    one = record(tmp_path / "one.h5", gym.make("CartPole-v1"), 5)
    many = record(tmp_path / "many.h5", vector(3), 5)
    assert len(many) == 5
    assert equal(one, many)


def test_a_stopped_recording_goes_on_to_the_same_data(tmp_path):
    def stop(done, wanted):
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "a.h5", vector(3), 8, progress=stop)
    assert not (tmp_path / "a.h5").exists()
    resumed = record(tmp_path / "a.h5", vector(2), 8)
    assert equal(resumed, record(tmp_path / "b.h5", vector(3), 8))


def test_episodes_are_cut_at_max_steps_and_infos_are_kept(tmp_path):
    env = gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=2, obs_mode="position")
    data = record(tmp_path / "a.h5", env, 2, max_steps=7, extras=("position", "success"))
    for episode in data:
        assert len(episode) == 7
        assert list(episode.truncated) == [False] * 6 + [True]
        assert not episode.terminated.any()
        np.testing.assert_array_equal(episode.extras["position"], episode.obs["vector"])


def test_a_missing_extra_and_a_lost_last_observation_are_refused(tmp_path):
    with pytest.raises(DataError, match="no 'speed' to record"):
        record(tmp_path / "a.h5", vector(), 1, extras=("speed",))
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1")], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ConfigError, match="last observation"):
        record(tmp_path / "b.h5", env, 1)


class Stairs:
    """Answers with actions that tell what was seen and where in the block they stand."""

    def __init__(self, spaces):
        self.spaces = spaces

    def initial(self, batch_size):
        return None

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        first = state.position[:, :1] / 100
        ramp = torch.arange(self.spaces.action_width) / 100
        return Decision(first + ramp), None


def test_an_agent_of_blocks_looks_at_every_kth_row_and_every_raw_step_is_recorded(tmp_path):
    env = gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=2, obs_mode="position")
    spaces = Spaces.of(env).blocked(3)
    agent = Agent(Eyes(spaces), Stairs(spaces))
    policy = AgentPolicy(agent, env.single_action_space)
    with Hdf5Writer(tmp_path / "a.h5", Spaces.of(env)) as writer:
        collect(env, policy, writer, episodes=4, max_steps=7)
    looks = agent.model.looks
    assert len(looks) == 6  # rows 0, 3 and 6 of two rounds
    for number, episode in enumerate(TrajectoryDataset.load(tmp_path / "a.h5")):
        assert episode.action.shape == (7, 2)
        for t, action in enumerate(episode.action):
            block, place = divmod(t, 3)
            seen = looks[3 * (number // 2) + block][number % 2]
            np.testing.assert_array_equal(seen, episode.obs["vector"][3 * block])
            np.testing.assert_allclose(
                action, seen[0] / 100 + np.arange(2 * place, 2 * place + 2) / 100, atol=1e-6
            )


def test_blocks_of_choices_are_recorded_as_single_choices(tmp_path):
    env = vector(2)
    spaces = Spaces.of(env).blocked(2)
    agent = Agent(Eyes(spaces), RightThenLeft())
    with Hdf5Writer(tmp_path / "a.h5", Spaces.of(env)) as writer:
        collect(env, AgentPolicy(agent, env.single_action_space), writer, episodes=2, max_steps=5)
    for episode in TrajectoryDataset.load(tmp_path / "a.h5"):
        assert list(episode.action) == [1, 0, 1, 0, 1][: len(episode)]


class RightThenLeft:
    """Always the block (1, 0)."""

    def initial(self, batch_size):
        return None

    def act(self, state, obs, memory, *, is_first, explore=False, generator=None):
        return Decision(torch.tensor([[0.0, 1.0, 1.0, 0.0]]).repeat(len(is_first), 1)), None


def test_an_agent_of_other_actions_is_refused():
    spaces = Spaces.of(gym.make("CartPole-v1")).blocked(2)
    agent = Agent(Eyes(spaces), RightThenLeft())
    with pytest.raises(SpaceError, match=r"MultiDiscrete.*block 2.*does not fit.*Box"):
        AgentPolicy(agent, gym.spaces.Box(-1, 1, (2,), np.float32))
