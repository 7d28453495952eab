"""Collecting while training: rows as the environment gave them, the stated ratio, exact resume."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from wm_toolkit.agents.actors import PolicyActor
from wm_toolkit.agents.agent import Agent
from wm_toolkit.data.replay import ReplayBuffer
from wm_toolkit.errors import ConfigError
from wm_toolkit.recipes.dreamer_v3 import Size, actor, world_model
from wm_toolkit.spaces import Spaces
from wm_toolkit.training.experience import Experience


class Counting(gym.Env):
    """Shows (episode, step); ends after 3 steps when the action is 1, else is cut after 5."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode, self.step_count = -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_count = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        self.step_count += 1
        ended = self.step_count >= 3 and action == 1
        return self._obs(), float(self.step_count), ended, self.step_count >= 5, {}

    def _obs(self):
        return np.array([self.episode, self.step_count], np.float32)


def source(*, ratio: float = 20.0, envs: int = 2, make=Counting, seed: int = 0) -> Experience:
    vector = SyncVectorEnv([make] * envs)
    spaces = Spaces.of(vector)
    torch.manual_seed(0)
    size = Size(deter=16, units=8, classes=3, depth=1)
    model = world_model(spaces, size)
    model.heads["policy"] = actor(spaces, model.rssm.width, size.units)
    replay = ReplayBuffer(spaces, capacity=400, streams=envs, batch_size=4, length=5, seed=seed)
    agent = Agent(model, PolicyActor(model))
    return Experience(agent, vector, replay, train_ratio=ratio, prefill=30, seed=seed)


def kept(experience: Experience) -> dict[str, np.ndarray]:
    """[N, rows, ...] every column."""
    rings = experience.replay.rings
    return {name: column[:, : len(rings)] for name, column in rings.columns.items()}


def test_rows_hold_what_the_environment_said_and_the_action_taken_in_response():
    experience = source()
    for _ in range(40):
        next(experience)
    rows = kept(experience)
    step, first = rows["obs/vector"][..., 1], rows["is_first"]
    assert (first == (step == 0)).all()
    assert (rows["reward"] == step).all()
    ended, cut = rows["terminated"], rows["truncated"]
    assert (cut == (step == 5))[~ended].all()
    assert ended.any()
    for n in range(2):
        over = (ended | cut)[n]
        assert (first[n, 1:] == over[:-1]).all()  # every end is followed by a beginning
        chosen = rows["action"][n, :-1].argmax(-1)
        assert (chosen[ended[n, 1:]] == 1).all()  # only action 1 ends an episode


def test_the_replayed_rows_per_collected_row_are_the_train_ratio():
    experience = source(ratio=10.0)
    next(experience)
    before = experience.rows
    for _ in range(50):
        next(experience)
    assert abs(50 * 20 / (experience.rows - before) - 10.0) < 0.3
    assert experience.rows_per_update == 2.0


def test_nothing_is_shown_before_the_prefill_is_there():
    experience = source()
    next(experience)
    assert 30 <= experience.rows < 34


def test_an_episodes_last_row_is_no_decision():
    experience = source()
    for _ in range(30):
        next(experience)
    rows = kept(experience)
    ends = int((rows["terminated"] | rows["truncated"])[:, :-1].sum())
    waiting = int((experience._ended[0] | experience._ended[1]).sum())
    assert experience.rows - experience.steps in (ends, ends + waiting)


def test_the_returns_of_finished_episodes_are_counted():
    experience = source()
    for _ in range(30):
        next(experience)
    assert set(experience.returns) <= {6.0, 10.0, 15.0}  # 3, 4 or 5 steps
    assert len(experience.returns) > 5


def test_a_resumed_source_shows_what_an_uninterrupted_one_shows(tmp_path):
    whole = source()
    for _ in range(10):
        next(whole)
    whole.save(tmp_path / "experience")
    again = source()
    again.load(tmp_path / "experience")
    # The counting environment remembers its episodes; CartPole-like ones begin anew from their seed.
    for env in again.envs.envs:
        env.unwrapped.episode = 0
    for env in whole.envs.envs:
        env.unwrapped.episode = 0
    again._begin()
    whole._begin()
    for _ in range(20):
        one, two = next(whole), next(again)
        assert torch.equal(one.obs["vector"], two.obs["vector"])
        assert torch.equal(one.action, two.action)
    assert whole.returns == again.returns


def test_saving_ends_the_running_episodes_as_truncated(tmp_path):
    experience = source()
    next(experience)
    experience.save(tmp_path / "experience")
    rows = kept(experience)
    assert (rows["truncated"][:, -1] | rows["terminated"][:, -1] | rows["is_first"][:, -1]).all()


def test_environments_that_reset_at_once_are_refused():
    vector = SyncVectorEnv([Counting], autoreset_mode=AutoresetMode.SAME_STEP)
    good = source(envs=1)
    with pytest.raises(ConfigError, match="NEXT_STEP"):
        Experience(good.agent, vector, good.replay, train_ratio=1.0)


def test_the_model_acts_without_gradients_and_in_evaluation_mode():
    experience = source()
    experience.agent.model.heads["policy"].register_forward_hook(
        lambda module, args, out: seen.append((module.training, torch.is_grad_enabled()))
    )
    seen: list[tuple[bool, bool]] = []
    for _ in range(5):
        next(experience)
    assert set(seen) == {(False, False)}
    assert isinstance(experience.agent.model, nn.Module)
