"""A world model as an environment: the toy's dynamics are known, so every number is."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces as gs
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_sb3
from torch import Tensor, nn

import wm_toolkit.envs  # noqa: F401  (registers the names)
from wm_toolkit.agents.actors import RandomActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.batch import Batch, Losses
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.envs.imagined import WorldModelEnv, WorldModelVectorEnv
from wm_toolkit.envs.starts import dense_reward
from wm_toolkit.envs.two_rooms import TwoRooms
from wm_toolkit.envs.walks import smooth_walks
from wm_toolkit.errors import ConfigError, MissingHeadError, SpaceError
from wm_toolkit.heads.bernoulli import Bernoulli
from wm_toolkit.heads.image import Image
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.objective import ActionCost, Goal, Objective, Reward, Survival, Weighted
from wm_toolkit.registry import build, recipe
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Point(Struct):
    xy: Tensor
    seen: Tensor


class PointMass(WorldModel[Point]):
    """xy' = xy + 2 action (+ noise); `seen` counts the observations since the beginning."""

    def __init__(self, noise: float = 0.0) -> None:
        position = gs.Box(0, 63, (2,), np.float32)
        super().__init__(Spaces({"position": position}, gs.Box(-1, 1, (2,), np.float32)))
        self.noise = noise

    def initial(self, batch_size: int) -> Point:
        return Point(torch.zeros(batch_size, 2), torch.zeros(batch_size))

    def observe(
        self, state: Point, action: Tensor, obs: dict[str, Tensor], *, generator=None
    ) -> Point:
        return Point(obs["position"], state.seen + 1)

    def imagine(self, state: Point, action: Tensor, *, generator=None) -> Point:
        noise = self.noise * torch.randn(state.xy.shape, generator=generator)
        return Point(state.xy + 2 * action + noise, state.seen)

    def features(self, state: Point) -> Tensor:
        return state.xy

    def loss(self, batch: Batch) -> Losses:
        return {}


