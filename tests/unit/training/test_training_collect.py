import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.errors import ConfigError, DataError
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.collect import RandomPolicy, collect


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
