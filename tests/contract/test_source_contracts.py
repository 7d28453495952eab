"""A loader over stored windows and a growing replay buffer keep one contract and feed one Trainer."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from families import FAMILIES
from toys import BOX, vector_spaces

from wm_toolkit.batch import Batch
from wm_toolkit.data.dataset import TrajectoryDataset
from wm_toolkit.data.loader import Loader
from wm_toolkit.data.source import Source
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.registry import build
from wm_toolkit.spaces import Spaces
from wm_toolkit.testing import CheckError, check_source
from wm_toolkit.training.collect import AgentPolicy, RandomPolicy, collect
from wm_toolkit.training.config import TrainConfig
from wm_toolkit.training.trainer import Trainer


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        yield


class Drift(gym.Env):
    """A point that its action moves; the reward is its height, and the task ends above 2."""

    def __init__(self, action: gym.Space) -> None:
        self.observation_space = gym.spaces.Dict(vector_spaces().observation)
        self.action_space = action

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=3).astype(np.float32)
        return {"vector": self.x.copy()}, {}

    def step(self, action):
        self.x[:2] += 0.3 * np.float32(action)
        return {"vector": self.x.copy()}, float(self.x[1]), bool(self.x[1] > 2), False, {}


class ToyReplay:
    """Episodes go in, windows come out: a Source, and at the same time what `collect` writes to."""

    def __init__(self, spaces: Spaces, size: int, length: int, seed: int = 0) -> None:
        self.spaces, self.size, self.length = spaces, size, length
        self.rng = np.random.default_rng(seed)
        self.episodes: list[dict[str, torch.Tensor]] = []
        self.metadata, self.unfinished_metadata = {}, {}

    @property
    def finished(self) -> int:
        return len(self.episodes)

    def add_episode(self, trajectory: Trajectory) -> None:
        rows = trajectory.to_rows(self.spaces.action)
        first = np.arange(len(rows["action"])) == 0
        rows |= {"is_first": first, "reward": rows["reward"].astype(np.float32)}
        tensors = {key: torch.as_tensor(value) for key, value in rows.items()}
        self.episodes.append(tensors | {"action": self.spaces.encode_action(rows["action"])})

    def __iter__(self) -> ToyReplay:
        return self

    def __next__(self) -> Batch:
        long = [episode for episode in self.episodes if len(episode["action"]) >= self.length]
        windows = [self._window(long[self.rng.integers(len(long))]) for _ in range(self.size)]
        columns = {key: torch.stack([window[key] for window in windows]) for key in windows[0]}
        return Batch({"vector": columns.pop("obs/vector")}, **columns)

    def _window(self, episode: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        start = int(self.rng.integers(len(episode["action"]) - self.length + 1))
        return {key: value[start : start + self.length] for key, value in episode.items()}

    def state_dict(self) -> dict:
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]


def filled(action: gym.Space = BOX, episodes: int = 6, length: int = 5) -> ToyReplay:
    replay = ToyReplay(vector_spaces(action), 4, length)
    env = Drift(action)
    collect(env, RandomPolicy(action), replay, episodes=episodes, max_steps=12)
    return replay


def stored() -> TrajectoryDataset:
    rng = np.random.default_rng(0)

    def walk(steps: int) -> Trajectory:
        ends = np.arange(steps) == steps - 1
        return Trajectory(
            {"vector": rng.normal(size=(steps + 1, 3)).astype(np.float32)},
            rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
            rng.normal(size=steps).astype(np.float32),
            np.zeros(steps, bool),
            ends,
        )

    return TrajectoryDataset.from_trajectories(map(walk, (9, 7, 12)), vector_spaces(), name="walks")


def test_both_kinds_of_source_fit_the_protocol():
    assert isinstance(filled(), Source)
    assert isinstance(Loader(stored().windows(5), 4), Source)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_keeps_the_contract(workers):
    windows = stored().windows(5)
    assert len(check_source(lambda: Loader(windows, 4, seed=1, workers=workers))) == 4


def test_a_replay_buffer_keeps_the_contract():
    assert len(check_source(filled)) == 4


def test_what_a_replay_buffer_hands_out_follows_the_row_convention():
    replay = filled(episodes=20)
    for _ in range(5):
        batch = next(replay)
        height = batch.obs["vector"][..., 1]
        arrived = ~batch.is_first
        torch.testing.assert_close(batch.reward[arrived], height[arrived])
        assert (batch.reward[batch.is_first] == 0).all()
        moved = batch.obs["vector"][:, 1:, :2] - batch.obs["vector"][:, :-1, :2]
        torch.testing.assert_close(moved, 0.3 * batch.action[:, :-1], rtol=1e-4, atol=1e-5)


class Forgetful(ToyReplay):
    def load_state_dict(self, state):
        pass


class Stuck(ToyReplay):
    def __next__(self):
        self.rng = np.random.default_rng(0)
        return super().__next__()


class Unseeded(ToyReplay):
    def __next__(self):
        self.rng = np.random.default_rng()
        return super().__next__()


class Unsaveable(ToyReplay):
    def state_dict(self):
        return {"rng": self.rng}


class Misfit(ToyReplay):
    def __next__(self):
        batch = super().__next__()
        return batch.replace(obs={"vector": batch.obs["vector"][..., :2]})


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Forgetful, "it resumes where it stopped"),
        (Stuck, "batches differ from each other"),
        (Unseeded, "the same seed gives the same batches"),
        (Unsaveable, "it resumes where it stopped: TypeError"),
        (Misfit, r"obs 'vector' is \(2,\), not \(3,\)"),
    ],
)
def test_a_broken_source_is_found_out(broken, complaint):
    def make() -> ToyReplay:
        replay = broken(vector_spaces(), 4, 5)
        replay.episodes = filled().episodes
        return replay

    with pytest.raises(CheckError, match=complaint):
        check_source(make)


@pytest.mark.parametrize("family", ["rssm", "dreamer4"])
def test_a_trainer_learns_from_a_buffer_that_the_agent_itself_fills(family, tmp_path):
    """Collect, train, collect with the better agent, go on: the nouns carry online training."""
    agent = build(f"toy_of_the_contract_tests.{family}", vector_spaces())
    replay = filled(length=FAMILIES[family].length)
    config = TrainConfig(updates=20, batch_size=4, log_every=20, checkpoint_every=20)
    first = next(replay)
    before = _loss(agent, first)
    Trainer(agent, replay, run_dir=tmp_path / "1", config=config).train()
    known = replay.finished
    policy = AgentPolicy(agent, BOX, explore=True)
    collect(Drift(BOX), policy, replay, episodes=known + 2, max_steps=12)
    assert replay.finished == known + 2
    Trainer(agent, replay, run_dir=tmp_path / "2", config=config).train()
    assert _loss(agent, first) < before


def test_a_tree_search_family_trains_on_discrete_actions(tmp_path):
    action = gym.spaces.Discrete(3)
    agent = build("toy_of_the_contract_tests.muzero", vector_spaces(action))
    replay = filled(action)
    batch = next(replay)
    assert batch.action.shape == (4, 5, 3)
    before = _loss(agent, batch)
    config = TrainConfig(updates=30, batch_size=4, log_every=30, checkpoint_every=30)
    Trainer(agent, replay, run_dir=tmp_path, config=config).train()
    assert _loss(agent, batch) < before


def _loss(agent, batch: Batch) -> float:
    with torch.no_grad(), torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        return float(sum(term.mean() for term in agent.model(batch).values()))