class EndsBeyond(nn.Module):
    """Goes on for certain up to x = limit, ends for certain beyond it."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, features: Tensor) -> Bernoulli:
        return Bernoulli((self.limit - features[..., 0]) * 1e4)


class Painter(nn.Module):
    def forward(self, features: Tensor) -> Image:
        return Image((features[..., :1, None, None] / 63).expand(*features.shape[:-1], 8, 8, 3))


STARTS = {"position": np.float32([[10, 10], [20, 20], [30, 5]])}
AT_ORIGIN = Goal(features=torch.zeros(2), metric="l2")


def make(**kwargs) -> WorldModelEnv:
    kwargs = {"model": PointMass(), "objective": AT_ORIGIN, "starts": STARTS, **kwargs}
    return WorldModelEnv(**kwargs)


@pytest.fixture(scope="module")
def data() -> TrajectoryDataset:
    walks = smooth_walks(0, episodes=4, steps=12)
    spaces = Spaces.of(TwoRooms(obs_mode="both"))
    return TrajectoryDataset.from_trajectories(walks.trajectories(), spaces, name="walks")


def test_both_checkers_accept_it(data):
    env = gym.make(
        "wm_toolkit/WorldModel-v0", model=PointMass(), objective=Goal(), starts=data, horizon=9
    )
    check_env(env.unwrapped)
    check_sb3(env.unwrapped)


def test_an_episode_is_the_models_dream_and_the_objectives_reward():
    env = make(horizon=3)
    obs, info = env.reset(seed=0, options={"start": 1})
    assert (obs.tolist(), info) == ([20, 20], {"start": 1})
    for step in range(1, 4):
        obs, reward, terminated, truncated, _ = env.step(np.float32([-1, 0.5]))
        expected = np.array([20 - 2 * step, 20 + step])
        np.testing.assert_allclose(obs, expected)
        assert reward == pytest.approx(-np.linalg.norm(expected), rel=1e-5)
        assert (terminated, truncated) == (False, step == 3)


@pytest.mark.parametrize("mode", ["last", "sum", "all", "closest"])
def test_every_goal_mode_gives_a_dense_reward(mode):
    model = PointMass()
    state = Point(torch.tensor([[3.0, 4.0]]), torch.zeros(1))
    goal = Goal(features=torch.zeros(2), mode=mode, metric="l2")
    action = torch.tensor([[0.5, 0.5]])
    assert dense_reward(goal, model, action, state).item() == pytest.approx(-5)
    mixed = Weighted([(2.0, goal), (4.0, ActionCost())])
    assert dense_reward(mixed, model, action, state).item() == pytest.approx(-11)


def test_goals_drawn_from_the_starts_stand_behind_the_features():
    env = make(objective=Weighted([(1.0, Goal()), (0.0, ActionCost())]))
    assert env.observation_space.shape == (4,)
    obs, _ = env.reset(seed=0, options={"start": 0, "goal": 2})
    assert obs.tolist() == [10, 10, 30, 5]
    obs, reward, *_ = env.step(np.zeros(2, np.float32))
    assert reward == pytest.approx(-(20**2 + 5**2) / 2)


def test_goals_may_come_from_elsewhere():
    env = make(objective=Goal(), goals={"position": np.float32([[1, 2]])})
    for seed in range(3):
        assert env.reset(seed=seed)[0][2:].tolist() == [1, 2]


def test_the_continue_head_terminates():
    model = PointMass()
    model.heads["continue"] = EndsBeyond(13.0)
    env = make(model=model, horizon=9)
    env.reset(seed=0, options={"start": 0})
    ends = [env.step(np.float32([1, 0]))[2:4] for _ in range(2)]
    assert ends == [(False, False), (True, False)]


def test_termination_is_drawn_with_the_heads_probability():
    class Coin(nn.Module):
        def forward(self, features):
            return Bernoulli(torch.full(features.shape[:-1], float(np.log(0.8 / 0.2))))

    model = PointMass()
    model.heads["continue"] = Coin()
    envs = WorldModelVectorEnv(500, model=model, objective=AT_ORIGIN, starts=STARTS)
    envs.reset(seed=0)
    terminated = envs.step(np.zeros((500, 2), np.float32))[2]
    assert terminated.mean() == pytest.approx(0.2, abs=0.06)


def test_the_vector_equals_single_environments_through_an_autoreset():
    model = PointMass()
    model.heads["continue"] = EndsBeyond(34.0)
    kwargs = {"model": model, "objective": Goal(), "starts": STARTS, "horizon": 4}
    ours = gym.make_vec("wm_toolkit/WorldModel-v0", num_envs=3, **kwargs)
    theirs = gym.make_vec(
        "wm_toolkit/WorldModel-v0", num_envs=3, vectorization_mode="sync", **kwargs
    )
    assert isinstance(ours.unwrapped, WorldModelVectorEnv)
    assert ours.observation_space == theirs.observation_space
    rng = np.random.default_rng(0)
    (a, info_a), (b, info_b) = ours.reset(seed=4), theirs.reset(seed=4)
    ended = 0
    for _ in range(14):
        np.testing.assert_array_equal(a, b)
        assert info_a.keys() == info_b.keys()
        np.testing.assert_array_equal(info_a["start"], info_b["start"])
        actions = rng.uniform(-0.2, 1, (3, 2)).astype(np.float32)
        (a, *rest_a, info_a), (b, *rest_b, info_b) = ours.step(actions), theirs.step(actions)
        ended += rest_a[1].sum()
        for mine, other in zip(rest_a, rest_b):
            np.testing.assert_allclose(mine, other, rtol=1e-6)
    assert ended


def test_the_models_noise_follows_the_seed():
    env = make(model=PointMass(noise=1.0))

    def play(seed):
        env.reset(seed=seed, options={"start": 0})
        return env.step(np.zeros(2, np.float32))[0]

    np.testing.assert_array_equal(play(1), play(1))
    assert not np.array_equal(play(1), play(2))


def test_a_mask_restarts_only_its_rows():
    envs = WorldModelVectorEnv(3, model=PointMass(), objective=AT_ORIGIN, starts=STARTS)
    envs.reset(seed=0, options={"start": [0, 1, 2]})
    envs.step(np.ones((3, 2), np.float32))
    mask = np.array([True, False, True])
    obs, info = envs.reset(options={"reset_mask": mask, "start": [2, 2, 1]})
    assert obs.tolist() == [[30, 5], [22, 22], [20, 20]]
    assert info["start"].tolist() == [2, 1, 1]


def test_context_frames_of_a_data_set_are_observed_first(data):
    class Counts(PointMass):
        def features(self, state):
            return torch.cat([state.xy, state.seen.unsqueeze(-1)], -1)

    env = make(model=Counts(), starts=data, objective=Objective(), context=3)
    obs, info = env.reset(seed=0)
    assert obs[2] == 3
    stored = data.windows(3).gather([info["start"]]).obs["position"][0, -1]
    np.testing.assert_array_equal(obs[:2], stored.numpy())


def test_a_batch_is_a_start(data):
    batch = data.windows(2).gather([3, 4])
    env = make(starts=batch)
    obs, _ = env.reset(seed=0, options={"start": 1})
    np.testing.assert_array_equal(obs, batch.obs["position"][1, 1].numpy())


def test_rendering_uses_the_decoder_or_the_nearest_stored_frame(data):
    model = PointMass()
    env = make(model=model, starts=data, render_mode="rgb_array")
    _, info = env.reset(seed=0)
    stored = data.windows(1).gather([info["start"]]).obs["image"][0, 0]
    np.testing.assert_array_equal(env.render(), stored.numpy())
    model.heads["decoder"] = Painter()
    env = make(model=model, render_mode="rgb_array")
    env.reset(seed=0, options={"start": 0})
    picture = env.render()
    assert picture.shape == (8, 8, 3)
    assert (picture == round(10 / 63 * 255)).all()


def test_gymnasium_shares_the_model_and_can_make_it_again():
    model = PointMass()
    env = gym.make("wm_toolkit/WorldModel-v0", model=model, objective=AT_ORIGIN, starts=STARTS)
    assert env.spec is not None
    twin = env.spec.make()
    assert twin.unwrapped._dream.model is model
    np.testing.assert_array_equal(env.reset(seed=3)[0], twin.reset(seed=3)[0])


@dataclasses.dataclass(frozen=True)
class PointConfig:
    noise: float = 0.0


@recipe("point_mass_of_the_environment_tests", PointConfig)
def point_mass(spaces: Spaces, config: PointConfig) -> Agent:
    """A point mass."""
    model = PointMass(config.noise)
    return Agent(model, RandomActor(model))


def test_a_saved_model_is_an_environment(tmp_path):
    agent = build("point_mass_of_the_environment_tests", PointMass().spaces)
    path = agent.save_pretrained(tmp_path / "point")
    saved = gym.make("wm_toolkit/WorldModel-v0", model=path, objective=AT_ORIGIN, starts=STARTS)
    given = make(model=agent)
    np.testing.assert_array_equal(saved.reset(seed=5)[0], given.reset(seed=5)[0])
    action = np.float32([0.5, -1])
    np.testing.assert_array_equal(saved.step(action)[0], given.step(action)[0])


def test_what_does_not_fit_is_named(data):
    with pytest.raises(SpaceError, match=r"starts lack the observations \['position'\]"):
        make(starts={"image": np.zeros((2, 4))})
    with pytest.raises(
        SpaceError, match=r"a row for each start: \(M, 2\). Give a single one as value"
    ):
        make(starts={"position": np.zeros(2)})
    with pytest.raises(ConfigError, match="starts is a int"):
        make(starts=3)
    with pytest.raises(ConfigError, match="model is a dict"):
        make(model={})
    with pytest.raises(ConfigError, match="horizon is 0"):
        make(horizon=0)
    with pytest.raises(ConfigError, match="nothing to render"):
        make(render_mode="rgb_array")
    with pytest.raises(ConfigError, match=r"options\['start'\] is \[3\], there are 0 to 2"):
        make().reset(options={"start": 3})
    with pytest.raises(ConfigError, match="unknown reset option 'begin'"):
        make().reset(options={"begin": 0})


def test_an_objective_that_the_model_has_no_head_for_is_refused_at_once():
    model = PointMass()
    serves = "It serves Goal, ActionCost, and sums"
    with pytest.raises(MissingHeadError, match=rf"objective=Reward: .* no 'reward' head.*{serves}"):
        make(model=model, objective=Reward())
    with pytest.raises(MissingHeadError, match=r"objective=Weighted: .* no 'continue' head"):
        make(model=model, objective=Weighted([(1.0, AT_ORIGIN), (2.0, Survival())]))
    with pytest.raises(MissingHeadError, match="no 'reward' head"):
        WorldModelVectorEnv(3, model=model, objective=Reward(), starts=STARTS)
    model.heads["continue"] = EndsBeyond(13.0)
    with pytest.raises(MissingHeadError, match="It serves Goal, ActionCost, Survival, and sums"):
        make(model=model, objective=Reward())
    env = make(model=model, objective=Survival())
    env.reset(seed=0, options={"start": 0})
    assert env.step(np.zeros(2, np.float32))[1] == 1
