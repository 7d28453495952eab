"""Every environment and wrapper through Gymnasium's and Stable-Baselines3's checkers, seeded, by name."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from families import small_lewm
from gymnasium import spaces as gs
from gymnasium.utils.env_checker import check_env
from PIL import Image
from stable_baselines3.common.env_checker import check_env as check_sb3
from test_agent_contracts import LEWM

import wm_toolkit
from wm_toolkit.catalog import home
from wm_toolkit.data.formats.hdf5 import Hdf5Writer
from wm_toolkit.envs.action_block import ActionBlock
from wm_toolkit.envs.goal import GoalReaching
from wm_toolkit.envs.goals import EnvGoals, ImageGoals
from wm_toolkit.envs.latent import LatentObservation
from wm_toolkit.envs.two_rooms import TwoRooms
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.planning.objective import Goal
from wm_toolkit.spaces import Spaces


def reaching(env: gym.Env) -> gym.Env:
    return GoalReaching(env, EnvGoals(), budget=20)


WRAPPED = {
    "plain": lambda: TwoRooms(),
    "blocks of 5": lambda: ActionBlock(TwoRooms(), 5),
    "blocks of 1": lambda: ActionBlock(TwoRooms(obs_mode="position"), 1),
    "goals": lambda: reaching(TwoRooms()),
    "blocks of goals": lambda: ActionBlock(reaching(TwoRooms()), 5),
    "goals of blocks": lambda: reaching(ActionBlock(TwoRooms(), 5)),
    "blocks of choices": lambda: ActionBlock(gym.make("CartPole-v1").unwrapped, 3),
}


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*`check_env.*")
@pytest.mark.filterwarnings("ignore:.*infinity")
@pytest.mark.parametrize("name", WRAPPED)
def test_both_checkers_accept_every_environment_and_wrapper(name):
    env = WRAPPED[name]()
    check_env(env, skip_render_check=True)
    check_sb3(env)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_seed_repeats_a_whole_episode_and_another_seed_does_not(name):
    def episode(seed: int) -> list[np.ndarray]:
        env = WRAPPED[name]()
        env.action_space.seed(0)
        obs, _ = env.reset(seed=seed)
        found = [obs]
        for _ in range(4):
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            found.append(obs)
            if terminated or truncated:
                break
        flat = [row.values() if isinstance(row, dict) else [row] for row in found]
        return [np.asarray(value) for row in flat for value in row]

    for one, two in zip(episode(3), episode(3), strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(episode(3), episode(4), strict=True))


@pytest.fixture(scope="module")
def walks():
    return smooth_walks(0, episodes=4, steps=20)


def test_a_saved_model_dreams_from_a_data_set_given_by_name(tmp_path, walks):
    """Both by name, as somebody else's code would: nothing is built by hand."""
    spaces = Spaces.of(TwoRooms())
    folder = home() / "datasets"
    with Hdf5Writer(folder / "little-walks.h5", spaces) as writer:
        for episode in walks.trajectories():
            writer.add_episode(
                type(episode)(
                    {"image": episode.obs["image"]},
                    episode.action,
                    episode.reward,
                    episode.terminated,
                    episode.truncated,
                )
            )
    agent = wm_toolkit.build("lewm.small", spaces.blocked(5), **(LEWM | {"decoder": True}))
    saved = str(agent.save_pretrained(tmp_path / "model"))
    options = {
        "model": saved,
        "objective": Goal(),
        "starts": "little-walks",
        "horizon": 6,
    }
    env = gym.make("wm_toolkit/WorldModel-v0", render_mode="rgb_array", **options)
    check_env(env.unwrapped)
    check_sb3(env.unwrapped)
    assert env.action_space.shape == (10,)
    assert env.reset(seed=1)[0].shape == (16,)  # features, and the goal's behind them
    # By the decoder head that was saved with it, as large as the frames of its data.
    assert env.render().shape == spaces.observation["image"].shape == (64, 64, 3)
    many = gym.make_vec(
        "wm_toolkit/WorldModel-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        **options,
    )
    first, again = many.reset(seed=2)[0], many.reset(seed=2)[0]
    np.testing.assert_array_equal(first, again)
    ends = [many.step(many.action_space.sample())[3].tolist() for _ in range(6)]
    assert ends == [[False] * 3] * 5 + [[True] * 3]


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*infinity")
def test_features_of_an_environment_are_those_of_a_saved_agents_model():
    spaces = gs.Box(0, 255, (16, 16, 3), np.uint8)

    class Noise(gym.Env):
        observation_space = spaces
        action_space = gs.Box(-1, 1, (4,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.integers(0, 256, (16, 16, 3), np.uint8), {}

        def step(self, action):
            return self.np_random.integers(0, 256, (16, 16, 3), np.uint8), 0.0, False, False, {}

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = small_lewm(Spaces({"image": spaces}, Noise.action_space))
    env = LatentObservation(Noise(), model)
    check_env(env, skip_render_check=True)
    raw, _ = Noise().reset(seed=5)
    with torch.no_grad():
        expected = model.encode(torch.as_tensor(raw)[None])[0].numpy()
    np.testing.assert_allclose(env.reset(seed=5)[0], expected, rtol=1e-5, atol=1e-6)


NAMED = {
    "both imported": ("import gymnasium, wm_toolkit", "wm_toolkit/TwoRooms-v0"),
    "a name used": (
        "import wm_toolkit; wm_toolkit.CEM; import gymnasium",
        "wm_toolkit/TwoRooms-v0",
    ),
    "module in the name": ("import gymnasium", "wm_toolkit.envs:wm_toolkit/TwoRooms-v0"),
}


@pytest.mark.parametrize("way", NAMED)
def test_gymnasium_makes_our_environments_by_name(way):
    imports, name = NAMED[way]
    code = f"{imports}; print(gymnasium.make({name!r}).reset(seed=0)[0].shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(64, 64, 3)", done.stderr


def test_goals_of_a_picture_on_disk_reach_the_planner(tmp_path, walks):
    """The picture is the goal observation; the agent encodes it and acts."""
    Image.fromarray(walks.rooms.render(np.float32([40, 40]))).save(tmp_path / "goal.png")

    def near(env, info):
        return walks.rooms.is_success(info["position"], np.float32([40, 40]))

    env = ActionBlock(
        GoalReaching(TwoRooms(), ImageGoals(tmp_path / "goal.png"), budget=10, success=near), 5
    )
    agent = wm_toolkit.build("lewm.small", Spaces.of(TwoRooms()).blocked(5), **LEWM)
    obs, _ = env.reset(seed=0)
    batch = {key: value[None] for key, value in obs.items()}
    decision, state = agent.act(
        batch, agent.initial(1), is_first=[True], generator=torch.Generator().manual_seed(0)
    )
    wanted = agent.model.eval().encode(torch.as_tensor(obs["goal/image"])[None])
    torch.testing.assert_close(state.actor.objective.features, wanted, atol=1e-5, rtol=1e-4)
    raw = agent.spaces.decode_action(decision.action)[0]
    assert env.action_space.contains(np.asarray(raw, np.float32))
    env.step(np.asarray(raw, np.float32))
